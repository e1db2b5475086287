"""Simulated searches that are killed end like those left alone."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from coralx.api import runs as api
from coralx.errors import Interrupted
from coralx.records.events import (
    CheckpointRestored,
    Event,
    GenerationCompleted,
    StageCompleted,
    WorkerStopped,
)
from coralx.storage.layout import RunLayout, find_run
from tests.support.factories import simulated_config
from tests.support.simulated_runs import KillAfter, comparable, events_of, story
from tests.support.simulations import KEEP, evolve

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> api.Outcome:
    """A run that nobody disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        return evolve("whole", runtime=KEEP)


def in_fixed_order(events: list[Event]) -> list[Event]:
    """Results, which come in the order of their completion, sorted behind everything else."""
    others = [event for event in events if not isinstance(event, StageCompleted)]
    results = [event for event in events if isinstance(event, StageCompleted)]
    return others + sorted(results, key=lambda e: (e.result.genome, e.result.first_step))


def without_test_figures(report: dict[str, Any]) -> dict[str, Any]:
    kept = comparable(report)
    for key in ("front", "provisional"):
        kept[key] = [{**member, "test": None} for member in kept[key]]
    return {**kept, "baselines": None}


def trainings_of(layout: RunLayout) -> list[tuple[str, str]]:
    done = [e.result for e in events_of(layout) if isinstance(e, StageCompleted)]
    return [(result.genome, result.stage) for result in done]


def assert_same_end(resumed: api.Outcome, whole: api.Outcome) -> None:
    assert in_fixed_order(story(resumed.layout)) == in_fixed_order(story(whole.layout))
    assert without_test_figures(resumed.report) == without_test_figures(whole.report)
    trainings = trainings_of(resumed.layout)
    assert len(set(trainings)) == len(trainings)  # no completed stage was trained again


@pytest.mark.parametrize(
    "killed_after",
    [
        1,
        *(2, 3, 7, 12, 17, 30, 45, 66),
    ],
)
def test_killed_and_resumed_run_ends_like_one_left_alone(
    whole: api.Outcome, killed_after: int
) -> None:
    assert len(events_of(whole.layout)) > 60
    with pytest.raises(Interrupted) as caught:
        api.evolve(simulated_config(), "cut", KillAfter(killed_after))
    assert caught.value.exit_code == 130
    assert "--resume cut" in caught.value.hint
    heard = [e for e in events_of(find_run("cut")) if not isinstance(e, WorkerStopped)]
    assert len(heard) == killed_after
    assert_same_end(api.resume(find_run("cut")), whole)


def test_run_that_is_killed_again_and_again_ends_like_one_left_alone(whole: api.Outcome) -> None:
    with pytest.raises(Interrupted):
        api.evolve(simulated_config(), "cut", KillAfter(4))
    layout = find_run("cut")
    interruptions = 1
    for _ in range(100):
        try:
            resumed = api.resume(layout, view=KillAfter(16))
        except Interrupted:
            interruptions += 1
            continue
        break
    assert interruptions > 3
    assert_same_end(resumed, whole)


STRATEGIES: dict[str, dict[str, Any]] = {
    "brackets": {"hyperband_config": {"brackets": 3}},
    "copies": {"evolution": {"population_size": 8, "generations": 2, "pbt_quantile": 0.5}},
    "adaptive": {"hyperband_config": {"adaptive_budgets": True}},
    "adaptive rungs": {"hyperband_config": {"rungs": "adaptive"}},
    "growth": {"hyperband_config": {"rank_growth": "published"}},
    "crossover": {
        "evolution": {
            "population_size": 6,
            "generations": 3,
            "checkpoint_crossover": {"mask": 0.5, "merge": 0.5},
            "elite_fraction": 0.34,
            "patience": 1,
        }
    },
    "nsga3": {
        "evolution": {"population_size": 6, "generations": 3, "selection": "nsga3"},
        "constraints": ["auroc >= 0.8"],
    },
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_resumes_to_the_same_end_from_any_event(strategy: str) -> None:
    """The ledger cut after every third event: what follows is what would have followed."""
    sections = STRATEGIES[strategy]
    undisturbed = evolve("undisturbed", runtime=KEEP, **sections)
    for killed_after in range(1, len(events_of(undisturbed.layout)), 3):
        name = f"cut-{killed_after}"
        config = simulated_config(runtime=KEEP, **sections)
        with pytest.raises(Interrupted):
            api.evolve(config, name, KillAfter(killed_after))
        assert_same_end(api.resume(find_run(name)), undisturbed)


def test_resumed_run_measures_the_same_test_figures(whole: api.Outcome) -> None:
    events = events_of(whole.layout)
    last_decision = max(i for i, e in enumerate(events) if isinstance(e, GenerationCompleted))
    with pytest.raises(Interrupted):
        api.evolve(simulated_config(), "cut", KillAfter(last_decision + 1))
    assert comparable(api.resume(find_run("cut")).report) == comparable(whole.report)


@pytest.mark.parametrize(("share", "torn"), [(0.1, 0), (0.4, 25), (0.75, 1), (1.0, 1)])
def test_truncated_ledger_resumes_to_the_same_end(
    whole: api.Outcome, share: float, torn: int
) -> None:
    shutil.copytree(whole.layout.root, "runs/cut")
    layout = find_run("cut")
    lines = layout.ledger.read_bytes().splitlines(keepends=True)
    kept = max(2, int(share * (len(lines) - 1)))
    layout.ledger.write_bytes(b"".join(lines[:kept]) + lines[kept][:torn])
    assert_same_end(api.resume(layout), whole)


def test_result_whose_checkpoint_is_damaged_is_trained_again(whole: api.Outcome) -> None:
    with pytest.raises(Interrupted):
        api.evolve(simulated_config(), "cut", KillAfter(5))
    layout = find_run("cut")
    damaged, sound = trainings_of(layout)
    (layout.checkpoint(*damaged) / "trainer_state.json").write_text("{}", encoding="utf-8")
    resumed = api.resume(layout)
    trainings = trainings_of(layout)
    restored = [e.result for e in events_of(layout) if isinstance(e, CheckpointRestored)]
    assert [(result.genome, result.stage) for result in restored] == [damaged]
    assert (trainings.count(damaged), trainings.count(sound)) == (1, 1)
    assert story(layout) == story(whole.layout)
    assert resumed.report["front"] == whole.report["front"]


def test_resuming_a_completed_run_only_writes_its_report_again() -> None:
    outcome = evolve("done", evolution={"population_size": 4, "generations": 1})
    before = outcome.layout.ledger.read_bytes()
    outcome.layout.report.unlink()
    again = api.resume(outcome.layout)
    assert again.report == outcome.report
    assert outcome.layout.report.is_file()
    assert outcome.layout.ledger.read_bytes() == before
