"""How well stages ranked what came later: the figures, the words for them, and the warning."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from coralx.config import Config
from coralx.engine.state import RunState
from coralx.records.events import Event, GenerationStarted, StageCompleted, StageDecided
from coralx.records.jobs import StageBudget
from coralx.records.rung_reliability import RungReliability
from coralx.records.verdicts import Cut, Finish, Promote
from coralx.report.live import PlainLines
from coralx.report.rung_figures import observed, rungs_of
from coralx.report.rungs import decision_line, misleading_warnings, rung_lines, sentence
from coralx.storage.history import History
from tests.support.factories import make_genome, make_result, simulated_config

STAGES = [
    {"name": "S0", "epoch_budget": 0.5, "data_percentage": 100, "survival_rate": 0.5},
    {"name": "S1", "epoch_budget": 1.0, "data_percentage": 100, "survival_rate": 1.0},
]
KNOWN = RungReliability(
    pairs=14,
    controls=3,
    agreement=0.12,
    low=-0.3,
    high=0.5,
    best_held=3,
    best=5,
    ranked_by="objectives",
    survival_rate="3/4",
)


def config_of(**stage: Any) -> Config:
    stages = [{**STAGES[0], **stage}, STAGES[1]]
    return simulated_config(
        objectives=[{"metric": "auroc"}, {"metric": "trainable_parameters"}],
        hyperband_config={"training_stages": stages},
    )


def generation(
    number: int, early: Sequence[float], late: Sequence[float], known: RungReliability | None = None
) -> list[Event]:
    """Genomes with these early figures, of which the first go on and end with the `late` ones."""
    names = [f"g{number}-{place}" for place in range(len(early))]
    going_on = names[: len(late)]

    def done(name: str, stage: str, auroc: float) -> StageCompleted:
        metrics = {"auroc": auroc, "trainable_parameters": 100.0 + int(name[-1])}
        return StageCompleted(number, make_result(name, metrics, stage=stage))

    verdicts = [
        Promote(name) if name in going_on else Cut(name, place + 1, len(late))
        for place, name in enumerate(names)
    ]
    return [
        GenerationStarted(number, tuple(make_genome(name) for name in names)),
        *(done(name, "S0", auroc) for name, auroc in zip(names, early, strict=True)),
        StageDecided(number, "S0", tuple(verdicts), reliability=known),
        *(done(name, "S1", auroc) for name, auroc in zip(going_on, late, strict=True)),
        StageDecided(number, "S1", tuple(map(Finish, going_on))),
    ]


EARLY = (0.70, 0.68, 0.66, 0.64, 0.62, 0.60, 0.58, 0.56)
RISING, FALLING = (0.80, 0.82, 0.84, 0.86), (0.86, 0.84, 0.82, 0.80)


def state_of(config: Config, *generations: list[Event]) -> RunState:
    return RunState(config, History(event for events in generations for event in events))


def lower(figures: Sequence[float]) -> list[float]:
    return [figure - 0.005 for figure in figures]


# -- figures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("late", "agreement", "held"), [(FALLING, 1.0, 4), (RISING, -1.0, 0)])
def test_finishers_of_all_generations_tell_how_a_fixed_rung_ranked(
    late: Sequence[float], agreement: float, held: int
) -> None:
    second = generation(
        1, lower(EARLY), lower(late) if late is FALLING else [v + 0.005 for v in late]
    )
    (rung,) = rungs_of(state_of(config_of(), generation(0, EARLY, late), second))
    assert rung["agreement"] == pytest.approx(agreement)
    assert rung["low"] <= 0.9 * agreement + 0.1
    assert rung["high"] >= 0.9 * agreement - 0.1
    assert -1 < rung["low"] < rung["high"] < 1
    del rung["agreement"], rung["low"], rung["high"]
    assert rung == {
        "stage": "S0",
        "pairs": 8,
        "controls": 0,
        "best_held": held,
        "best": 4,
        "ranked_by": "objectives",
        "survival_rate": [0.5, 0.5],
    }


def test_a_stage_that_ranks_by_a_metric_is_judged_by_that_metric() -> None:
    config = config_of(promote_by="trainable_parameters")
    known = observed(state_of(config, generation(0, EARLY, [*RISING, 0.9])), config_stage(config))
    assert known.ranked_by == "trainable_parameters"
    assert known.agreement == pytest.approx(-1.0)  # the smallest ended worst


def config_stage(config: Config) -> Any:
    return RunState(config, History()).stages[0]


@pytest.mark.parametrize("late", [(0.8,) * 6, RISING, ()], ids=["ties", "few", "none"])
def test_nothing_is_said_of_ties_and_of_few_finishers(late: Sequence[float]) -> None:
    state = state_of(config_of(), generation(0, EARLY, late))
    (rung,) = rungs_of(state)
    assert rung["pairs"] == len(late)
    assert [rung[key] for key in ("agreement", "low", "high", "best", "best_held")] == [None] * 5
    assert rung_lines({"rungs": [rung]}) == misleading_warnings([rung]) == []
    assert decision_line(state, state.history.decisions[0, "S0"]) is None


def test_nothing_is_known_where_budgets_differ_between_generations() -> None:
    events = generation(0, EARLY, [*RISING, 0.9])
    budgets = (StageBudget("S0", 0.5, "1/4", "1/2"), StageBudget("S1", 0.5, "1", "1"))
    started = events[0]
    assert isinstance(started, GenerationStarted)
    events[0] = replace(started, budgets=budgets)
    (rung,) = rungs_of(state_of(config_of(), events))
    assert rung["pairs"] == 0


def test_a_run_of_one_stage_has_no_rungs() -> None:
    config = simulated_config(hyperband_config={"training_stages": [STAGES[1]]})
    assert rungs_of(RunState(config, History())) == []


def test_what_decisions_recorded_is_what_the_report_has() -> None:
    later = replace(KNOWN, pairs=20, agreement=0.2)
    first = generation(0, EARLY, FALLING)
    second = generation(1, EARLY, FALLING, known=KNOWN)
    third = generation(2, EARLY, FALLING, known=later)
    (rung,) = rungs_of(state_of(config_of(), first, second, third))
    assert rung["pairs"] == 20
    assert rung["agreement"] == 0.2
    assert rung["controls"] == 3
    assert rung["survival_rate"] == [0.5, 0.5, 0.5]


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agreement", "low", "high", "words"),
    [
        (0.12, -0.3, 0.5, "S0 told little here: its better half held 3 of the 5 best"),
        (0.9, 0.8, 0.95, "S0 ranked well here: its better half held 3 of the 5 best"),
        (0.5, 0.1, 0.8, "S0 told something here: its better half held 3 of the 5 best"),
        (-0.1, -0.4, 0.3, "S0 told nothing here: its better half held 3 of the 5 best"),
        (-0.6, -0.8, -0.3, "S0 misled here: its better half held 3 of the 5 best"),
        (
            0.6,
            -0.4,
            0.95,
            "As far as 14 finishers can tell, S0 ranked well here: its better half held 3 of the 5 "
            "best",
        ),
    ],
)
def test_a_sentence_says_how_well_a_stage_ranked(
    agreement: float, low: float, high: float, words: str
) -> None:
    known = {**vars(KNOWN), "agreement": agreement, "low": low, "high": high}
    assert sentence(known, "S0") == words


@pytest.mark.parametrize(
    ("change", "promoted", "done"),
    [
        ({}, 6, ", so 6 of 8 went on instead of 4"),
        ({"survival_rate": "1/4"}, 3, ", so 3 of 8 went on instead of 4"),
        ({"survival_rate": "2/3"}, 4, ""),
        ({"survival_rate": "1/2"}, 5, ""),  # the fifth is of the control group
        ({"survival_rate": "1/2", "ranked_by": "eval_loss"}, 4, "; ranked by eval_loss"),
        ({"survival_rate": "1", "ranked_by": "nothing"}, 8, ", so 8 of 8 went on instead of 4"),
    ],
)
def test_what_was_done_about_it_is_said_as_it_happens(
    change: dict[str, Any], promoted: int, done: str
) -> None:
    events = generation(0, EARLY, EARLY[:promoted], known=replace(KNOWN, **change))
    state = state_of(config_of(), events)
    said = decision_line(state, state.history.decisions[0, "S0"])
    assert said == f"S0 told little here: its better half held 3 of the 5 best{done}"
    assert decision_line(state, state.history.decisions[0, "S1"]) is None


def test_a_stage_that_is_not_to_cut_says_nothing() -> None:
    state = state_of(config_of(survival_rate=1.0), generation(0, EARLY, EARLY))
    assert decision_line(state, state.history.decisions[0, "S0"]) is None
    assert rung_lines({"rungs": rungs_of(state)}) == []


def test_the_live_view_tells_it_below_the_tally() -> None:
    config, file = config_of(), io.StringIO()
    view = PlainLines(Console(file=file, width=200))
    view.begin(config)
    for event in (*generation(0, EARLY, [*RISING, 0.9]), *generation(1, EARLY, RISING, KNOWN)):
        view.on_event(event)
    lines = [line.partition("] ")[2] for line in file.getvalue().splitlines()]
    place = next(i for i, line in enumerate(lines) if line.startswith("S0 told"))
    assert lines[place - 1].startswith("S0: 4 promoted, 4 cut")
    assert lines[place] == "S0 told little here: its better half held 3 of the 5 best"
    assert sum("told" in line for line in lines) == 1  # in the first generation nothing was known


def test_the_report_says_what_it_rests_on_and_how_many_went_on() -> None:
    rung = {"stage": "S0", **vars(KNOWN), "survival_rate": [0.5, 0.5, 0.75]}
    assert rung_lines({"rungs": [rung]}) == [
        "S0 told little here: its better half held 3 of the 5 best (14 finishers, 3 of them "
        "controls; rank agreement 0.12, 95 % -0.30 to 0.50). Of each generation the best 50 50 75 "
        "% went on, and the controls."
    ]
    rung |= {"controls": 0, "survival_rate": [0.5, 0.5]}
    assert rung_lines({"rungs": [rung]}) == [
        "S0 told little here: the better half of those it let go on held 3 of the 5 best (14 "
        "finishers; rank agreement 0.12, 95 % -0.30 to 0.50)."
    ]


def test_a_fixed_rung_that_misleads_is_warned_of_with_the_way_out() -> None:
    rung = {"stage": "S0", **vars(KNOWN), "controls": 0, "survival_rate": [0.5]}
    assert misleading_warnings([rung]) == []
    against = {**rung, "agreement": -0.6, "low": -0.8, "high": -0.2}
    (warning,) = misleading_warnings([against])
    assert warning == (
        "the cut of S0 may have dropped the best: among those that finished it ranked against what "
        "came later (rank agreement -0.60). With `hyperband_config.rungs: adaptive` stages cut by "
        "how well they rank."
    )
    (warning,) = misleading_warnings([{**rung, "agreement": -0.1, "high": 0.25}])
    assert "it told nothing of what came later (rank agreement -0.10)" in warning
    assert misleading_warnings([{**against, "controls": 2}]) == []  # it adapts already
    assert misleading_warnings([{**against, "survival_rate": [1.0]}]) == []  # it cuts nobody
