"""Stages of few steps: what may be judged and scored there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralx.backends.protocol import create
from coralx.config import parse_config
from coralx.config.conditions import parse_rule
from coralx.records.genomes import Genes
from coralx.records.jobs import Horizon, Job
from coralx.records.results import StageResult, Trend
from coralx.records.verdicts import Cut, Promote, Replace, Stop
from coralx.schedule.adaptive_budgets import adapted, with_budgets
from coralx.schedule.brackets import cohort_sizes
from coralx.schedule.stages import FEWEST_STEPS, by_length, horizon_of
from coralx.schedule.stop_rules import judge, judged_from
from coralx.training.initial_weights import StageStart
from coralx.training.loop import Trace
from coralx.training.stage_result import CONFIDENCE, loss_trend, result_of
from tests.support.factories import (
    make_genome,
    make_result,
    make_stages,
)
from tests.support.short_stages import PUBLISHED, played, published, verdicts

epochs = st.one_of(st.integers(1, 5000), st.integers(1, 1_000_000))


# -- who is judged -------------------------------------------------------------------------------


@given(epochs, st.floats(0, 0.9))
def test_the_first_stage_is_judged_wherever_it_has_eight_steps(steps: int, ratio: float) -> None:
    stage = replace(by_length(PUBLISHED, steps)[0], stop_when=(parse_rule("gradient_norm > 5"),))
    total = stage.trained_steps(steps)
    warmup = horizon_of(PUBLISHED, steps, ratio).warmup_steps
    after = max(0, total - warmup)
    wild = make_result("a", {"gradient_norm": 9.0}, last_step=total, judged_steps=after)
    assert ("a" in judge(stage, [wild]).breaches) == (total >= FEWEST_STEPS)
    begin = judged_from(0, total, warmup)
    assert begin in (0, warmup)
    assert total - begin >= min(total, FEWEST_STEPS)


@pytest.mark.parametrize(
    ("steps_per_epoch", "is_judged"),
    [(1, False), (1000, False), (2800, False), (2801, True), (10_000, True), (1_000_000, True)],
)
def test_rules_act_in_a_search_and_what_they_cannot_judge_is_listed(
    steps_per_epoch: int, is_judged: bool
) -> None:
    engine = played(published(steps_per_epoch))
    results = {g: r for (g, stage), r in engine.history.results.items() if stage == "S0"}
    sound = {g: r.metrics["gradient_norm"] for g, r in results.items() if not r.divergence}
    wild = {genome for genome, norm in sound.items() if norm is not None and norm > 0.75}
    assert wild
    stopped = {v.genome for v in verdicts(engine, "S0") if isinstance(v, Stop)} & sound.keys()
    assert stopped == (wild if is_judged else set())
    assert set(engine.history.decisions[0, "S0"].not_judged) == (set() if is_judged else set(sound))


def test_a_floor_on_validation_waits_for_the_end_of_warmup() -> None:
    stage = replace(make_stages((1, 100, 1), (2, 100, 1))[0], judges_warmup=True)
    rules = ("auroc < 0.55", "gradient_norm > 5")
    stage = replace(stage, stop_when=tuple(parse_rule(rule) for rule in rules))
    warming = make_result("a", {"auroc": 0.5, "gradient_norm": 1.0}, judged_steps=7)
    poor = make_result("b", {"auroc": 0.5, "gradient_norm": 1.0}, judged_steps=8)
    good = make_result("c", {"auroc": 0.7, "gradient_norm": 1.0}, judged_steps=8)
    found = judge(stage, [warming, poor, good])
    assert found.breaches.keys() == {"b"}
    assert found.not_judged == ("a",)


# -- the trend of the losses ---------------------------------------------------------------------


@pytest.mark.parametrize("steps", [8, 25])
def test_a_genome_that_does_not_learn_yet_is_hardly_ever_taken_for_one_that_gets_worse(
    steps: int,
) -> None:
    rng = np.random.default_rng(0)
    rising = sum(
        (trend := loss_trend(rng.normal(0.7, 0.05, steps).tolist(), CONFIDENCE)) is not None
        and trend.low > 0
        for _ in range(1000)
    )
    assert rising <= 4  # nominal: 0.5; by 95 % it would be 25


@pytest.mark.parametrize(
    ("first", "last", "warmup", "begin"),
    [
        (0, 25, 120, 0),  # all of it warms up
        (0, 25, 18, 0),  # seven steps after warm-up are too few
        (0, 25, 17, 17),
        (25, 60, 12, 25),  # warm-up is over
        (0, 5, 2, 0),
    ],
)
def test_losses_are_judged_after_warmup_if_enough_are_left(
    first: int, last: int, warmup: int, begin: int
) -> None:
    assert judged_from(first, last, warmup) == begin


def result(losses: Sequence[float], first: int | None) -> StageResult:
    job = Job(
        make_genome("a"), "S0", 0, len(losses), Horizon(900, 60), 1.0, None, judged_from=first
    )
    trace = Trace(list(losses), [1.0] * len(losses))
    return result_of(job, StageStart(0), trace, {}, (), 0.0, 0.0)


def test_a_loss_that_rises_within_warmup_has_a_trend_unless_the_run_is_of_an_earlier_version() -> (
    None
):
    losses = [0.7 + 0.1 * n + 0.01 * (n % 2) for n in range(12)]
    trend = result(losses, 0).loss_trend
    assert trend is not None
    assert 0.09 < trend.low < trend.slope < trend.high
    assert result(losses, None).loss_trend is None


# -- who is scored -------------------------------------------------------------------------------


@given(epochs)
def test_a_stage_is_scored_and_cuts_where_it_has_eight_steps(steps: int) -> None:
    for stage, told in zip(PUBLISHED, by_length(PUBLISHED, steps), strict=True):
        is_long = stage.trained_steps(steps) >= 8 or stage.is_last
        assert told.is_scored == is_long
        assert told.survival_rate == (stage.survival_rate if is_long else 1)


@pytest.mark.parametrize("promotion", ["synchronous", "asynchronous"])
@pytest.mark.parametrize("brackets", [1, 2])
def test_nobody_is_cut_on_nothing(promotion: str, brackets: int) -> None:
    config = published(1000, (0.5, 0.5, 0.5, 0.5), promotion=promotion, brackets=brackets)
    engine = played(config)
    short = [r for (_, stage), r in engine.history.results.items() if stage == "S0"]
    assert short
    assert all("auroc" not in r.metrics and r.eval_seconds == 0 for r in short)
    assert not any(isinstance(v, Cut) for v in verdicts(engine, "S0"))
    assert any(isinstance(v, Cut) for v in verdicts(engine, "S1"))
    scored = [r for (_, stage), r in engine.history.results.items() if stage != "S0"]
    assert all("auroc" in r.metrics for r in scored if r.divergence is None)


def test_runs_of_earlier_versions_cut_and_score_as_they_did() -> None:
    engine = played(published(1000, (0.5, 0.5, 0.5, 0.5)), revision=1)
    assert any(isinstance(v, Cut) for v in verdicts(engine, "S0"))
    results = [r for (_, stage), r in engine.history.results.items() if stage == "S0"]
    assert all("auroc" in r.metrics for r in results if r.divergence is None)
    late = played(published(10_000), revision=1)  # all of the first stage warms up
    assert not any(isinstance(v, Stop) and v.value for v in verdicts(late, "S0"))
    genome = next(iter(late.history.genomes.values()))
    job = late.context.jobs.train(genome, late.stages[0])
    assert job.judged_from is None


def test_no_copy_takes_the_place_of_another_on_nothing() -> None:
    evolution = {"population_size": 8, "generations": 1, "pbt_quantile": 0.25}
    engine = played(published(1000, evolution=evolution))
    assert not any(isinstance(v, Replace) for v in verdicts(engine, "S0"))
    assert any(isinstance(v, Replace) for v in verdicts(engine, "S1"))


def test_the_smallest_batch_decides_for_all_genomes_of_a_stage() -> None:
    batches = {"choices": [4, 64]}
    engine = played(
        published(1000, search_space={"batch_size": batches})
    )  # 16,000 rows: 10 steps of 4 rows, one of 64
    results = [r for (_, stage), r in engine.history.results.items() if stage == "S0"]
    sound = [r for r in results if r.divergence is None]
    assert {r.last_step for r in sound} == {1, 10}
    assert all("auroc" in r.metrics for r in sound)
    small = {r.genome for r in sound if r.last_step == 1}
    assert set(engine.history.decisions[0, "S0"].not_judged) == small


@pytest.mark.parametrize("longest", [None, 20, 1000, 100_000])
def test_adapted_budgets_cut_nobody_at_a_short_stage_and_cost_the_same(longest: int | None) -> None:
    stages = PUBLISHED if longest is None else by_length(PUBLISHED, longest)
    for diversity in (0.0, 0.5, 1.0):
        told = with_budgets(PUBLISHED, adapted(stages, 16, diversity, longest))
        sizes = cohort_sizes(told, 16)
        for stage, entering, after in zip(told, sizes, sizes[1:], strict=False):
            assert longest is None or not stage.is_too_short(longest) or after == entering
        costs = []
        for some, counts in ((stages, cohort_sizes(stages, 16)), (told, sizes)):
            ends = [stage.planned_steps(1) for stage in some]
            steps = [end - before for end, before in zip(ends, [0, *ends], strict=False)]
            costs.append(sum(n * s for n, s in zip(counts, steps, strict=True)))
        assert costs[0] == costs[1]


def test_everyone_goes_on_where_adapted_budgets_leave_the_first_stage_short() -> None:
    evolution = {"population_size": 8, "generations": 3}
    engine = played(published(300, evolution=evolution, adaptive_budgets=True))
    for (generation, name), decision in engine.history.decisions.items():
        stage = next(s for s in engine.state.stages_in(generation) if s.name == name)
        if not stage.is_scored:
            assert all(isinstance(v, Promote | Stop) for v in decision.verdicts)
        for verdict in decision.verdicts:
            found = engine.history.results[verdict.genome, name]
            assert found.divergence or ("auroc" in found.metrics) == stage.is_scored


# -- for real ------------------------------------------------------------------------------------


def test_within_warmup_healthy_genomes_are_told_from_ill_ones(tiny_config: dict[str, Any]) -> None:
    backend = create("peft")
    backend.prepare(parse_config(tiny_config, "test"), None, 1, lambda _: None)
    rules = tuple(parse_rule(rule) for rule in ("gradient_norm > 5.0", "loss_slope > 0"))
    stage = replace(make_stages((1, 100, 1), (2, 100, 1))[0], judges_warmup=True, stop_when=rules)
    results = []
    for rate in (1e-4, 1e-3, 5e-3, 5000.0):
        genome = make_genome(f"{rate:g}", Genes(learning_rate=rate, batch_size=8))
        job = Job(genome, "S0", 0, 16, Horizon(400, 60), 1.0, None, is_scored=False, judged_from=0)
        results.append(backend.train(job, lambda _: None))
    assert all(isinstance(r.loss_trend, Trend) for r in results if r.divergence is None)
    assert {r.judged_steps for r in results} == {0}
    assert judge(stage, results).breaches.keys() == {"5000"}
