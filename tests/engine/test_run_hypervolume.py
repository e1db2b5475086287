"""The hypervolume of a run: generation by generation, and when it has stalled."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.api import runs as api
from coralx.cli import main
from coralx.config import Config
from coralx.engine.convergence import Indicators, has_stalled, indicators
from coralx.engine.hypervolume_reference import reference_of
from coralx.engine.state import RunState
from coralx.records.events import GenerationCompleted, GenerationStarted, RunStarted, StageCompleted
from coralx.records.results import Metrics
from coralx.records.run_facts import Axis, Settings
from coralx.storage.history import History
from coralx.storage.ledger import FORMAT, Ledger
from tests.support.factories import (
    make_facts,
    make_genome,
    make_result,
    simulated_config,
)

LAST = "S3_finisher"


def history_of(config: Config, *finishers: Metrics | None, recorded: bool = True) -> History:
    """A run that in each generation brought one finisher (or none), its population never moving."""
    facts = make_facts()
    started = RunStarted(FORMAT, "x", "hyperband", 7, facts, Settings(1, 1, "fp32", 2), {}, {}, 0.0)
    if recorded:
        started = replace(started, reference=reference_of(config, facts))
    history = History([started])
    for generation, metrics in enumerate(finishers):
        genome = make_genome(f"g{generation}", generation=generation)
        history.apply(GenerationStarted(generation, (genome,)))
        if metrics is not None:
            history.apply(StageCompleted(generation, make_result(genome.id, metrics, stage=LAST)))
        history.apply(GenerationCompleted(generation, ("g0",)))
    return history


def found(config: Config, history: History) -> list[Indicators]:
    return indicators(RunState(config, history))


def sized(auroc: float, parameters: float = 129024.0) -> Metrics:
    return {"auroc": auroc, "trainable_parameters": parameters}


IMPATIENCE = {"population_size": 2, "generations": 9, "patience": 1}
PATIENT = simulated_config(evolution=IMPATIENCE)


def patient(metric: str, direction: str, *others: str) -> Config:
    objectives = [{"metric": metric, "direction": direction}, *({"metric": m} for m in others)]
    return simulated_config(evolution=IMPATIENCE, objectives=objectives)


def test_a_better_adapter_at_twice_the_size_is_seen_and_is_no_stall() -> None:
    history = history_of(PATIENT, sized(0.8), sized(0.853, 258048.0))
    first, second = found(PATIENT, history)
    assert second.hypervolume is not None
    assert first.hypervolume is not None
    assert second.hypervolume > 1.02 * first.hypervolume
    assert second.front == 2
    assert not has_stalled(RunState(PATIENT, history))


@pytest.mark.parametrize(
    ("start", "later", "stalls"),
    [
        ([sized(0.8)], None, True),
        ([sized(0.8)], sized(0.7), True),  # dominated
        ([sized(0.8)], sized(0.8001), True),
        ([sized(0.8)], sized(0.81), False),
        ([sized(0.99, 64512.0)], sized(0.991, 64512.0), False),  # a tenth of what was left
        ([sized(0.8)], sized(0.7, 120000.0), False),  # the smallest yet
        (
            [sized(0.9, 64512.0), sized(0.96, 1032192.0)],
            sized(0.95, 6e5),
            False,
        ),  # between the ends
        ([sized(0.8, 64512.0)], sized(0.85, 1032192.0), False),  # the largest of the space
    ],
)
def test_a_stall_is_when_no_trade_off_worth_having_came(
    start: list[Metrics], later: Metrics | None, stalls: bool
) -> None:
    history = history_of(PATIENT, *start, later)
    assert has_stalled(RunState(PATIENT, history)) == stalls


SIZES = 64512.0, 1032192.0, 129024.0


@pytest.mark.parametrize(
    ("metric", "direction", "figures"),
    [
        ("auroc", "maximize", (0.90, 0.96, 0.955)),
        ("auroc", "maximize", (0.990, 0.996, 0.9955)),
        ("my:score", "maximize", (90.0, 96.0, 95.5)),
        ("my:score", "maximize", (30.0, 36.0, 35.5)),
        ("my:score", "maximize", (1000.0, 3000.0, 2900.0)),
        ("my:score", "maximize", (-3e-7, 1e-7, 0.9e-7)),
        ("my:score", "minimize", (5000.0, 1000.0, 1100.0)),
        ("my:score", "minimize", (-5e9, -6e9, -5.9e9)),
        ("latency_ms", "minimize", (10.0, 5.0, 5.2)),
        ("latency_ms", "minimize", (0.10, 0.05, 0.052)),
        ("eval_loss", "minimize", (0.02, 0.01, 0.0105)),
        ("eval_loss", "minimize", (9.0, 7.0, 7.1)),
        ("calibration", "minimize", (0.04, 0.02, 0.021)),
        ("memory", "minimize", (4e9, 3e9, 3.1e9)),
    ],
)
@pytest.mark.parametrize("has_outlier", [False, True])
def test_no_trade_off_worth_having_is_a_stall_whatever_its_unit(
    metric: str, direction: str, figures: tuple[float, ...], has_outlier: bool
) -> None:
    """A member at twice the smallest size that is nearly as good as the one at sixteen times."""
    config = patient(metric, direction, "trainable_parameters")
    small, large, new = (
        {metric: figure, "trainable_parameters": size}
        for figure, size in zip(figures, SIZES, strict=True)
    )
    better = 1 if direction == "maximize" else -1
    poor = {metric: small[metric] - better * 1e3 * abs(small[metric]), "trainable_parameters": 9e5}
    known = [small, large, *[poor] * has_outlier]
    assert not has_stalled(RunState(config, history_of(config, *known, new)))
    assert has_stalled(RunState(config, history_of(config, *known, poor)))


@pytest.mark.parametrize(
    ("metric", "direction", "before", "after", "stalls"),
    [
        ("auroc", "maximize", 0.99, 0.991, False),
        ("auroc", "maximize", 0.9, 0.9001, True),
        ("auroc", "maximize", 1.0, 1.0, True),
        ("calibration", "minimize", 0.0, 0.0, True),
        ("my:score", "maximize", 0.0, 0.0, True),
        ("my:score", "maximize", 0.0, 1e-9, False),
        ("my:score", "maximize", 96.0, 96.5, False),
        ("my:score", "maximize", 96.0, 96.05, True),
        ("my:score", "minimize", 1.0, -1.0, False),
        ("memory", "minimize", 4e9, 3.9e9, False),
        ("memory", "minimize", 4e9, 3.999e9, True),
    ],
)
def test_of_a_single_objective_what_counts_is_a_share_of_the_figure_or_of_what_is_left(
    metric: str, direction: str, before: float, after: float, stalls: bool
) -> None:
    config = patient(metric, direction)
    history = history_of(config, {metric: before}, {metric: after})
    assert has_stalled(RunState(config, history)) == stalls


def test_genomes_without_a_figure_or_against_the_constraints_are_no_progress() -> None:
    config = simulated_config(
        constraints=["auroc >= 0.7"],
        objectives=[{"metric": "auroc"}, {"metric": "trainable_parameters"}],
        evolution=IMPATIENCE,
    )
    for later in ({"auroc": None}, {"auroc": 0.9}, sized(0.69, 64512.0)):
        history = history_of(config, sized(0.8), later)
        assert has_stalled(RunState(config, history))
    first = history_of(config, {"auroc": 0.8}, sized(0.7))  # the first whose figures are complete
    assert not has_stalled(RunState(config, first))


def test_the_box_of_a_run_that_recorded_none_is_that_of_its_first_finishers() -> None:
    history = history_of(PATIENT, sized(0.8), sized(0.853, 258048.0), recorded=False)
    assert [one.hypervolume for one in found(PATIENT, history)] == [1.0, 1.0]
    assert has_stalled(RunState(PATIENT, history))


def test_generations_before_anyone_finishes_or_meets_the_constraints_have_no_volume() -> None:
    config = simulated_config(constraints=["auroc >= 0.7"])
    volumes = [
        one.hypervolume
        for one in found(config, history_of(config, None, sized(0.6), sized(0.8), sized(0.69)))
    ]
    assert volumes[:2] == [None, None]
    assert volumes[2] is not None
    assert volumes[3] == volumes[2]


@given(
    st.lists(st.none() | st.sampled_from([sized(0.8), {"auroc": 0.9}, sized(0.9), {}]), max_size=6)
)
@settings(deadline=None, max_examples=50)
def test_missing_figures_change_no_generation_of_before(finishers: list[Metrics | None]) -> None:
    config = simulated_config()
    whole = found(config, history_of(config, *finishers))
    for count in range(len(finishers)):
        assert found(config, history_of(config, *finishers[:count])) == whole[:count]
    volumes = [one.hypervolume for one in whole if one.hypervolume is not None]
    assert all(b <= a for b, a in itertools.pairwise(volumes))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("promotion", ["synchronous", "asynchronous"])
def test_a_generation_s_volume_stays_what_it_was_when_it_ended(promotion: str) -> None:
    config = simulated_config(
        objectives=[{"metric": m} for m in ("auroc", "trainable_parameters", "latency_ms")],
        hyperband_config={"promotion": promotion},
        evolution={"population_size": 8, "generations": 4},
    )
    outcome = api.evolve(config)
    rows = found(config, History(Ledger.read_events(outcome.layout.ledger)))
    volumes = [row.hypervolume for row in rows if row.hypervolume is not None]
    assert volumes == sorted(volumes)
    assert volumes
    assert 0.0 < volumes[-1] < 1.0
    history = History()
    for event in Ledger.read_events(outcome.layout.ledger):
        history.apply(event)
        if isinstance(event, GenerationCompleted):
            assert found(config, history) == rows[: event.generation + 1]


@pytest.mark.usefixtures("here")
def test_a_run_from_the_command_line_keeps_its_box_when_it_is_extended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def coralx(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["coralx", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code
        return " ".join(capsys.readouterr().out.split())

    Path("c.yaml").write_text(
        "experiment: {name: sim, seed: 7}\ndata: {steps_per_epoch: 1000}\n"
        "evolution: {population_size: 8, generations: 2}\n"
    )
    printed = coralx("evolve", "c.yaml", "--mode", "simulation")
    assert "Hypervolume is the share that the front dominates of a box fixed before" in printed
    assert "auroc from 1 to 0, trainable_parameters from 64,512 to 1,032,192 on a log" in printed
    report = json.loads(Path("runs/sim/report.json").read_text("utf-8"))
    assert [axis["worst"] for axis in report["hypervolume_reference"]["axes"]] == [0.0, 1032192.0]

    def another(*_: object) -> tuple[Axis, ...]:
        return (Axis("auroc", "maximize", "linear", 0.25, 1.0),)

    monkeypatch.setattr("coralx.api.session.reference_of", another)  # as of another version
    coralx("evolve", "--resume", "sim", "--set", "evolution.generations=4")
    longer = json.loads(Path("runs/sim/report.json").read_text("utf-8"))
    assert longer["hypervolume_reference"] == report["hypervolume_reference"]
    assert longer["convergence"][:2] == report["convergence"]
    assert len(longer["convergence"]) == 4
