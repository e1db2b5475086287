"""Training in float16: losses are scaled, and the scale goes on wherever a genome's training does.

On a CPU, where autocast to float16 and the scaler work as on a GPU, but for their speed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from coralx.backends.protocol import Paused, create  # noqa: E402
from coralx.config import parse_config  # noqa: E402
from coralx.records.genomes import Genes, Genome  # noqa: E402
from coralx.records.jobs import Horizon, Job, MeasureJob  # noqa: E402
from coralx.records.results import StageResult  # noqa: E402
from coralx.system.files import write_folder  # noqa: E402
from coralx.training import adapter_backend as adapting  # noqa: E402

GENOME = Genome("a", 0, Genes(rank=4, learning_rate=1e-2, dropout=0.1, batch_size=8))
CHILD = Genome("b", 1, GENOME.genes, parents=("a",), inherits="a")
FRESH = 2.0**22
"""A scale at which gradients of the tiny base overflow in the first steps of a training."""


@pytest.fixture
def backend(tiny_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    tiny_config["training"]["precision"] = "fp16"
    made = create("peft")
    facts = made.prepare(parse_config(tiny_config, "test"), None, 1, lambda _: None)
    assert (facts.precision, facts.footprint.activation_bytes) == ("fp16", 2)

    def scaler(precision: str, device: Any) -> Any:
        assert precision == "fp16"
        return torch.amp.GradScaler(device.type, init_scale=FRESH, growth_interval=5)

    monkeypatch.setattr(adapting, "loss_scaler", scaler)
    return made


def job(genome: Genome, folder: Path, first: int, last: int, **changes: Any) -> Job:
    where = str(folder / f"to-{last}")
    return Job(genome, f"to-{last}", first, last, Horizon(40, 2), 1.0, where, **changes)


def trained(backend: Any, job: Job) -> StageResult:
    result: StageResult = backend.train(job, lambda _: None)
    return result


def pausing_after(steps: int) -> Callable[[], None]:
    left = iter(range(steps))

    def beat() -> None:
        if next(left, None) is None:
            raise Paused

    return beat


def state_of(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / "trainer_state.json").read_text())
    return state


def files_of(folder: Path) -> dict[str, bytes]:
    """All but what names the stage."""
    names = ("adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


def test_the_scale_goes_on_where_a_genomes_training_does(backend: Any, tmp_path: Path) -> None:
    """Cut among skipped steps and after them, at the end of a stage and within one."""
    whole = trained(backend, job(GENOME, tmp_path / "whole", 0, 20))
    assert 3 < whole.skipped_steps < 12
    assert (whole.steps, whole.divergence) == (20, None)
    assert whole.metrics["gradient_norm"] < 100

    cut, kept = tmp_path / "cut", tmp_path / "kept"
    first = trained(backend, job(GENOME, cut, 0, 3))
    assert (first.skipped_steps, first.judged_steps) == (3, 0)
    assert first.metrics["gradient_norm"] is None  # of none of its steps
    last = job(GENOME, cut, 3, 20, resume_from=str(cut / "to-3"), partial=str(kept))
    with pytest.raises(Paused):
        backend.train(last, lambda _: None, pausing_after(9))
    assert state_of(kept)["scaler"]["scale"] < state_of(cut / "to-3")["scaler"]["scale"] < FRESH
    assert state_of(kept)["scaler"]["_growth_tracker"] > 0  # good steps since
    second = trained(backend, last)
    assert files_of(cut / "to-20") == files_of(tmp_path / "whole" / "to-20")
    scaler = state_of(cut / "to-20")["scaler"]
    assert scaler == state_of(tmp_path / "whole" / "to-20")["scaler"]
    assert first.skipped_steps + second.skipped_steps == whole.skipped_steps
    assert first.trained_tokens + second.trained_tokens == whole.trained_tokens

    parent = str(cut / "to-20")
    child = job(CHILD, tmp_path / "child", 0, 1, inherit_from=parent, inherit_optimizer=True)
    assert trained(backend, child).skipped_steps == 1
    assert state_of(tmp_path / "child" / "to-1")["scaler"]["scale"] == FRESH / 2


def test_a_partial_checkpoint_of_an_earlier_version_is_taken_up(
    backend: Any, tmp_path: Path
) -> None:
    """Its trace does not tell of skipped steps."""
    wanted = job(GENOME, tmp_path, 0, 4, partial=str(tmp_path / "kept"), is_scored=False)
    with pytest.raises(Paused):
        backend.train(wanted, lambda _: None, pausing_after(3))
    held = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    state = json.loads(held.pop("trainer_state.json"))
    del state["trace"]["skipped"]

    def fill(folder: Path) -> None:
        for name in ("adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors"):
            (folder / name).write_bytes(held[name])
        (folder / "trainer_state.json").write_text(json.dumps(state))

    write_folder(tmp_path / "kept", fill)
    taken: list[int] = []
    backend.train(wanted, lambda _: None, lambda: taken.append(1))
    assert len(taken) == 1


def test_a_base_in_float16_has_adapters_in_float32(
    causal_config: Callable[[str], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: the scaler takes no gradients in float16, and updates would vanish in it."""
    monkeypatch.setattr(adapting, "base_dtype", lambda *_, **__: torch.float16)
    config = causal_config("label-tokens")
    config["training"]["precision"] = "fp16"
    backend: Any = create("peft")
    facts = backend.prepare(parse_config(config, "test"), None, 1, lambda _: None)
    assert facts.footprint.base_bytes < 2.1 * facts.base_parameters
    text = backend._material.task._text
    logits, seen = text.logits, set[Any]()

    def noted(*arguments: Any, **named: Any) -> Any:
        seen.add((torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        assert torch.get_autocast_dtype("cpu") == torch.float16
        return logits(*arguments, **named)

    monkeypatch.setattr(text, "logits", noted)
    untuned = backend.measure(MeasureJob(None, None)).validation["eval_loss"]
    result = trained(backend, job(GENOME, tmp_path, 0, 20))
    assert seen == {(True, True), (False, True)}  # trained on and scored
    assert (result.divergence, result.skipped_steps) == (None, 0)
    assert result.metrics["eval_loss"] < untuned - 0.05
    saved = load_file(tmp_path / "to-20" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
