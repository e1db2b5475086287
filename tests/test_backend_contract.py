"""What every training backend must do. A new backend joins by adding its name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from coralx.config import parse_config  # noqa: E402
from coralx.files import verify_folder  # noqa: E402
from coralx.records import Genes, Genome, Horizon, Job, MeasureJob, Progress  # noqa: E402
from coralx.training.backend import Backend, create  # noqa: E402

BACKENDS = ["peft"]
HORIZON = Horizon(total_steps=80, warmup_steps=2)
GENES = Genes(rank=4, learning_rate=2e-2, dropout=0.1, batch_size=8)


@pytest.fixture(scope="module", params=BACKENDS)
def backend_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def backend(backend_name: str, tiny_config: dict[str, Any]) -> Backend:
    backend = create(backend_name)
    backend.prepare(parse_config(tiny_config, "test"), None, 1, ignore)
    return backend


def job(genome: Genome, folder: Path, first: int, last: int, **changes: Any) -> Job:
    return Job(
        genome=genome,
        stage=f"to-{last}",
        first_step=first,
        last_step=last,
        horizon=HORIZON,
        data_fraction=1.0,
        checkpoint=str(folder / f"to-{last}"),
        **changes,
    )


def ignore(said: Progress | str) -> None:
    """A listener that does not listen."""


def adapter_bytes(folder: Path) -> bytes:
    names = ("adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors")
    return b"".join((folder / name).read_bytes() for name in names)


def test_training_learns_and_reports_its_progress(backend: Backend, tmp_path: Path) -> None:
    genome = Genome("g00-00-aaaa", 0, GENES)
    heard: list[Progress] = []
    result = backend.train(job(genome, tmp_path, 0, 80), heard.append)
    untuned = backend.measure(MeasureJob(None, None))
    assert result.metrics["eval_loss"] < untuned.validation["eval_loss"] - 0.05
    assert result.metrics["auroc"] > 0.75
    assert (result.first_step, result.last_step, result.judged_steps) == (0, 80, 78)
    assert result.metrics["gradient_norm"] > 0
    assert result.metrics["loss_slope"] < 0
    assert result.loss_trend.low < result.loss_trend.slope < result.loss_trend.high
    assert heard[-1].step == 80


def test_a_continued_stage_equals_one_that_was_never_cut(
    backend: Backend, backend_name: str, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    genome = Genome("g00-00-aaaa", 0, GENES)
    other = Genome("g00-01-bbbb", 0, replace(GENES, rank=8, target_modules=("query",)))
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    backend.train(job(genome, cut, 0, 7), ignore)
    backend.train(job(other, tmp_path / "other", 0, 5), ignore)
    first = backend.train(
        job(genome, cut, 7, 20, resume_from=str(cut / "to-7")),
        ignore,
    )
    fresh = create(backend_name)
    fresh.prepare(parse_config(tiny_config, "test"), None, 1, ignore)
    second = fresh.train(job(genome, whole, 0, 20), ignore)
    assert adapter_bytes(cut / "to-20") == adapter_bytes(whole / "to-20")
    figures = ("auroc", "eval_loss", "calibration", "trainable_parameters")
    assert [first.metrics[f] for f in figures] == [second.metrics[f] for f in figures]


def test_a_child_starts_from_its_parents_weights(backend: Backend, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    parent = Genome("g00-00-aaaa", 0, GENES)
    backend.train(job(parent, tmp_path / "parent", 0, 10), ignore)
    still = replace(GENES, learning_rate=1e-30)
    child = Genome("g01-00-cccc", 1, still, parents=(parent.id,), inherits=parent.id)
    backend.train(
        job(child, tmp_path / "child", 0, 1, inherit_from=str(tmp_path / "parent/to-10")), ignore
    )
    ours = load_file(tmp_path / "child/to-1/adapter_model.safetensors")
    theirs = load_file(tmp_path / "parent/to-10/adapter_model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("use_dora", [False, True])
def test_a_child_of_another_alpha_starts_from_the_same_function(
    backend: Backend, tmp_path: Path, use_dora: bool
) -> None:
    genes = replace(GENES, use_dora=use_dora)
    parent = Genome("g00-00-aaaa", 0, genes)
    before = backend.train(job(parent, tmp_path / "parent", 0, 10), ignore)
    louder = replace(genes, alpha_ratio=2.0, learning_rate=1e-30)
    child = Genome("g01-00-cccc", 1, louder, parents=(parent.id,), inherits=parent.id)
    after = backend.train(
        job(
            child,
            tmp_path / "child",
            0,
            1,
            inherit_from=str(tmp_path / "parent/to-10"),
            inherit_optimizer=True,
        ),
        ignore,
    )
    assert after.metrics["eval_loss"] == pytest.approx(before.metrics["eval_loss"], rel=1e-5)


def test_inheriting_the_optimizer_changes_what_is_learnt(backend: Backend, tmp_path: Path) -> None:
    parent = Genome("g00-00-aaaa", 0, GENES)
    backend.train(job(parent, tmp_path / "parent", 0, 10), ignore)
    child = Genome("g01-00-cccc", 1, GENES, parents=(parent.id,), inherits=parent.id)
    source = str(tmp_path / "parent/to-10")
    for name, with_optimizer in (("with", True), ("without", False)):
        backend.train(
            job(
                child,
                tmp_path / name,
                0,
                3,
                inherit_from=source,
                inherit_optimizer=with_optimizer,
            ),
            ignore,
        )
    assert adapter_bytes(tmp_path / "with/to-3") != adapter_bytes(tmp_path / "without/to-3")


def test_a_loss_that_is_no_number_stops_the_genome_at_that_step(
    backend: Backend, tmp_path: Path
) -> None:
    genome = Genome("g00-00-aaaa", 0, replace(GENES, learning_rate=1e30))
    result = backend.train(job(genome, tmp_path, 0, 20), ignore)
    assert result.divergence is not None
    assert result.divergence.step == result.last_step + 1 <= 5
    assert result.metrics == {}
    assert result.checkpoint is None
    assert not (tmp_path / "to-20").exists()


def test_figures_do_not_depend_on_what_ran_before(backend: Backend, tmp_path: Path) -> None:
    genome = Genome("g00-00-aaaa", 0, GENES)
    before = backend.measure(MeasureJob(None, None))
    backend.train(job(genome, tmp_path, 0, 20), ignore)
    assert backend.measure(MeasureJob(None, None)) == before
    assert backend.base_loads == 1


def test_a_measured_adapter_has_the_figures_of_its_last_stage(
    backend: Backend, tmp_path: Path
) -> None:
    genome = Genome("g00-00-aaaa", 0, GENES)
    result = backend.train(job(genome, tmp_path, 0, 20), ignore)
    measured = backend.measure(MeasureJob(genome, result.checkpoint))
    for name in ("auroc", "eval_loss", "calibration", "trainable_parameters", "adapter_bytes"):
        assert measured.validation[name] == result.metrics[name]
    auroc = measured.test["auroc"]
    assert auroc.low <= auroc.value <= auroc.high
    assert auroc.low < auroc.high


def test_checkpoints_are_whole_and_plain_peft(
    backend: Backend, tiny_base: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    genome = Genome("g00-00-aaaa", 0, GENES)
    backend.train(job(genome, tmp_path, 0, 4), ignore)
    folder = tmp_path / "to-4"
    verify_folder(folder)
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
        "optimizer.safetensors",
        "trainer_state.json",
    }
    assert json.loads((folder / "trainer_state.json").read_text())["step"] == 4
    base = AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=2)
    loaded = PeftModel.from_pretrained(base, str(folder))
    assert loaded.peft_config["default"].r == GENES.rank


def test_a_hundred_adapters_leave_no_trace(backend: Backend, tmp_path: Path) -> None:
    import gc
    import resource

    def train(number: int) -> None:
        genome = Genome(f"g00-{number:02d}-dddd", 0, replace(GENES, rank=32))
        backend.train(job(genome, tmp_path / str(number), 0, 1, eval_limit=8), ignore)

    def parameters() -> int:
        gc.collect()
        return sum(isinstance(thing, torch.nn.Parameter) for thing in gc.get_objects())

    for number in range(10):
        train(number)
    before, peak = parameters(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(10, 100):
        train(number)
    assert parameters() == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1.05 * peak


def test_target_modules_that_the_base_lacks_are_named_with_those_it_has(
    backend_name: str, tiny_config: dict[str, Any]
) -> None:
    from coralx.errors import ConfigError

    tiny_config["search_space"]["target_modules"] = {"choices": [["querry"]]}
    with pytest.raises(ConfigError, match=r"'querry' \(did you mean 'query'\?\).*value") as error:
        create(backend_name).prepare(parse_config(tiny_config, "test"), None, 1, ignore)
    assert error.value.exit_code == 2


def refusal(backend_name: str, config: dict[str, Any]) -> str:
    from coralx.errors import ConfigError

    with pytest.raises(ConfigError) as error:
        create(backend_name).prepare(parse_config(config, "test"), None, 1, ignore)
    return error.value.message


def test_batches_larger_than_the_data_are_refused(
    backend_name: str, tiny_config: dict[str, Any]
) -> None:
    tiny_config["training"]["batch_size"] = 200
    message = refusal(backend_name, tiny_config)
    assert "training.batch_size: 200, but data.train has only 144 rows" in message
    tiny_config["search_space"]["batch_size"] = {"choices": [8, 500]}
    assert "search_space.batch_size: 500" in refusal(backend_name, tiny_config)


def test_a_damaged_model_is_refused(
    backend_name: str, tiny_config: dict[str, Any], tiny_base: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_base, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    tiny_config["model"]["base"] = str(damaged)
    message = refusal(backend_name, tiny_config)
    assert f"model.base: {damaged} cannot be loaded" in message


def test_a_folder_without_a_model_is_refused(
    backend_name: str, tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    tiny_config["model"]["base"] = str(tmp_path)
    assert "cannot be loaded" in refusal(backend_name, tiny_config)
