"""What every training backend must do, for every task that it trains.

A new backend joins by adding its name to TASKS. Unsloth changes transformers for the whole process,
so it has a run of its own: `pytest tests/backends/test_contract.py --backend unsloth`.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from coralx.backends.protocol import Backend, Paused, create
from coralx.config import parse_config
from coralx.errors import NotDerivable, OutOfMemory
from coralx.metrics import compute as predictions
from coralx.metrics.row_scores import read_scores, scores_are_intact
from coralx.records.derivations import Derivation
from coralx.records.genomes import Blend, Genes, Genome, Shape
from coralx.records.jobs import DeriveJob, Horizon, Job, MeasureJob, Watch
from coralx.records.results import Derived, Divergence, Inheritance, Progress, StageResult
from coralx.system.files import verify_folder
from coralx.training import adapters, loop
from coralx.training import out_of_memory as shortage
from coralx.training.inference import predict

TASKS = {
    "peft": ["sequence-classification", "label-tokens", "sft"],
    # Its CPU backend loads no classification heads. On GPUs it does: see test_unsloth_gpu_path.py.
    "unsloth": ["label-tokens", "sft"],
}
SKILL = {"sequence-classification": "auroc", "label-tokens": "auroc", "sft": "perplexity"}
PART = {"sequence-classification": "query", "label-tokens": "q_proj", "sft": "q_proj"}
"""One kind of linear module that the task's base has."""

HORIZON = Horizon(total_steps=80, warmup_steps=2)
GENES = Genes(rank=4, learning_rate=2e-2, dropout=0.1, batch_size=8)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name = str(metafunc.config.getoption("--backend"))
    if "task" in metafunc.fixturenames:
        metafunc.parametrize("task", TASKS[name], scope="module")


@pytest.fixture(scope="module")
def backend_name(request: pytest.FixtureRequest) -> str:
    name = str(request.config.getoption("--backend"))
    if name == "unsloth" and find_spec("unsloth") is None:
        pytest.skip("unsloth is not installed: make unsloth")
    return name


@pytest.fixture(scope="module")
def config_for(
    task: str,
    tiny_search: dict[str, Any],
    causal_config: Callable[[str], dict[str, Any]],
) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        if task == "sequence-classification":
            return copy.deepcopy(tiny_search)
        return causal_config(task)

    return make


@pytest.fixture
def config(config_for: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """For a test to change as it likes."""
    return config_for()


def prepared(name: str, config: dict[str, Any]) -> Backend:
    backend = create(name)
    backend.prepare(parse_config(config, "test"), None, 1, ignore)
    return backend


@pytest.fixture(scope="module")
def backend(backend_name: str, config_for: Callable[[], dict[str, Any]]) -> Backend:
    """One for all tests that leave it as it is, as a worker has one for all its genomes."""
    return prepared(backend_name, config_for())


@pytest.fixture
def own_backend(backend_name: str, config: dict[str, Any]) -> Backend:
    """For a test to change as it likes."""
    return prepared(backend_name, config)


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


def test_training_learns_and_reports_its_progress(
    backend: Backend, task: str, tmp_path: Path
) -> None:
    genome = Genome("g00-00-aaaa", 0, GENES)
    heard: list[Progress] = []
    result = backend.train(job(genome, tmp_path, 0, 80), heard.append)
    untuned = backend.measure(MeasureJob(None, None))
    assert result.metrics["eval_loss"] < untuned.validation["eval_loss"] - 0.05
    if task != "sft":
        assert result.metrics["auroc"] > 0.75
    assert result.trained_tokens > 80 * 8 * 4
    assert (result.first_step, result.last_step, result.judged_steps) == (0, 80, 78)
    assert result.metrics["gradient_norm"] > 0
    assert result.metrics["loss_slope"] < 0
    assert result.loss_trend.low < result.loss_trend.slope < result.loss_trend.high
    assert heard[-1].step == 80


def test_a_continued_stage_equals_one_that_was_never_cut(
    backend: Backend, backend_name: str, task: str, config: dict[str, Any], tmp_path: Path
) -> None:
    genome = Genome("g00-00-aaaa", 0, GENES)
    other = Genome("g00-01-bbbb", 0, replace(GENES, rank=8, target_modules=(PART[task],)))
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    backend.train(job(genome, cut, 0, 7), ignore)
    backend.train(job(other, tmp_path / "other", 0, 5), ignore)
    first = backend.train(
        job(genome, cut, 7, 20, resume_from=str(cut / "to-7")),
        ignore,
    )
    fresh = prepared(backend_name, config)
    second = fresh.train(job(genome, whole, 0, 20), ignore)
    assert adapter_bytes(cut / "to-20") == adapter_bytes(whole / "to-20")
    figures = (SKILL[task], "eval_loss", "trainable_parameters")
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
    again = backend.measure(MeasureJob(None, None))
    assert replace(again, seconds=0.0) == replace(before, seconds=0.0)
    assert backend.base_loads == 1


def test_a_measured_adapter_has_the_figures_of_its_last_stage(
    backend: Backend, task: str, tmp_path: Path
) -> None:
    genome = Genome("g00-00-aaaa", 0, GENES)
    result = backend.train(job(genome, tmp_path, 0, 20), ignore)
    measured = backend.measure(MeasureJob(genome, result.checkpoint))
    for name in (SKILL[task], "eval_loss", "trainable_parameters", "adapter_bytes"):
        assert measured.validation[name] == result.metrics[name]
    skill = measured.test[SKILL[task]]
    assert skill.low <= skill.value <= skill.high
    assert skill.low < skill.high
    assert measured.scores is None


def test_what_is_said_of_each_test_row_is_kept(backend: Backend, task: str, tmp_path: Path) -> None:
    path = tmp_path / "scores" / "base.safetensors"
    measured = backend.measure(MeasureJob(None, None, scores=str(path)))
    assert scores_are_intact(path, str(measured.scores))
    said = read_scores(path)
    assert (said[""].labels is None) == (task == "sft")
    again = predictions.figures(said)
    for name in predictions.FITTED_NAMES.values():  # on validation, not figures of the test split
        assert again.pop(name, None) == measured.validation.get(name)
    assert again == {name: measured.test[name].value for name in again}
    assert backend.measure(MeasureJob(None, None)).test == measured.test


def test_checkpoints_are_whole_and_plain_peft(
    backend: Backend, task: str, config: dict[str, Any], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

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
    folder_of_base = config["model"]["base"]
    if task == "sequence-classification":
        base = AutoModelForSequenceClassification.from_pretrained(folder_of_base, num_labels=2)
    else:
        base = AutoModelForCausalLM.from_pretrained(folder_of_base)
    loaded = PeftModel.from_pretrained(base, str(folder))
    assert loaded.peft_config["default"].r == GENES.rank


@pytest.mark.parametrize("count", [30, pytest.param(100, marks=pytest.mark.slow)])
def test_adapters_leave_no_trace(backend: Backend, tmp_path: Path, count: int) -> None:
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
    for number in range(10, count):
        train(number)
    assert parameters() == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1.05 * peak


def test_target_modules_that_the_base_lacks_are_named_with_those_it_has(
    backend_name: str, task: str, config: dict[str, Any]
) -> None:
    from coralx.errors import ConfigError

    wrong = f"{PART[task]}y"
    config["search_space"]["target_modules"] = {"choices": [[wrong]]}
    other = "value" if task == "sequence-classification" else "down_proj"
    near = rf"'{wrong}' \(did you mean '{PART[task]}'\?\).*{other}"
    with pytest.raises(ConfigError, match=near) as error:
        prepared(backend_name, config)
    assert error.value.exit_code == 2


def refusal(backend_name: str, config: dict[str, Any]) -> str:
    from coralx.errors import ConfigError

    with pytest.raises(ConfigError) as error:
        prepared(backend_name, config)
    return error.value.message


def test_batches_larger_than_the_data_are_refused(
    backend_name: str, config: dict[str, Any]
) -> None:
    config["training"]["batch_size"] = 200
    message = refusal(backend_name, config)
    assert re.search(r"training.batch_size: 200, but data.train has only 1\d\d rows", message)
    config["search_space"]["batch_size"] = {"choices": [8, 500]}
    assert "search_space.batch_size: 500" in refusal(backend_name, config)


def test_a_damaged_model_is_refused(
    backend_name: str, config: dict[str, Any], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(config["model"]["base"], damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    config["model"]["base"] = str(damaged)
    message = refusal(backend_name, config)
    assert f"model.base: {damaged} cannot be loaded" in message


def test_a_folder_without_a_model_is_refused(
    backend_name: str, config: dict[str, Any], tmp_path: Path
) -> None:
    config["model"]["base"] = str(tmp_path)
    assert "cannot be loaded" in refusal(backend_name, config)


def test_an_added_genomes_own_dropout_acts(backend: Backend, tmp_path: Path) -> None:
    """The template has none; a release of Unsloth once applied the template's to all."""
    losses = []
    for dropout in (0.0, 0.5):
        genome = Genome("g00-00-aaaa", 0, replace(GENES, dropout=dropout))
        result = backend.train(job(genome, tmp_path / str(dropout), 0, 20), ignore)
        losses.append(result.metrics["train_loss"])
    assert abs(losses[0] - losses[1]) > 1e-3


@pytest.mark.parametrize("changes", [{"use_dora": True}, {"use_rslora": True}])
def test_variants_of_lora_learn(backend: Backend, tmp_path: Path, changes: dict[str, Any]) -> None:
    genome = Genome("g00-00-aaaa", 0, replace(GENES, **changes))
    untuned = backend.measure(MeasureJob(None, None))
    result = backend.train(job(genome, tmp_path, 0, 60), ignore)
    assert result.metrics["eval_loss"] < untuned.validation["eval_loss"] - 0.01


def test_gradient_checkpointing_changes_no_figure(
    backend_name: str, task: str, config: dict[str, Any], tmp_path: Path
) -> None:
    if task == "sequence-classification":
        pytest.skip("an encoder's head trains from the model's own states")
    losses = []
    for on in (False, True):
        config["runtime"]["gradient_checkpointing"] = on
        backend = prepared(backend_name, config)
        genome = Genome("g00-00-aaaa", 0, GENES)
        result = backend.train(job(genome, tmp_path / str(on), 0, 8), ignore)
        losses.append((result.metrics["train_loss"], result.metrics["eval_loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.fixture(scope="module", params=[False, True], ids=["LoRA", "DoRA"])
def parent(
    backend: Backend, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Genes, StageResult]:
    genes = replace(GENES, use_dora=request.param)
    folder = tmp_path_factory.mktemp("parent")
    return genes, backend.train(job(Genome("g00-00-aaaa", 0, genes), folder, 0, 10), ignore)


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha_ratio": 2.0},
        {"rank": 16},
        {"rank": 16, "alpha_ratio": 2.0},
        {"rank": 8, "use_rslora": True},
        {"use_rslora": True},
    ],
    ids=str,
)
def test_a_child_of_greater_rank_or_other_scaling_starts_from_the_same_function(
    backend: Backend, parent: tuple[Genes, StageResult], tmp_path: Path, changes: dict[str, Any]
) -> None:
    genes, before = parent
    child = Genome("g01-00-cccc", 1, replace(genes, learning_rate=1e-30, **changes))
    after = backend.train(
        job(
            child,
            tmp_path / "child",
            0,
            1,
            inherit_from=before.checkpoint,
            inherit_optimizer=True,
        ),
        ignore,
    )
    assert after.metrics["eval_loss"] == pytest.approx(before.metrics["eval_loss"], rel=1e-5)
    assert after.inheritance == Inheritance(parent_rank=4, error=0.0)


def test_a_child_of_lower_rank_or_fewer_modules_records_what_it_lost(
    backend: Backend, task: str, tmp_path: Path
) -> None:
    parent = Genome("g00-00-aaaa", 0, GENES)
    backend.train(job(parent, tmp_path / "parent", 0, 10), ignore)
    genes = replace(GENES, rank=2, target_modules=(PART[task],))
    result = backend.train(
        job(
            Genome("g01-00-cccc", 1, genes),
            tmp_path / "child",
            0,
            2,
            inherit_from=str(tmp_path / "parent/to-10"),
            inherit_optimizer=True,
        ),
        ignore,
    )
    carried = result.inheritance
    assert carried is not None
    assert 0.0 < carried.error < 1.0
    assert PART[task] not in carried.dropped
    assert len(carried.dropped) >= 3
    assert carried.added == ()


# -- ranks that grow -------------------------------------------------------------------------------


def logits(task: str, base: str, adapter: Path) -> torch.Tensor:
    """Of two rows of token ids, by transformers and PEFT alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.manual_seed(0)
    if task == "sequence-classification":
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    else:
        model = AutoModelForCausalLM.from_pretrained(base)
    rows = torch.arange(4, 36).reshape(2, 16)
    with torch.no_grad():
        found: torch.Tensor = PeftModel.from_pretrained(model, str(adapter)).eval()(rows).logits
    return found


@pytest.mark.parametrize("early", [Shape(4, 4.0), Shape(4, 8.0)], ids=["by-stage", "published"])
@pytest.mark.parametrize("changes", [{}, {"use_rslora": True}, {"use_dora": True}], ids=str)
def test_a_stage_at_a_greater_rank_goes_on_from_the_same_function(
    backend: Backend,
    task: str,
    config: dict[str, Any],
    tmp_path: Path,
    early: Shape,
    changes: dict[str, Any],
) -> None:
    from safetensors.torch import load_file

    genes = replace(GENES, rank=8, **changes)
    id_ = "g00-00-aaaa"
    small = backend.train(job(Genome(id_, 0, genes), tmp_path, 0, 10, shape=early), ignore)
    still = Genome(id_, 0, replace(genes, learning_rate=1e-30))
    grown = backend.train(
        job(still, tmp_path, 10, 11, resume_from=str(tmp_path / "to-10"), shape=genes.shape),
        ignore,
    )
    assert (small.rank, grown.rank) == (4, 8)
    assert grown.inheritance is None
    for name in (
        "trainable_parameters",
        "adapter_bytes",
    ):  # of the finished adapter, from the first
        assert small.metrics[name] == grown.metrics[name]
    assert grown.metrics["eval_loss"] == pytest.approx(small.metrics["eval_loss"], rel=1e-5)
    folders = tmp_path / "to-10", tmp_path / "to-11"
    before, after = (logits(task, config["model"]["base"], folder) for folder in folders)
    assert float((after - before).abs().max()) <= 1e-5 * float(before.abs().max())

    factor = _scaling(early, genes) / _scaling(genes.shape, genes)
    moments = [load_file(folder / "optimizer.safetensors") for folder in folders]
    rows = columns = 0
    for name, old in moments[0].items():
        new = moments[1][name]
        if name.endswith("|step"):
            assert (float(old), float(new)) == (10, 11)
        elif ".lora_A." in name:
            assert new.shape[0] == 2 * old.shape[0]
            assert not new[4:].any()  # where B is zero, A has no gradient yet
            rows += 1
        elif ".lora_B." in name and name.endswith("|exp_avg_sq"):
            carried = 0.999 * old / factor**2
            assert (new[:, :4] >= carried * (1 - 1e-5)).all()
            assert (new[:, :4] <= carried + 1e-3).all()
            columns += bool(new[:, 4:].any())
    assert rows > 0
    assert columns > 0


def _scaling(shape: Shape, genes: Genes) -> float:
    return shape.alpha / shape.rank ** (0.5 if genes.use_rslora else 1.0)


def test_a_shape_like_the_genes_own_changes_no_byte(backend: Backend, tmp_path: Path) -> None:
    genome = Genome("g00-00-aaaa", 0, GENES)
    for name, shape in (("named", GENES.shape), ("unnamed", None)):
        folder = tmp_path / name
        backend.train(job(genome, folder, 0, 4, shape=shape), ignore)
        backend.train(
            job(genome, folder, 4, 8, resume_from=str(folder / "to-4"), shape=shape), ignore
        )
    assert adapter_bytes(tmp_path / "named/to-8") == adapter_bytes(tmp_path / "unnamed/to-8")


# -- checkpoint crossover --------------------------------------------------------------------------


def scaled(checkpoint: str | None, folder: Path, times: float) -> str:
    """A copy whose update is so many times as large; a negative one does harm."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(str(checkpoint), folder)
    path = folder / "adapter_model.safetensors"
    weights = {k: times * v if ".lora_B." in k else v for k, v in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    return str(folder)


@pytest.fixture(scope="module")
def parents(
    backend: Backend, task: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StageResult, StageResult]:
    """Two of different rank, scaling and modules."""
    folder = tmp_path_factory.mktemp("parents")
    genes = GENES, replace(GENES, rank=8, alpha_ratio=2.0, target_modules=(PART[task],))
    names = "g00-00-aaaa", "g00-01-bbbb"
    return tuple(  # type: ignore[return-value]
        backend.train(job(Genome(name, 0, own), folder / name, 0, 40), ignore)
        for name, own in zip(names, genes, strict=True)
    )


def newborn(
    backend: Backend,
    folder: Path,
    kind: str | None,
    better: str,
    other: str,
    rate: float = 1e-30,
    **changes: Any,
) -> StageResult:
    blend = Blend(kind, "g00-01-bbbb") if kind else None  # type: ignore[arg-type]
    genes = replace(GENES, rank=6, learning_rate=rate)
    child = Genome("g01-00-cccc", 1, genes, inherits="g00-00-aaaa", blend=blend)
    steps = {"inherited_steps": 10, "blended_steps": 20}
    given = {"inherit_from": better, "blend_from": other if kind else None, **steps, **changes}
    return backend.train(job(child, folder, 0, 1, **given), ignore)


@pytest.mark.parametrize("kind", ["mask", "merge"])
def test_a_blended_child_starts_at_the_lower_loss_of_blend_and_better_parent(
    backend: Backend, parents: tuple[StageResult, StageResult], tmp_path: Path, kind: str
) -> None:
    better, other = parents
    child = newborn(backend, tmp_path, kind, str(better.checkpoint), str(other.checkpoint))
    assert child.inheritance is not None
    trial = child.inheritance.blend
    assert trial is not None
    assert (trial.kind, trial.other) == (kind, "g00-01-bbbb")
    assert 0.0 <= trial.share <= 1.0
    assert trial.parent_loss == pytest.approx(better.metrics["eval_loss"], rel=1e-5)
    assert trial.blend_loss != pytest.approx(trial.parent_loss, rel=1e-6)
    assert trial.kept == (trial.blend_loss < trial.parent_loss)
    lower = trial.blend_loss if trial.kept else trial.parent_loss
    assert child.metrics["eval_loss"] == pytest.approx(lower, rel=1e-5)
    assert child.inherited_steps == (20 if trial.kept else 10)
    state = json.loads((tmp_path / "to-1/trainer_state.json").read_text())
    assert state["inherited_steps"] == child.inherited_steps


@pytest.mark.parametrize("kind", ["mask", "merge"])
def test_a_harmful_blend_is_dropped_as_if_it_had_never_been(
    backend: Backend, parents: tuple[StageResult, StageResult], tmp_path: Path, kind: str
) -> None:
    better, other = parents
    harmful = scaled(other.checkpoint, tmp_path / "harmful", -20)
    given: dict[str, Any] = {"rate": 1e-2, "inherit_optimizer": True}
    paths = str(better.checkpoint), harmful
    blended = newborn(backend, tmp_path / "blended", kind, *paths, **given)
    plain = newborn(backend, tmp_path / "plain", None, *paths, **given)
    assert blended.inheritance is not None
    assert blended.inheritance.blend is not None
    assert not blended.inheritance.blend.kept
    assert blended.inheritance.blend.blend_loss > blended.inheritance.blend.parent_loss
    assert replace(blended.inheritance, blend=None) == plain.inheritance
    assert blended.inherited_steps == 10
    assert adapter_bytes(tmp_path / "blended/to-1") == adapter_bytes(tmp_path / "plain/to-1")


def test_a_blend_that_is_kept_counts_both_lineages_and_has_a_new_optimizer(
    backend: Backend, tmp_path: Path
) -> None:
    parent = backend.train(job(Genome("g00-00-aaaa", 0, GENES), tmp_path / "p", 0, 80), ignore)
    harmful = scaled(parent.checkpoint, tmp_path / "harmful", -4)
    strong = scaled(parent.checkpoint, tmp_path / "strong", 8)
    for name, with_optimizer in (("with", True), ("without", False)):
        child = newborn(
            backend,
            tmp_path / name,
            "merge",
            harmful,
            strong,  # so that 0.57 x -4 + 0.43 x 8 is nearly the parent itself
            rate=1e-2,
            inherit_optimizer=with_optimizer,
        )
        assert child.inheritance is not None
        assert child.inheritance.blend is not None
        assert child.inheritance.blend.kept
        assert child.inherited_steps == 20
        assert child.inheritance.error < 1e-6  # the sum is of rank 4, and fits into 6
    assert adapter_bytes(tmp_path / "with/to-1") == adapter_bytes(tmp_path / "without/to-1")


def test_a_blend_that_is_no_better_is_dropped(backend: Backend, tmp_path: Path) -> None:
    parent = backend.train(job(Genome("g00-00-aaaa", 0, GENES), tmp_path / "p", 0, 10), ignore)
    child = newborn(backend, tmp_path, "mask", str(parent.checkpoint), str(parent.checkpoint))
    assert child.inheritance is not None
    trial = child.inheritance.blend
    assert trial is not None
    assert trial.blend_loss == trial.parent_loss
    assert not trial.kept


def test_a_loss_that_explodes_ends_training_within_the_stage(
    backend: Backend, task: str, tmp_path: Path
) -> None:
    if task != "sequence-classification":
        pytest.skip("a tiny language model's loss cannot rise far above that of guessing")
    genome = Genome("g00-00-aaaa", 0, replace(GENES, learning_rate=3.0))
    watched = job(genome, tmp_path, 0, 80, watch=Watch(explosion=True))
    result = backend.train(watched, ignore)
    ended = result.divergence
    assert ended is not None
    assert (ended.kind, ended.step) == ("exploded", result.last_step)
    assert result.last_step <= 16
    assert ended.value > 3 * ended.against > 3 * 0.6
    assert (result.metrics, result.checkpoint, result.loss_trend) == ({}, None, None)
    assert len(result.curve) == result.last_step // 10
    assert not (tmp_path / "to-80").exists()
    left_alone = backend.train(replace(watched, watch=Watch()), ignore)
    assert left_alone.divergence is None
    assert left_alone.last_step == 80


def test_a_watched_genome_that_is_healthy_trains_as_if_nobody_looked(
    backend: Backend, tmp_path: Path
) -> None:
    genome = Genome("g00-00-aaaa", 0, GENES)
    alone, watched = tmp_path / "alone", tmp_path / "watched"
    whole = backend.train(job(genome, alone, 0, 24), ignore)
    watch = Watch(explosion=True, survivors=(100.0,) * 8)
    backend.train(job(genome, watched, 0, 9, watch=watch), ignore)
    again = job(genome, watched, 9, 24, watch=watch, resume_from=str(watched / "to-9"))
    result = backend.train(again, ignore)
    assert adapter_bytes(watched / "to-24") == adapter_bytes(alone / "to-24")
    assert result.metrics["eval_loss"] == whole.metrics["eval_loss"]
    assert result.divergence is None
    assert len(whole.curve) == len(result.curve) == 8


def test_explosions_are_told_from_the_untuned_bases_own_loss(backend: Any, tmp_path: Path) -> None:
    idle = replace(GENES, learning_rate=1e-30)
    watched = job(Genome("g", 0, idle), tmp_path, 0, 40, watch=Watch(explosion=True))
    at_start = backend.train(watched, ignore).curve  # the base may have dropout, which costs 7 %
    mean = sum(at_start) / len(at_start)
    assert backend._training.untuned_loss == pytest.approx(mean, rel=0.15)


def test_a_curve_that_cannot_reach_the_survivors_ends_training_within_the_stage(
    backend: Backend, tmp_path: Path
) -> None:
    idle = Genome("g00-00-aaaa", 0, replace(GENES, learning_rate=1e-30))
    watch = Watch(survivors=(0.01,) * 8)
    result = backend.train(job(idle, tmp_path, 0, 80, watch=watch), ignore)
    ended = result.divergence
    assert ended is not None
    assert (ended.kind, ended.step, ended.against) == ("unreachable", result.last_step, 0.01)
    # the warm-up's window does not count, and four others must have been seen
    assert result.last_step in (50, 60, 70)
    assert len(result.curve) == result.last_step // 10
    assert (result.metrics, result.checkpoint) == ({}, None)
    assert not (tmp_path / "to-80").exists()


# -- derived genomes -------------------------------------------------------------------------------


def finishers(backend: Backend, task: str, folder: Path) -> dict[str, str]:
    """Two trained adapters of different shapes and scalings: name -> checkpoint."""
    partial = replace(GENES, rank=2, use_rslora=True, target_modules=(PART[task],))
    paths = {}
    for name, genes in (("whole", GENES), ("part", partial)):
        result = backend.train(job(Genome(name, 0, genes), folder / name, 0, 30), ignore)
        paths[name] = str(result.checkpoint)
    return paths


def derive(
    backend: Backend, paths: dict[str, str], folder: Path, operator: Any, *names: str, **how: Any
) -> Derived:
    """What comes of the adapters of these names; `paths` then holds the new one, too."""
    derivation = Derivation(operator, names, **how)
    genome = Genome(f"{operator}-of-{'-'.join(names)}", 1, GENES, derived=derivation)
    sources = tuple(paths[name] for name in names)
    path = str(folder / genome.id)
    derived = backend.derive(DeriveJob(genome, "to-80", sources, 60, path))
    paths[genome.id] = path
    return derived


def loss_by_plain_peft(backend: Any, task: str, config: dict[str, Any], adapter: str) -> float:
    """`eval_loss` on validation of the adapter as PEFT loads it onto the base."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.set_num_threads(1)
    auto, options = AutoModelForCausalLM, dict[str, Any]()
    if task == "sequence-classification":
        auto, options = AutoModelForSequenceClassification, {"num_labels": 2}
    base = auto.from_pretrained(config["model"]["base"], dtype=torch.float32, **options)
    model = PeftModel.from_pretrained(base, adapter)
    part = backend._material.parts[0]
    rows = part.splits["validation"].rows
    scores = predict(model, part.task, rows, nullcontext)
    return float(predictions.task_figures(part.task.by_row(scores, rows))["eval_loss"] or 0.0)


def test_derived_adapters_are_plain_peft_and_have_the_figures_that_are_reported(
    backend: Backend, task: str, config: dict[str, Any], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    paths = finishers(backend, task, tmp_path)
    made = [
        derive(backend, paths, tmp_path, "truncate", "whole", rank=2),
        derive(backend, paths, tmp_path, "compress", "whole", share=0.2),
        derive(backend, paths, tmp_path, "drop", "whole", count=2),
        derive(backend, paths, tmp_path, "soup", "part", "whole", rank=3, weights=(0.4, 0.6)),
        derive(backend, paths, tmp_path, "scale", "compress-of-whole", factor=0.5),
    ]
    for derived in made:
        result, path = derived.result, Path(str(derived.result.checkpoint))
        verify_folder(path)
        plain = loss_by_plain_peft(backend, task, config, str(path))
        assert plain == pytest.approx(result.metrics["eval_loss"], abs=1e-4)
        saved = json.loads((path / "adapter_config.json").read_text())
        assert saved["r"] == derived.genome.genes.rank == result.rank
        ratios = {saved["alpha_pattern"][m] / r for m, r in saved["rank_pattern"].items()}
        assert all(r == pytest.approx(saved["lora_alpha"] / saved["r"]) for r in ratios)
        tensors = load_file(path / "adapter_model.safetensors").values()
        assert result.metrics["trainable_parameters"] == sum(t.numel() for t in tensors)
        assert (result.steps, result.inherited_steps, result.train_seconds) == (0, 60, 0.0)
        sources = tuple(paths[name] for name in derived.genome.derived.sources)
        repeat = str(tmp_path / "again" / derived.genome.id)
        again = backend.derive(DeriveJob(undropped(derived), "to-80", sources, 60, repeat))
        assert adapter_bytes(Path(str(again.result.checkpoint))) == adapter_bytes(path)
        assert again.genome == derived.genome
    truncated, compressed, dropped, soup, _ = made
    assert [d.genome.genes.rank for d in (truncated, soup)] == [2, 3]
    assert len(dropped.genome.derived.groups) == 2
    state = json.loads((Path(str(dropped.result.checkpoint)) / "trainer_state.json").read_text())
    assert state["derived"]["groups"] == list(dropped.genome.derived.groups)
    named = DeriveJob(dropped.genome, "to-80", (paths["whole"],), 60, str(tmp_path / "named"))
    assert backend.derive(named).genome == dropped.genome
    assert adapter_bytes(tmp_path / "named") == adapter_bytes(Path(str(dropped.result.checkpoint)))
    measured = backend.measure(MeasureJob(compressed.genome, compressed.result.checkpoint))
    for name in (SKILL[task], "eval_loss", "trainable_parameters", "adapter_bytes"):
        assert measured.validation[name] == compressed.result.metrics[name]


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: Any) -> None:
        raise error

    return fail


def undropped(derived: Derived) -> Genome:
    """The genome as it was before it was known which groups would be dropped."""
    assert derived.genome.derived is not None
    return replace(derived.genome, derived=replace(derived.genome.derived, groups=()))


def test_a_child_starts_from_a_derived_adapter(backend: Backend, task: str, tmp_path: Path) -> None:
    paths = finishers(backend, task, tmp_path)
    derive(backend, paths, tmp_path, "drop", "whole", count=1)
    parent = derive(backend, paths, tmp_path, "compress", "drop-of-whole", share=0.3)
    still = Genome("child", 2, replace(GENES, learning_rate=1e-30), inherits=parent.genome.id)
    given = {"inherit_from": paths[parent.genome.id], "inherit_optimizer": True}
    child = backend.train(job(still, tmp_path / "child", 0, 1, **given), ignore)
    assert child.inheritance.error == pytest.approx(0.0, abs=1e-6)
    copy = replace(still, id="copy", inherits=None, continues=parent.genome.id)
    source = {"resume_from": paths[parent.genome.id]}
    copied = backend.train(job(copy, tmp_path / "copy", 60, 61, **source), ignore)
    loss = parent.result.metrics["eval_loss"]
    assert child.metrics["eval_loss"] == pytest.approx(loss, rel=1e-5)
    assert copied.metrics["eval_loss"] == pytest.approx(loss, rel=1e-5)


def test_what_cannot_be_derived_is_refused_with_the_reason(
    backend: Backend, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dora = replace(GENES, use_dora=True, target_modules=(PART[task],))
    result = backend.train(job(Genome("dora", 0, dora), tmp_path, 0, 2), ignore)
    with pytest.raises(NotDerivable, match="DoRA"):
        derive(backend, {"dora": str(result.checkpoint)}, tmp_path, "scale", "dora", factor=0.5)
    plain = backend.train(job(Genome("plain", 0, GENES), tmp_path / "plain", 0, 2), ignore)
    paths = {"plain": str(plain.checkpoint)}
    with pytest.raises(NotDerivable, match=r"no more than \d+ groups of modules"):
        derive(backend, paths, tmp_path, "drop", "plain", count=99)
    monkeypatch.setattr(adapters, "add_derived", raising(MemoryError("full")))
    with pytest.raises(OutOfMemory):
        derive(backend, paths, tmp_path, "scale", "plain", factor=0.5)
    assert not (tmp_path / "scale-of-plain").exists()
    untuned = backend.measure(MeasureJob(None, None))
    assert untuned.validation["trainable_parameters"] == 0.0


# -- what may go wrong on the way ------------------------------------------------------------------


def beats(count: int) -> Callable[[], None]:
    """A beat that asks for a pause after so many signs of life."""
    left = iter([False] * count)

    def beat() -> None:
        if next(left, True):
            raise Paused

    return beat


def timeless(result: StageResult) -> StageResult:
    """A result without what belongs to one machine and folder."""
    return replace(
        result,
        checkpoint=None,
        train_seconds=0.0,
        eval_seconds=0.0,
        overhead_seconds=0.0,
        checkpoint_seconds=0.0,
    )


@pytest.fixture(scope="module")
def left_alone(
    backend: Backend, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Job, StageResult]:
    """A child's job, and its result where nobody disturbs it."""
    folder = tmp_path_factory.mktemp("left-alone")
    parent = Genome("g00-00-aaaa", 0, GENES)
    child = Genome("g01-00-bbbb", 1, GENES, ("g00-00-aaaa",), inherits="g00-00-aaaa")
    backend.train(job(parent, folder, 0, 10), ignore)
    whole = job(
        child, folder, 0, 20, inherit_from=str(folder / "to-10"), inherit_optimizer=True,
        inherited_steps=10, watch=Watch(explosion=True),
    )  # fmt: skip
    return whole, backend.train(whole, ignore)


@pytest.mark.parametrize("left_at", [[3], [1, 4, 2], [20]], ids=["once", "thrice", "evaluating"])
def test_a_job_that_was_left_goes_on_to_the_same_end(
    backend: Backend,
    left_alone: tuple[Job, StageResult],
    backend_name: str,
    config: dict[str, Any],
    tmp_path: Path,
    left_at: list[int],
) -> None:
    undisturbed, whole = left_alone
    wanted = replace(undisturbed, checkpoint=str(tmp_path / "cut"), partial=str(tmp_path / "kept"))
    heard: list[Progress] = []
    for count in left_at:
        with pytest.raises(Paused):
            backend.train(wanted, heard.append, beats(count))
        assert not Path(str(wanted.checkpoint)).exists()
    fresh = prepared(backend_name, config)
    signs: list[None] = []
    cut = fresh.train(wanted, ignore, lambda: signs.append(None))
    assert adapter_bytes(tmp_path / "cut") == adapter_bytes(Path(str(whole.checkpoint)))
    assert timeless(cut) == timeless(whole)
    done = min(sum(left_at), 20)
    assert 20 - done <= len(signs) <= 20 - done + 3  # steps and scored batches; no step twice
    verify_folder(tmp_path / "kept")
    state = json.loads((tmp_path / "kept" / "trainer_state.json").read_text())
    assert len(state["trace"]["losses"]) == done


def test_what_was_kept_of_another_job_or_is_damaged_counts_for_nothing(
    backend: Backend, tmp_path: Path
) -> None:
    genome = Genome("g00-00-aaaa", 0, GENES)
    whole = backend.train(job(genome, tmp_path / "whole", 0, 12), ignore)
    kept = tmp_path / "kept"
    with pytest.raises(Paused):
        backend.train(job(genome, tmp_path, 0, 20, partial=str(kept)), ignore, beats(5))
    other = backend.train(job(genome, tmp_path / "other", 0, 12, partial=str(kept)), ignore)
    assert timeless(other) == timeless(whole)
    with pytest.raises(Paused):
        backend.train(job(genome, tmp_path, 0, 12, partial=str(kept)), ignore, beats(5))
    weights = bytearray((kept / "adapter_model.safetensors").read_bytes())
    weights[-1] ^= 1
    (kept / "adapter_model.safetensors").write_bytes(weights)
    damaged = backend.train(job(genome, tmp_path / "damaged", 0, 12, partial=str(kept)), ignore)
    assert timeless(damaged) == timeless(whole)


def test_a_long_stage_keeps_what_it_has_trained(
    backend_name: str, config: dict[str, Any], tmp_path: Path
) -> None:
    config["runtime"]["checkpoint_minutes"] = 1e-9
    backend = prepared(backend_name, config)
    kept = tmp_path / "kept"
    backend.train(job(Genome("a", 0, GENES), tmp_path, 0, 6, partial=str(kept)), ignore)
    verify_folder(kept)
    state = json.loads((kept / "trainer_state.json").read_text())
    assert len(state["trace"]["losses"]) == 5  # the sixth is in the checkpoint


def some_modules(backend: Any) -> Any:
    return backend._model.modules()


class Scarce:
    """A task on a device whose memory holds so many rows at once."""

    def __init__(self, task: Any, most: int) -> None:
        self._task, self._most = task, most
        self.seen: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def _taken(self, rows: Any) -> None:
        if len(rows) > self._most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.seen.append(len(rows))

    def loss(self, model: Any, data: Any, rows: Any) -> Any:
        self._taken(rows)
        return self._task.loss(model, data, rows)

    def scores(self, model: Any, data: Any, rows: Any) -> Any:
        self._taken(rows)
        return self._task.scores(model, data, rows)


def test_out_of_memory_halves_the_rows_at_once_and_keeps_the_batch(
    own_backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortage, "free", lambda: None)  # half a second each time
    genome = Genome("g00-00-aaaa", 0, replace(GENES, dropout=0.0))
    for module in some_modules(
        own_backend
    ):  # what is dropped depends on how many rows are drawn for
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    plenty = own_backend.train(job(genome, tmp_path / "plenty", 0, 2), ignore)
    ample: Any = own_backend
    material = ample._material
    material.task = scarce = Scarce(material.task, 3)
    ample._evaluation._parts = (replace(material.parts[0], task=scarce),)
    result = own_backend.train(job(genome, tmp_path / "scarce", 0, 2), ignore)
    assert (plenty.micro_batch, result.micro_batch) == (None, 2)
    assert result.trained_tokens == plenty.trained_tokens
    for figure in ("train_loss", "gradient_norm", "eval_loss"):
        assert result.metrics[figure] == pytest.approx(plenty.metrics[figure], rel=1e-4)
    scarce.seen.clear()
    known = own_backend.train(job(genome, tmp_path / "known", 0, 2, micro_batch=2), ignore)
    assert scarce.seen[: 2 * 4] == [2] * 8  # two steps of eight rows, and none was tried in vain
    assert timeless(known) == timeless(result)


def test_a_genome_of_which_not_even_one_row_fits_fails_alone(
    own_backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "free", lambda: None)  # half a second each time
    genome = Genome("g00-00-aaaa", 0, GENES)
    before = own_backend.train(job(genome, tmp_path / "before", 0, 4), ignore)
    some: Any = own_backend
    task = some._material.task
    some._material.task = Scarce(task, 0)
    with pytest.raises(OutOfMemory, match="single row"):
        own_backend.train(job(Genome("b", 0, replace(GENES, rank=8)), tmp_path, 0, 4), ignore)
    some._material.task = task
    after = own_backend.train(job(genome, tmp_path / "after", 0, 4), ignore)
    assert timeless(after) == timeless(before)


def test_a_parameter_that_is_not_finite_ends_training_at_that_step(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = torch.optim.AdamW.step

    def overflowing(self: torch.optim.AdamW) -> None:
        step(self)
        self.param_groups[0]["params"][0].data.view(-1)[0] = torch.inf

    monkeypatch.setattr(torch.optim.AdamW, "step", overflowing)
    wanted = job(Genome("a", 0, GENES), tmp_path, 0, 6)
    result = backend.train(wanted, ignore)
    assert result.divergence == Divergence(1, "parameter")
    assert result.checkpoint is None
    assert result.metrics == {}
    assert not Path(str(wanted.checkpoint)).exists()


def test_scores_that_are_not_finite_are_no_figures(own_backend: Backend, tmp_path: Path) -> None:
    some: Any = own_backend
    task = some._material.parts[0].task
    scores = task.scores
    task.scores = lambda *arguments: scores(*arguments) * float("nan")
    result = own_backend.train(job(Genome("a", 0, GENES), tmp_path, 0, 6), ignore)
    assert result.divergence == Divergence(6, "score")
    assert result.divergence.ruins_weights
    assert (result.checkpoint, result.metrics) == (None, {})


def test_a_figure_that_the_rows_cannot_tell_is_remarked_on(
    backend: Backend, task: str, tmp_path: Path
) -> None:
    if task == "sft":
        pytest.skip("its figures need no classes")
    wanted = job(Genome("a", 0, GENES), tmp_path, 0, 6, eval_limit=1)
    result = backend.train(wanted, ignore)
    assert result.metrics["auroc"] is None
    told = "auroc, balanced_accuracy, task_skill undefined on the 1 validation row that is scored"
    assert f"{told}: a class has no row" in result.notes


def test_attacks_are_judged_and_training_goes_on_as_without_them(
    backend: Backend, backend_name: str, task: str, config: dict[str, Any], tmp_path: Path
) -> None:
    """Chat models are asked for answers, which changes how they run for a while."""
    if task == "sequence-classification":
        config["data"]["attacks"] = ["swap", "prefix"]
    else:
        prompts = [json.dumps({"text": f"Question : {n * 'the '} film"}) for n in range(7)]
        (tmp_path / "prompts.jsonl").write_text("\n".join(prompts))
        asked = {"file": str(tmp_path / "prompts.jsonl"), "judge": "refusal", "max_new_tokens": 4}
        config["data"]["attacks"] = asked
    attacked = prepared(backend_name, config)
    found = []
    for place, some in enumerate((backend, attacked)):
        folder = tmp_path / str(place)
        genome = Genome("g00-00-aaaa", 0, GENES)
        some.train(job(genome, folder, 0, 6), ignore)
        result = some.train(job(genome, folder, 6, 12, resume_from=str(folder / "to-6")), ignore)
        found.append((dict(result.metrics), adapter_bytes(folder / "to-12")))
    told = ("safety", "safety_argmax") if task == "sequence-classification" else ("safety",)
    for name in told:
        assert 0 <= found[1][0].pop(name) <= 1
    assert found[0] == found[1]
    base = attacked.measure(MeasureJob(None, None, scores=str(tmp_path / "base.safetensors")))
    shown = base.test[
        told[-1]
    ]  # too few rows settle the threshold for `safety` to have an interval
    assert shown.low <= shown.value <= shown.high
    if task != "sequence-classification":
        rows = (tmp_path / "base.answers.jsonl").read_text().splitlines()
        assert sorted(map(len, map(json.loads, rows))) == [4, 4, 4]
