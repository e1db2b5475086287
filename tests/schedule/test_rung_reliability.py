"""How well a stage ranks what comes later, as estimated from a few finishers."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from coralx.schedule.rung_reliability import (
    Belief,
    Cohort,
    _log_likelihood,
    best_held,
    prior,
    updated,
)

EIGHT = tuple(range(8))


def seen(rng: np.random.Generator, correlation: float, born: int, rate: float) -> Cohort:
    """A generation that the stage cut to a share `rate`, with one control drawn by lot."""
    early = rng.normal(size=born)
    final = correlation * early + np.sqrt(1 - correlation**2) * rng.normal(size=born)
    order = np.argsort(-early)
    control = int(rng.integers(born))
    finishers = [place for place in range(born) if place < rate * born or place == control]
    return Cohort(born, tuple(sorted(finishers, key=lambda place: -final[order[place]])))


def spearman(correlation: float) -> float:
    return float(6 / np.pi * np.arcsin(correlation / 2))


def test_before_anything_is_seen_little_is_taken_for_granted() -> None:
    low, high = prior().interval()
    assert low < 0 < prior().agreement < 0.5 < high
    assert prior().kept(1.0, 0.2) == pytest.approx(1.0)
    assert prior().kept(0.0, 0.2) == 0.0


def test_probabilities_of_all_orders_sum_to_one() -> None:
    places = (0, 3, 7, 2)
    total = sum(np.exp(_log_likelihood(Cohort(8, order))) for order in permutations(places))
    assert total == pytest.approx(1.0, abs=0.01)


def test_one_generation_that_went_through_whole_tells_a_true_stage_from_a_reversed_one() -> None:
    true, reverse = (
        updated(prior(), [Cohort(8, order)]) for order in (EIGHT, tuple(reversed(EIGHT)))
    )
    assert true.agreement > 0.7
    assert true.kept(0.5, 0.2) > 0.8
    assert reverse.agreement < -0.5
    assert reverse.kept(0.5, 0.2) < 0.1


def test_a_single_finisher_tells_nothing() -> None:
    after = updated(prior(), [Cohort(8, (0,)), Cohort(8, ())])
    assert after.weights == pytest.approx(prior().weights)


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.5, 0.9])
def test_finishers_chosen_by_rank_do_not_bias_the_estimate(correlation: float) -> None:
    """Spearman over those that the cut let pass would be far too low."""
    found = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        after = updated(prior(), [seen(rng, correlation, 8, 0.25) for _ in range(60)])
        found.append(after.agreement)
    assert np.mean(found) == pytest.approx(spearman(correlation), abs=0.1)


@pytest.mark.parametrize(("generations", "born"), [(1, 4), (1, 8), (3, 8)])
def test_intervals_hold_the_truth_as_often_as_they_say(generations: int, born: int) -> None:
    """For correlations drawn from the prior, with 2 to 9 pairs."""
    rng = np.random.default_rng(2)
    trials, held = 200, 0
    for _ in range(trials):
        while rng.random() > (1 + (correlation := rng.uniform(-0.95, 0.95))) / 2:
            pass
        cohorts = [seen(rng, correlation, born, 0.25) for _ in range(generations)]
        low, high = updated(prior(), cohorts).interval()
        held += low - 0.03 <= spearman(correlation) <= high + 0.03
    assert held / trials >= 0.92


def test_a_stage_whose_middle_is_best_is_not_taken_for_a_true_one() -> None:
    """Its upper half holds the best, but its highest quarter does not."""
    bent = updated(prior(), [Cohort(8, (3, 2, 4, 1, 5, 0, 6, 7))] * 4)
    true = updated(prior(), [Cohort(8, EIGHT)] * 4)
    assert bent.kept(0.25, 0.2) < 0.5 < 0.8 < true.kept(0.25, 0.2)
    assert bent.kept(0.5, 0.2) > 0.6


def test_which_of_the_best_a_stage_held() -> None:
    assert best_held([Cohort(8, (0, 5, 7, 1)), Cohort(8, (6, 2)), Cohort(8, (4,))]) == (1, 3)
    assert best_held([]) == (0, 0)


def test_more_evidence_narrows_the_interval() -> None:
    def width(belief: Belief) -> float:
        low, high = belief.interval()
        return high - low

    few, many = (updated(prior(), [Cohort(8, (0, 2, 5))] * count) for count in (2, 12))
    assert width(many) < width(few) < width(prior())
