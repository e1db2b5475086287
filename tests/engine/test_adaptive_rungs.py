"""`hyperband_config.rungs: adaptive` on recorded curves, through the real engine."""

from __future__ import annotations

import sys
from fractions import Fraction
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "replay"))

from curve_table import Gene, Table
from evolution import TableExecutor, config_for
from tape import Tape

from coralx.engine.engine import Engine
from coralx.engine.rung_estimates import _view
from coralx.engine.state import RunState
from coralx.errors import ConfigError
from coralx.records.events import GenerationStarted, StageDecided
from coralx.records.experience import Experience, KnownRung, Likeness
from coralx.records.run_facts import REVISION, Settings
from coralx.records.verdicts import Promote
from coralx.report.rung_figures import rungs_of
from coralx.schedule.rung_reliability import prior
from coralx.storage.history import History
from coralx.storage.ledger import Ledger
from tests.support.factories import make_config

HALF = Fraction(1, 2)
RUNGS = [(Fraction(1, 20), HALF), (HALF, HALF), (Fraction(1), HALF)]
GENERATIONS = 6


def table_where(early: float) -> Table:
    """200 configurations whose figures before the end agree with those there by `early`: 1 exactly,
    -1 the other way round."""
    rng = np.random.default_rng(5)
    genes = (
        Gene("lora_rank", tuple(float(rank) for rank in range(1, 11)), is_ordered=True),
        Gene("dropout", tuple(place / 50 for place in range(20)), is_ordered=True),
    )
    points = tuple((a, b) for a in range(10) for b in range(20))
    final = rng.normal(size=len(points))
    curves = tuple((*(5.0 + early * float(loss) for _ in range(19)), float(loss)) for loss in final)
    return Table(genes, points, curves, (tuple(range(1, 21)),) * len(points), (1.0,) * len(points))


@cache
def played(early: float, rungs: str = "adaptive") -> tuple[Any, ...]:
    """The events of a search on that table."""
    table = table_where(early)
    config = config_for(
        table,
        RUNGS,
        hyperband_config={"rungs": rungs},
        evolution={"generations": GENERATIONS},
    )
    executor = TableExecutor(Tape(table, 10**6))
    events: list[Any] = []
    ledger = Ledger()
    ledger.subscribe(events.append)
    engine = Engine(config, executor.start(config, None, print), executor, ledger, None)
    engine.search()
    return tuple(events), engine


def born(early: float) -> list[GenerationStarted]:
    return [event for event in played(early)[0] if isinstance(event, GenerationStarted)]


def decided(early: float, stage: str) -> list[StageDecided]:
    events = played(early)[0]
    return [e for e in events if isinstance(e, StageDecided) and e.stage == stage]


@pytest.mark.parametrize("early", [1, -1])
def test_controls_go_through_every_stage_whatever_their_rank(early: float) -> None:
    controls = [[g.id for g in event.genomes if g.is_control] for event in born(early)]
    assert [len(group) for group in controls] == [4] + [1] * (GENERATIONS - 1)
    for stage in ("S0", "S1"):
        for decision, group in zip(decided(early, stage), controls, strict=True):
            gone_on = {v.genome for v in decision.verdicts if isinstance(v, Promote)}
            assert gone_on.issuperset(group)


def test_stages_that_mislead_soon_cut_nobody() -> None:
    for event in born(-1)[1:]:
        assert [budget.survival_rate for budget in event.budgets[:2]] == ["1", "1"]
        assert len(event.genomes) < 8
    known = decided(-1, "S0")[-1].reliability
    assert known is not None
    assert known.high is not None
    assert known.high < 0
    assert known.best_held == 0
    assert known.ranked_by == "nothing"


def test_stages_that_rank_truly_cut_harder_and_more_are_born() -> None:
    rates = [Fraction(event.budgets[0].survival_rate) for event in born(1)]
    assert rates[0] == HALF
    assert all(rate < HALF for rate in rates[1:])
    assert len(born(1)[-1].genomes) > 8
    known = decided(1, "S0")[-1].reliability
    assert known is not None
    assert known.low is not None
    assert known.low >= 0
    assert known.agreement is not None
    assert known.agreement > 0.6
    assert known.best_held == known.best
    assert known.ranked_by == "objectives"
    assert known.controls >= 4 + GENERATIONS - 2


@pytest.mark.parametrize("early", [1, -1])
def test_the_planned_total_is_kept(early: float) -> None:
    """3.2 trainings to the end a generation; the last one may be short of one genome."""
    engine = played(early)[1]
    trained = sum(result.steps for result in engine.history.results.values())
    whole = max(result.last_step for result in engine.history.results.values())
    planned = GENERATIONS * 3.2
    # How many controls a stage would have cut is expected, not known.
    assert 0.9 * planned < trained / whole <= 1.02 * planned


@pytest.mark.parametrize("size", [2, 4, 6])
def test_small_populations_keep_it_too(size: int) -> None:
    """Each generation has a control and lets one of the others pass at least, so that where that is
    much of what a generation may cost fewer are born; in the end a training may be too much."""
    search = {"generations": GENERATIONS, "population_size": size}
    table = table_where(-1)
    config = config_for(table, RUNGS, hyperband_config={"rungs": "adaptive"}, evolution=search)
    executor = TableExecutor(Tape(table, 10**6))
    engine = Engine(config, executor.start(config, None, print), executor, Ledger(), None)
    engine.search()
    results = engine.history.results.values()
    trained = sum(result.steps for result in results) / max(r.last_step for r in results)
    first, second = max(size // 2, 1), max(size // 4, 1)
    planned = GENERATIONS * (size * 0.05 + first * 0.45 + second * 0.5)
    assert len(engine.history.generations) == GENERATIONS
    assert planned - 1 < trained <= planned + 1


def test_the_report_rests_on_all_generations() -> None:
    engine = played(1)[1]
    state = engine.state
    first, second = rungs_of(state)
    finished = len(state.finished())
    assert first["pairs"] == second["pairs"] == finished
    assert finished > decided(1, "S0")[-1].reliability.pairs  # the last decision knew of fewer
    assert first["controls"] == sum(g.is_control for event in born(1) for g in event.genomes)
    assert first["ranked_by"] == "objectives"


def test_before_the_first_generation_has_finished_nothing_is_known() -> None:
    first = decided(1, "S1")[0].reliability
    assert first is not None
    assert (first.pairs, first.agreement, first.survival_rate) == (0, None, "1/2")


def test_fixed_rungs_have_no_controls_and_record_nothing_more() -> None:
    events, _ = played(1, "fixed")
    assert all(
        not g.is_control for e in events if isinstance(e, GenerationStarted) for g in e.genomes
    )
    assert all(e.budgets == () for e in events if isinstance(e, GenerationStarted))
    assert all(e.reliability is None for e in events if isinstance(e, StageDecided))


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"hyperband_config": {"promotion": "asynchronous"}}, "asynchronous"),
        ({"hyperband_config": {"brackets": 2}}, "brackets"),
        ({"hyperband_config": {"adaptive_budgets": True}}, "adaptive_budgets"),
        ({"evolution": {"pbt_quantile": 0.25}}, "pbt_quantile"),
    ],
)
def test_what_does_not_go_together_is_refused(sections: dict[str, Any], named: str) -> None:
    schedule = {"rungs": "adaptive", **sections.pop("hyperband_config", {})}
    with pytest.raises(ConfigError, match=named):
        make_config(hyperband_config=schedule, **sections)


def test_rungs_of_earlier_runs_count_by_likeness_and_length() -> None:
    config = config_for(table_where(1), RUNGS, hyperband_config={"rungs": "adaptive"})
    stage = RunState(config, History()).stages[0]

    def agreement(likeness: Likeness, share: float) -> float:
        misled = KnownRung("earlier", likeness, "A", share, 8, tuple(reversed(range(8))))
        started = SimpleNamespace(
            settings=Settings(1, 1, "none", REVISION),
            facts=SimpleNamespace(steps_per_epoch=lambda _: 1000),
            experience=Experience((), rungs=(misled,)),
        )
        history = History()
        history.started = started  # type: ignore[assignment]
        return _view(RunState(config, history), stage, 0).belief.agreement

    unlike, kind, same = (
        agreement("same base and data", 0.5),
        agreement("same kind", 0.05),
        agreement("same base and data", 0.06),
    )
    assert unlike == pytest.approx(prior().agreement)
    assert same < kind < unlike
    assert same < -0.3
