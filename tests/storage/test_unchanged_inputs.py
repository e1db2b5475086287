"""A run goes on with the base and the data that it began with, wherever they lie."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.errors import UsageError
from coralx.records.events import RunStarted
from coralx.storage.ledger import Ledger
from coralx.storage.unchanged_inputs import changes_between
from tests.support.factories import make_config, make_facts

Change = Callable[[Path], None]


def of_base(folder: Path) -> tuple[str, str]:
    """The digests of settings and weights."""
    from coralx.training import base_fingerprint as fingerprint

    settings, weights = fingerprint.fingerprint_of_base(str(folder), runs_code=False).split("-")
    return settings, weights


def setting(**values: Any) -> Change:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return change


def nudged(folder: Path) -> None:
    """One weight by a thousandth."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors[min(tensors)].view(-1)[0] += 1e-3
    save_file(tensors, file, metadata={"format": "pt"})


def saved_in_pieces(folder: Path) -> None:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, local_files_only=True)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert (folder / "model.safetensors.index.json").is_file()


def sparse(folder: Path) -> None:
    """As an older version writes it: without what is a default."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    kept = {name: value for name, value in config.items() if isinstance(value, int)}
    kept |= {name: config[name] for name in ("model_type", "initializer_range")}
    file.write_text(json.dumps(kept))


@pytest.mark.parametrize(
    ("change", "differ"),
    [
        (lambda _: None, (False, False)),
        (saved_in_pieces, (False, False)),
        (sparse, (False, False)),
        (
            setting(transformers_version="4.0", _name_or_path="x", torch_dtype="float16"),
            (False,) * 2,
        ),
        (setting(hidden_act="relu"), (True, False)),
        (setting(layer_norm_eps=1e-5), (True, False)),
        (nudged, (False, True)),
    ],
)
def test_a_base_is_its_settings_and_weights(
    tiny_base: Path, tmp_path: Path, change: Change, differ: tuple[bool, bool]
) -> None:
    shutil.copytree(tiny_base, tmp_path / "copy")
    change(tmp_path / "copy")
    pairs = zip(of_base(tiny_base), of_base(tmp_path / "copy"), strict=True)
    assert tuple(one != other for one, other in pairs) == differ


@pytest.mark.parametrize(
    ("then", "now", "says"),
    [
        ({}, {}, None),
        ({"base_fingerprint": "", "data_fingerprint": ""}, {}, None),  # a version without them
        ({"fingerprint": "0-d", "base_fingerprint": "", "data_fingerprint": ""}, {}, None),
        (
            {"fingerprint": "0-e", "base_fingerprint": "", "data_fingerprint": ""},
            {},
            "the data changed (as many rows",
        ),
        ({}, {"data_fingerprint": "e"}, "the data changed (as many rows"),
        ({}, {"rows": {"train": 5}}, "the data changed (it had 0 test rows, 800 train rows"),
        ({}, {"base_fingerprint": "s-x"}, "the base model changed (other weights)"),
        ({}, {"base_fingerprint": "x-w"}, "the base model changed (other settings in its config"),
        ({}, {"base_fingerprint": "x-y"}, "other settings in its config.json and other weights"),
        ({}, {"base_parameters": 7}, "the base model changed (it had 0 parameters, now 7)"),
    ],
)
def test_what_changed_is_told(then: dict[str, Any], now: dict[str, Any], says: str | None) -> None:
    known = replace(make_facts(), base_fingerprint="s-w", data_fingerprint="d")
    changes = changes_between(replace(known, **then), replace(known, **now))
    assert len(changes) == (says is not None)
    assert says is None or says in changes[0]


def test_a_run_goes_on_with_the_same_base_elsewhere_and_with_no_other(
    tiny_config: dict[str, Any],
    tiny_base: Path,
    reviews: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(reviews, "reviews.tsv")
    tiny_config["data"]["train"] = str(tmp_path / "reviews.tsv")
    tiny_config["evolution"] = {"population_size": 3, "generations": 1}
    tiny_config["runtime"] = {"executor": "in-process", "threads_per_worker": 1, "backend": "peft"}

    def config(base: Path, steps: int) -> Any:
        model = {**tiny_config["model"], "base": str(base)}
        return make_config(**{**tiny_config, "model": model, "budget": {"max_steps": steps}})

    layout = api.evolve(config(tiny_base, 2), "x").layout
    started = Ledger.read_events(layout.ledger)[0]
    assert isinstance(started, RunStarted)
    assert started.facts.base_fingerprint == "-".join(of_base(tiny_base))
    assert started.facts.data_fingerprint
    for change, says in (
        (nudged, r"'x' began, the base model changed \(other weights\)$"),
        (setting(hidden_act="relu"), "the base model changed .other settings"),
        (setting(transformers_version="4.0"), None),
    ):
        shutil.rmtree("copy", ignore_errors=True)
        shutil.copytree(tiny_base, "copy")
        change(Path("copy"))
        if says is None:
            api.resume(layout, config(tmp_path / "copy", 4))
            continue
        with pytest.raises(UsageError, match=says):
            api.resume(layout, config(tmp_path / "copy", 4))
    text = Path("reviews.tsv").read_text()
    Path("reviews.tsv").write_text(text.replace("coffee", "road", 1))
    with pytest.raises(UsageError, match=r"the data changed \(as many rows"):
        api.resume(layout, config(tmp_path / "copy", 6))
