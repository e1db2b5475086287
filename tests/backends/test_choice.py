"""Which backend trains, why, and what depends on it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coralx.backends import choice as backend
from coralx.backends.choice import Choice, choose, require_compatible, with_backend_defaults
from coralx.backends.unsloth_models import FusedTypes
from coralx.cli.resume import resumed_config
from coralx.config import Config, dump_yaml, load_config
from coralx.errors import ConfigError, SetupError, UsageError
from coralx.records.events import RunStarted
from coralx.records.genomes import ALL_LINEAR
from coralx.records.run_facts import Settings
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import FORMAT, Ledger
from coralx.system.environment import torch_cuda
from tests.support.factories import make_config, make_facts
from tests.support.gpus import fake_gpus

GROUPS = (
    ("k_proj", "o_proj", "q_proj", "v_proj"),
    ("down_proj", "gate_proj", "up_proj"),
    ALL_LINEAR,
)


def causal(**sections: Any) -> Config:
    config = make_config(**sections)
    return config.model_copy(
        update={"model": config.model.model_copy(update={"task": "label-tokens"})}
    )


@pytest.fixture(autouse=True)
def _able(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing stands in Unsloth's way."""
    fake_gpus(monkeypatch, 80)
    monkeypatch.setattr(backend, "is_installed", lambda module: True)  # noqa: ARG005
    monkeypatch.setattr(backend, "torch_cuda", lambda: "12.8")


def test_auto_takes_unsloth_where_nothing_stands_in_its_way() -> None:
    assert choose(causal()) == Choice("unsloth", "a GPU is visible, and Unsloth is faster there")


def base_of_type(folder: Path, kind: str, task: str, **runtime: Any) -> Config:
    """A config for a base that is only described."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    return make_config(model={"base": str(folder), "task": task}, runtime=runtime)


@pytest.mark.parametrize("task", ["sequence-classification", "label-tokens", "sft"])
def test_auto_trains_language_models_with_unsloth_and_others_with_peft(
    tmp_path: Path, task: str
) -> None:
    for kind in ("llama", "qwen3"):
        assert choose(base_of_type(tmp_path, kind, task)).name == "unsloth"
    for kind in ("gemma3", "gemma3n", "qwen3_5", "granite"):
        reason = f"Unsloth has no fused kernels for models of type {kind}"
        assert choose(base_of_type(tmp_path, kind, task)) == Choice("peft", reason)
    encoder = base_of_type(tmp_path, "modernbert", task)
    assert choose(encoder) == Choice("peft", "encoders train with PEFT")
    in_8_bits = base_of_type(tmp_path, "llama", "sft", quantization="8bit")
    assert choose(in_8_bits).reason == "Unsloth has no fused kernels for weights in 8 bits"


def test_auto_goes_by_the_types_of_the_installed_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        backend, "fused_types", lambda: FusedTypes(frozenset({"gemma9"}), "a guess")
    )
    assert choose(base_of_type(tmp_path, "gemma9", "sft")).name == "unsloth"
    assert choose(base_of_type(tmp_path, "llama", "sft")).reason.endswith("type llama (a guess)")


def test_auto_classifies_with_peft_where_the_bases_type_is_not_known() -> None:
    reason = "encoders train with PEFT, and the base's type is not known"
    assert choose(make_config()) == Choice("peft", reason)


def test_auto_says_which_condition_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "is_installed", lambda module: module != "unsloth")
    assert "pip install 'coralx[unsloth]'" in choose(causal()).reason
    monkeypatch.setattr(backend, "torch_cuda", lambda: None)
    assert choose(causal()) == Choice("peft", "torch is a CPU build")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose(causal()) == Choice("peft", "no GPU is visible")


def test_a_named_backend_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(causal(runtime={"backend": "peft"})).name == "peft"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # Unsloth trains on CPUs, too, when asked
    assert choose(causal(runtime={"backend": "unsloth"})).name == "unsloth"


def test_unsloth_does_not_classify_with_encoders(tmp_path: Path) -> None:
    named = base_of_type(tmp_path, "bert", "sequence-classification", backend="unsloth")
    with pytest.raises(ConfigError, match=r"runtime\.backend.*is an encoder \(bert\)") as caught:
        choose(named)
    assert "peft" in caught.value.hint
    require_compatible(named, "peft")
    decoder = base_of_type(tmp_path, "llama", "sequence-classification", backend="unsloth")
    assert choose(decoder).name == "unsloth"


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "is_installed", lambda module: False)  # noqa: ARG005
    with pytest.raises(SetupError, match="not installed") as caught:
        choose(causal(runtime={"backend": "unsloth"}))
    assert "coralx[unsloth]" in caught.value.hint


def test_the_build_of_torch_is_read_without_importing_it() -> None:
    torch = pytest.importorskip("torch")
    assert torch_cuda() == torch.version.cuda


@pytest.mark.parametrize(
    ("line", "found"),
    [("cuda: Optional[str] = '12.8'", "12.8"), ("cuda = '11.8'", "11.8"), ("cuda = None", None)],
)
def test_all_forms_of_torchs_version_file_are_read(
    line: str, found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "torch" / "version.py").write_text(f"debug = False\n{line}\nhip = '6.1'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert torch_cuda() == found


def test_unsloth_searches_whole_groups_unless_told_otherwise() -> None:
    assert with_backend_defaults(causal(), "unsloth").search_space.target_modules.choices == GROUPS
    assert with_backend_defaults(causal(), "peft") == causal()
    told = causal(search_space={"target_modules": {"choices": [["q_proj", "v_proj"]]}})
    assert with_backend_defaults(told, "unsloth") == told


def run_on_unsloth(config: Config, folder: Path) -> RunLayout:
    """A run that Unsloth began."""
    layout = RunLayout(folder / "runs" / "one")
    layout.root.mkdir(parents=True)
    layout.config.write_text(dump_yaml(with_backend_defaults(config, "unsloth")))
    facts = replace(make_facts(), backend="unsloth")
    Ledger(layout.ledger).append(
        RunStarted(FORMAT, "one", "hyperband", 1, facts, Settings(1, 1, "bf16"), {}, {}, 1.0)
    )
    return layout


def config_file(folder: Path, *lines: str) -> Path:
    path = folder / "c.yaml"
    (folder / "base").mkdir()
    (folder / "rows.csv").touch()
    path.write_text(
        "\n".join(["model: {base: base}", "data: {train: rows.csv}", *lines]), encoding="utf-8"
    )
    return path


def test_a_resumed_run_keeps_its_backends_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = config_file(tmp_path)
    layout = run_on_unsloth(load_config(path, ["experiment.name=one"]), tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # a choice made today would be another
    config = resumed_config(layout, path, ["budget.max_steps=9"], None, None)
    assert config.search_space.target_modules.choices == GROUPS
    with pytest.raises(UsageError, match=r"runtime\.quantization"):
        resumed_config(layout, None, ["runtime.quantization=4bit"], None, None)
