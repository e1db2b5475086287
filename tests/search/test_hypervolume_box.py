"""The box of a run's hypervolume: settled before training, and no trade-off within it is unseen."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.api import runs as api
from coralx.cli import main
from coralx.config import Config
from coralx.config.metric_catalogue import CATALOGUE
from coralx.engine.convergence import Indicators, has_stalled, indicators
from coralx.engine.hypervolume_reference import reference_of
from coralx.engine.state import RunState
from coralx.records.events import GenerationCompleted, GenerationStarted, RunStarted, StageCompleted
from coralx.records.results import Metrics
from coralx.records.run_facts import Axis, Footprint, Settings
from coralx.report.hypervolume_reference import reference_json, reference_line
from coralx.search.hypervolume_box import distances, unit_box
from coralx.search.indicators import relative_hypervolume
from coralx.storage.history import History
from coralx.storage.ledger import FORMAT, Ledger
from tests.support.factories import (
    make_config,
    make_facts,
    make_genome,
    make_result,
    simulated_config,
)

LAST = "S3_finisher"
AXES = (
    Axis("auroc", "maximize", "linear", 0.0, 1.0),
    Axis("trainable_parameters", "minimize", "log", 1e4, 1e6),
    Axis("perplexity", "minimize", "perplexity", 1.0, None),
    Axis("my:score", "maximize", "any", None, None),
)
GRIDS: dict[str, Sequence[float]] = {
    "auroc": [0.0, 0.3, 0.5, 0.8, 0.81, 0.95, 1.0],
    "trainable_parameters": [1e4, 2e4, 9e4, 1e5, 5e5, 1e6],
    "perplexity": [1.0, 1.1, 3.0, 20.0, 500.0, 1e5],
    "my:score": [-100.0, -1.0, 0.0, 0.1, 0.5, 40.0, 1e3],
}
members = st.fixed_dictionaries({name: st.sampled_from(grid) for name, grid in GRIDS.items()})
wild = st.fixed_dictionaries({name: st.none() | st.floats(-1e300, 1e300) for name in GRIDS})


def volume(figures: Sequence[Metrics], axes: Sequence[Axis] = AXES) -> float:
    return relative_hypervolume(distances(figures, axes), unit_box(axes))


def is_covered(figures: Metrics, others: Sequence[Metrics]) -> bool:
    """Whether one of the others is as good in everything."""
    signs = {axis.metric: 1 if axis.direction == "minimize" else -1 for axis in AXES}
    return any(all(s * other[m] <= s * figures[m] for m, s in signs.items()) for other in others)


@given(st.lists(members, min_size=1, max_size=8), members)
@settings(deadline=None)
def test_whoever_is_not_dominated_adds_to_the_volume_and_nobody_else(
    known: list[Metrics], new: Metrics
) -> None:
    before, after = volume(known), volume([*known, new])
    if is_covered(new, known):
        assert after == pytest.approx(before, rel=1e-12)
    else:
        assert after > before


@given(st.lists(members | wild, min_size=1, max_size=8), wild)
@settings(deadline=None)
def test_no_figure_makes_the_volume_fall_exceed_one_or_undefined(
    known: list[Metrics], new: Metrics
) -> None:
    before, after = volume(known), volume([*known, new])
    assert 0.0 <= before <= after * (1 + 1e-12)
    assert after <= 1.0 + 1e-12


def test_figures_stand_where_they_should() -> None:
    best: Metrics = {"auroc": 1.0, "trainable_parameters": 1e4, "perplexity": 1.0}
    assert volume([best], AXES[:3]) == 1.0
    assert volume([{**best, "trainable_parameters": 5e3}], AXES[:3]) == 1.0  # no better than best
    assert volume([{**best, "auroc": 0.0}], AXES[:3]) == pytest.approx(0.1 / 1.1)
    assert volume([{**best, "auroc": None}], AXES[:3]) == pytest.approx(0.1 / 1.1)
    assert volume([{**best, "trainable_parameters": 1e9}], AXES[:3]) == 0.0  # outside
    middle, double, loss = distances(
        [
            {"trainable_parameters": 1e5, "perplexity": 4.0},
            {"trainable_parameters": 2e5, "perplexity": 2.0},
            {"trainable_parameters": 1e4, "perplexity": math.exp(0.3)},
        ],
        AXES[1:3],
    )
    assert middle == pytest.approx([0.5, 0.75], abs=1e-4)
    assert double == pytest.approx([0.5 + math.log10(2) / 2, 0.5], abs=1e-4)
    assert loss[1] == pytest.approx(
        distances([{"eval_loss": 0.3}], [Axis("eval_loss", "minimize", "loss", 0.0, None)])[0, 0]
    )
    assert distances([{"my:score": 0.0}], AXES[3:])[0, 0] == 0.5


# -- what the box is made of ---------------------------------------------------------------------


def axes_of(config: Config, **facts: Any) -> dict[str, Axis]:
    return {axis.metric: axis for axis in reference_of(config, replace(make_facts(), **facts))}


def test_every_metric_has_an_axis_whichever_way_it_goes() -> None:
    for name, metric in CATALOGUE.items():
        for direction in ("maximize", "minimize"):
            extent = metric.extent
            axis = Axis(name, direction, extent.scale, extent.low, extent.high)
            values = [v for v in (0.001, 0.5, 0.9, 1.0, 1.5) if extent.high != 1.0 or v <= 1.0]
            if extent.low == 1.0:
                values = [1.0, 1.5, 20.0, 1e4]
            found = distances([{name: value} for value in values], [axis])[:, 0]
            order = found if direction == "minimize" else found[::-1]
            assert np.all(np.diff(order) > 0), name
            assert np.all((found >= 0) & (found <= 1)), name


def test_sizes_lie_between_the_smallest_and_the_largest_adapter_of_the_space() -> None:
    config = make_config(
        objectives=[{"metric": m} for m in ("auroc", "trainable_parameters", "adapter_bytes")],
        search_space={
            "rank": {"choices": [2, 8, 64]},
            "target_modules": {"choices": [["q_proj"], "all-linear"]},
        },
    )
    base = Footprint(
        base_parameters=10**6,
        base_bytes=4 * 10**6,
        hidden_size=8,
        intermediate_size=16,
        layers=1,
        linear=(("layer.q_proj", 8, 8), ("layer.up_proj", 8, 16)),
        head_parameters=18,
    )
    found = axes_of(config, backend="peft", footprint=base)
    smallest, largest = 2 * 16 + 18, 64 * (16 + 24) + 18
    assert found["trainable_parameters"] == Axis(
        "trainable_parameters", "minimize", "log", smallest, largest
    )
    assert found["adapter_bytes"].low == 2 * smallest
    assert found["adapter_bytes"].high == 4 * largest
    assert found["auroc"] == Axis("auroc", "maximize", "linear", 0.0, 1.0)
    unknown = axes_of(config, backend="peft")["trainable_parameters"]
    assert (unknown.low, unknown.high) == (0.0, 2.0**44)
    one_size = {"rank": {"choices": [4]}, "target_modules": {"choices": [["q_proj"]]}}
    single = make_config(search_space=one_size)
    size = axes_of(single, backend="peft", footprint=base)["trainable_parameters"]
    assert size.low is not None
    assert size.high == 2 * size.low


def test_the_report_says_what_the_share_is_of() -> None:
    found = reference_json((*AXES, Axis("memory", "minimize", "log", 0.0, 2.0**44)))
    assert found is not None
    assert found["axes"][0]["best"] == 1.0
    assert found["axes"][2]["worst"] is None
    line = reference_line(json.loads(json.dumps(found)))
    for words in (
        "auroc from 1 to 0,",
        "trainable_parameters from 10,000 to 1,000,000 on a log scale",
        "perplexity from 1 to infinity as 1 - 1/perplexity",
        "my:score from infinity to minus infinity as x/(1 + |x|)",
        "memory from 0 to 16,384.00 GiB on a log scale",
    ):
        assert words in line
    assert reference_json(()) is None
    assert "first genomes that finished" in reference_line(None)


# -- a run ---------------------------------------------------------------------------------------


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
        return AXES

    monkeypatch.setattr("coralx.api.session.reference_of", another)  # as of another version
    coralx("evolve", "--resume", "sim", "--set", "evolution.generations=4")
    longer = json.loads(Path("runs/sim/report.json").read_text("utf-8"))
    assert longer["hypervolume_reference"] == report["hypervolume_reference"]
    assert longer["convergence"][:2] == report["convergence"]
    assert len(longer["convergence"]) == 4
