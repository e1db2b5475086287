"""What earlier runs teach: founders, priors, and learning rates to stay away from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from coralx.records.experience import Likeness
from coralx.records.genomes import Genes
from coralx.search.experience import (
    DISTANCE,
    Evidence,
    Trial,
    exploded_rates,
    known_founders,
    moved_priors,
    tells,
    with_priors,
)
from coralx.search.priors import Prior
from coralx.search.space import Space
from tests.support.factories import make_space

RATE = {"low": 1e-5, "high": 1e-2, "log": True}


def the_space(prior: float | None = None, spread: float = 0.5) -> Space:
    rate = RATE if prior is None else {**RATE, "prior": prior, "spread": spread}
    return make_space(learning_rate=rate)


def rates(count: int, seed: int = 0) -> list[float]:
    places = (np.random.default_rng(seed).permutation(count) + 0.5) / count
    return [float(10 ** (-5 + 3 * place)) for place in places]


def evidence(
    learning_rates: Sequence[float],
    quality: Callable[[float], float],
    likeness: Likeness = "same base and data",
    *,
    run: str = "earlier",
    diverge_from: float = math.inf,
    front: int = 3,
) -> Evidence:
    """A run whose genomes differ in their learning rates alone."""
    trials = [
        Trial(f"{run}-{place}", replace(Genes(), learning_rate=rate), rate >= diverge_from)
        for place, rate in enumerate(learning_rates)
    ]
    key = {t.genome: (t.diverged, -quality(t.genes.learning_rate)) for t in trials}
    ordered = sorted(trials, key=lambda trial: key[trial.genome])
    return Evidence(run, likeness, ordered, ordered[:front])


def valley(best: float) -> Callable[[float], float]:
    return lambda rate: -abs(math.log10(rate / best))


def center_of(space: Space, *found: Evidence) -> tuple[float, float] | None:
    moved = [prior for prior in moved_priors(space, found) if prior.gene == "learning_rate"]
    return (moved[0].center, moved[0].spread) if moved else None


# -- priors --------------------------------------------------------------------------------------


def test_a_prior_moves_towards_what_worked_and_narrows() -> None:
    found = center_of(the_space(3e-4), evidence(rates(16), valley(2e-3)))
    assert found is not None
    center, spread = found
    assert 1e-3 < center < 2e-3
    assert DISTANCE["same base and data"] <= spread < 0.4


def test_likeness_says_how_far_it_moves() -> None:
    centers = []
    for likeness in ("same kind", "same base", "same base and data"):
        found = center_of(the_space(3e-4), evidence(rates(16), valley(2e-3), likeness))
        assert found is not None
        assert 3e-4 < found[0] < 2.2e-3
        centers.append(found[0])
    assert centers == sorted(centers)
    assert centers[0] < 6e-4  # one run more of a kind whose prior is known


def test_runs_that_contradict_each_other_leave_it_wider_than_runs_that_agree() -> None:
    low = evidence(rates(16), valley(1e-4), run="low")
    agreed = center_of(the_space(3e-4), low, evidence(rates(16, 1), valley(1e-4), run="too"))
    torn = center_of(the_space(3e-4), low, evidence(rates(16, 1), valley(3e-3), run="high"))
    assert agreed is not None
    assert torn is not None
    assert agreed[1] < torn[1] <= 0.5


def test_a_gene_without_a_prior_gets_one_only_from_consistent_evidence() -> None:
    found = center_of(the_space(), evidence(rates(16), valley(2e-3)))
    assert found is not None
    assert found[0] == pytest.approx(2e-3, rel=0.5)
    low, high = (evidence(rates(16), valley(best), run=f"{best}") for best in (5e-5, 5e-3))
    torn = center_of(the_space(), low, high)
    assert torn is None


def test_chance_moves_a_prior_seldom() -> None:
    moved = 0
    for seed in range(100):
        luck = np.random.default_rng(seed).random
        moved += center_of(the_space(3e-4), evidence(rates(16, seed), lambda _: luck())) is not None  # noqa: B023
    assert moved <= 20


def test_a_crowd_that_breeding_brought_together_is_no_evidence() -> None:
    crowd = [*rates(8), *(2e-3 * 1.02**place for place in range(24))]
    luck = np.random.default_rng(3).random
    assert not tells(the_space(), evidence(crowd, lambda _: luck()))


def test_few_genomes_or_equal_rates_say_nothing() -> None:
    assert center_of(the_space(3e-4), evidence(rates(5), valley(2e-3))) is None
    assert center_of(the_space(3e-4), evidence([1e-3] * 16, valley(2e-3))) is None
    assert moved_priors(the_space(3e-4), []) == []


def test_values_that_the_gene_cannot_have_count_as_the_nearest() -> None:
    space = make_space(weight_decay={"low": 1e-3, "high": 0.1, "log": True})
    genes = [
        replace(Genes(), weight_decay=0.0 if place < 8 else 0.09 - place / 500)
        for place in range(16)
    ]
    trials = [Trial(f"{place}", each) for place, each in enumerate(genes)]
    found = Evidence("earlier", "same base", trials, ())
    [moved] = [prior for prior in moved_priors(space, [found]) if prior.gene == "weight_decay"]
    assert moved.center < 0.01


def test_choices_keep_a_spread_of_a_step() -> None:
    space = make_space(rank={"choices": [2, 4, 8, 16, 32, 64]})
    genes = [replace(Genes(), rank=8 if place < 6 else 2 ** (1 + place % 6)) for place in range(24)]
    trials = [Trial(f"{place}", each) for place, each in enumerate(genes)]
    found = Evidence("earlier", "same base and data", trials, ())
    [moved] = [prior for prior in moved_priors(space, [found]) if prior.gene == "rank"]
    assert moved.center in (8, 16)
    assert moved.spread >= 1.0
    assert moved_priors(space, [found], left_out=("rank",)) == []


def test_moved_priors_take_the_place_of_the_former() -> None:
    space = the_space(3e-4)
    moved = moved_priors(space, [evidence(rates(16), valley(2e-3))])
    learned = with_priors(space, moved).priors["learning_rate"]
    assert learned == Prior(moved[0].center, moved[0].spread, moved[0].source)
    assert (moved[0].former_center, moved[0].former_spread) == (3e-4, 0.5)
    assert moved[0].source == "learned from earlier and the config"


# -- rates that explode --------------------------------------------------------------------------


def test_the_lowest_rate_from_which_on_most_diverged() -> None:
    found = exploded_rates(evidence(rates(16), valley(1e-3), diverge_from=3e-3))
    assert found is not None
    above = [rate for rate in rates(16) if rate >= 3e-3]
    assert found.lowest == min(above)
    assert (found.diverged, found.trained) == (len(above), len(above))


def test_a_single_divergence_among_healthy_ones_is_not_the_rates() -> None:
    one = evidence([1e-4, 2e-4, 3e-4, 1e-3, 2e-3], valley(1e-3))
    trials = [replace(t, diverged=t.genes.learning_rate == 2e-4) for t in one.trials]
    assert exploded_rates(replace(one, trials=trials)) is None
    assert exploded_rates(one) is None


def test_a_prior_is_kept_below_rates_that_exploded_and_forbids_none() -> None:
    # too few genomes to say where good rates lie
    found = evidence([1e-4, 2e-3, 3e-3, 5e-3], valley(1e-3), diverge_from=1.5e-3)
    space = the_space(1e-3)
    [moved] = moved_priors(space, [found])
    assert math.log10(moved.center) + moved.spread == pytest.approx(math.log10(2e-3), abs=0.01)
    assert moved.source == (
        "learned from earlier and the config; kept below 0.002, where trainings exploded"
    )
    sampled = with_priors(space, [moved]).sample(40, np.random.default_rng(0))
    above = sum(genes.learning_rate >= 2e-3 for genes in sampled)
    assert 1 <= above <= 40 * (1 / 4 + 1 / 6)


def test_an_exploded_rate_bounds_a_gene_without_prior_and_no_other_range() -> None:
    found = evidence([1e-4, 2e-3, 3e-3, 5e-3], valley(1e-3), diverge_from=1.5e-3)
    [moved] = moved_priors(the_space(), [found])
    assert 1e-5 < moved.center < 2e-3
    low = make_space(learning_rate={"low": 1e-5, "high": 1e-3, "log": True})
    assert moved_priors(low, [found]) == []


# -- founders ------------------------------------------------------------------------------------


def front_of(count: int, likeness: Likeness, run: str = "earlier") -> Evidence:
    """A run whose learning rates tell, and whose front has so many members."""
    return evidence(rates(16), valley(2e-3), likeness, run=run, front=count)


@pytest.mark.parametrize(
    ("likeness", "size", "expected"),
    [
        ("same base and data", 12, 4),
        ("same base", 12, 3),
        ("same kind", 12, 1),
        ("same base and data", 8, 2),
        ("same kind", 4, 0),
        ("same base and data", 3, 1),
        ("same base and data", 2, 0),
    ],
)
def test_founders_take_a_bounded_share(likeness: Likeness, size: int, expected: int) -> None:
    assert len(known_founders(the_space(), size, [front_of(6, likeness)])) == expected


def test_founders_begin_with_the_best_and_are_spread_along_the_front() -> None:
    run = front_of(6, "same base and data")
    founders = known_founders(the_space(), 6, [run])
    assert [f.genome for f in founders] == [run.front[0].genome, run.front[3].genome]


def test_two_places_are_left_to_the_draw() -> None:
    given = [replace(Genes(), rank=2), replace(Genes(), rank=4), replace(Genes(), rank=8)]
    run = front_of(6, "same base and data")
    assert known_founders(the_space(), 5, [run], given) == []
    assert len(known_founders(the_space(), 6, [run], given)) == 1


def test_the_likest_runs_come_first_and_equals_share() -> None:
    like, base = front_of(6, "same base and data", "like"), front_of(6, "same base", "base")
    assert [f.run for f in known_founders(the_space(), 12, [base, like])] == ["like"] * 4
    pair = [front_of(6, "same base and data", name) for name in ("one", "two")]
    taken = known_founders(the_space(), 12, pair)
    # the fronts are equal: what the first has given is not taken from the second again
    assert [f.run for f in taken] == ["one", "one", "two", "two"]
    assert len({f.genes for f in taken}) == 4


def test_what_the_space_does_not_hold_and_what_is_given_is_left_out() -> None:
    run = front_of(2, "same base and data")
    elsewhere = make_space(learning_rate=RATE, rank={"choices": [2, 4]})
    assert known_founders(elsewhere, 12, [run]) == []
    given = [run.front[0].genes]
    [only] = known_founders(the_space(), 12, [run], given)
    assert only.genome == run.front[1].genome


def test_a_run_that_chance_may_have_led_gives_one_founder() -> None:
    luck = np.random.default_rng(2).random
    run = evidence(rates(16), lambda _: luck(), front=6)
    assert not tells(the_space(), run)
    assert len(known_founders(the_space(), 12, [run])) == 1
