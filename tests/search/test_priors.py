"""Priors: what founders, steps and fresh draws make of them, and how their weight falls."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from scipy.stats import truncnorm

from coralx.records.genomes import Genes
from coralx.rng import generator
from coralx.search.needless import Seen
from coralx.search.nsga2 import founders, offspring
from coralx.search.operators import STEP_SPREAD, mutate, polynomial_mutation, step_scales
from coralx.search.priors import Prior, mutation_spread, quantile, uniform_rows, weight
from coralx.search.recipes import prior_center
from coralx.search.space import Space
from tests.support.factories import make_space
from tests.support.spaces import evolution

RATE: dict[str, Any] = {"low": 1e-5, "high": 1e-2, "log": True}
AROUND = {**RATE, "prior": 3e-4, "spread": 0.25}


def space(**genes: Any) -> Space:
    return make_space(**{"learning_rate": AROUND, **genes})


def decades(genes: Genes) -> float:
    """From the prior's centre."""
    return math.log10(genes.learning_rate / 3e-4)


@pytest.mark.parametrize("center", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("spread", [1e-6, 0.05, 0.3, 40.0])
def test_quantiles_are_those_of_the_truncated_normal(center: float, spread: float) -> None:
    bounds = (0.0 - center) / spread, (1.0 - center) / spread
    expected = truncnorm(*bounds, loc=center, scale=spread)
    for share in (1e-6, 0.1, 0.5, 0.97):
        assert quantile(center, spread, share) == pytest.approx(expected.ppf(share), abs=1e-7)
    assert 0.0 <= quantile(center, spread, 0.0) <= quantile(center, spread, 1.0) <= 1.0


def test_one_of_four_sampled_founders_ignores_the_priors_wherever_a_sample_ends() -> None:
    shares = {count: len(uniform_rows(count)) for count in range(1, 13)}
    assert shares == {
        1: 0, 2: 1, 3: 1, 4: 1, 5: 1, 6: 2, 7: 2, 8: 2, 9: 2, 10: 3, 11: 3, 12: 3
    }  # fmt: skip
    for start in range(0, 40, 4):
        assert sum(start <= row < start + 4 for row in uniform_rows(40)) == 1


def test_of_a_gene_with_a_prior_three_of_four_lie_by_its_quantiles() -> None:
    count = 400
    sampled = space().sample(count, np.random.default_rng(3))
    ignoring = uniform_rows(count)
    following = [decades(g) for row, g in enumerate(sampled) if row not in ignoring]
    shares = sorted(NormalDist(0.0, 0.25).cdf(distance) for distance in following)
    assert [int(share * 300) for share in shares] == list(range(300))  # each stratum once
    u = [math.log10(sampled[row].learning_rate / 1e-5) / 3 for row in ignoring]
    assert sorted(int(place * 100) for place in u) == list(range(100))


def test_a_gene_without_a_prior_is_drawn_as_ever() -> None:
    plain, informed = space(learning_rate=RATE), space()
    rng = np.random.default_rng
    assert [g.rank for g in informed.sample(9, rng(1))] == [g.rank for g in plain.sample(9, rng(1))]
    assert informed.without_priors().sample(9, rng(1)) == plain.sample(9, rng(1))
    assert plain.draw(1, rng(5)) == plain.sample(1, rng(5))[0]  # no draw is spent on priors


def test_whole_numbers_and_sorted_choices_may_have_priors() -> None:
    several = space(
        rank={"choices": [32, 2, 4, 8, 16], "prior": 8, "spread": 0.4},
        batch_size={"low": 4, "high": 64, "prior": 20, "spread": 2},
        dropout={"low": 0.0, "high": 0.2, "prior": 0.1, "spread": 0.01},
    )
    sampled = several.sample(80, np.random.default_rng(0))
    following = [g for row, g in enumerate(sampled) if row not in uniform_rows(80)]
    assert sum(genes.rank == 8 for genes in following) > 40
    assert np.mean([genes.batch_size for genes in following]) == pytest.approx(20, abs=0.3)
    assert np.std([genes.batch_size for genes in following]) == pytest.approx(2, abs=0.3)
    assert np.std([genes.dropout for genes in following]) == pytest.approx(0.01, abs=0.002)
    assert prior_center(several) == Genes(rank=8, dropout=0.1, learning_rate=3e-4, batch_size=20)


def test_the_centre_is_a_founder_after_the_users_recipes_and_the_common_default() -> None:
    own = Genes(rank=2)
    first = [genome.genes for genome in founders(space(), 8, 1, [own])][:3]
    assert first == [own, Genes(), replace(Genes(), learning_rate=3e-4)]
    # the nearest that the space holds, where it does not hold the common default's value
    narrow = space(rank={"choices": [2, 4]}, target_modules={"choices": [["query"], ["key"]]})
    center = replace(Genes(), learning_rate=3e-4, rank=4, target_modules=("query",))
    assert next(genome.genes for genome in founders(narrow, 8, 1)) == center
    # once only, where it is the common default itself
    same = [g.genes for g in founders(space(learning_rate={**AROUND, "prior": 2e-4}), 8, 1)]
    assert same.count(Genes()) == 1
    assert prior_center(space(learning_rate=RATE)) is None


def test_a_prior_fades_from_the_children_on() -> None:
    assert [weight(generation) for generation in range(5)] == [1, 1, 0.5, 0.25, 0.125]
    assert mutation_spread(0.2, 1, 0.06) == pytest.approx(0.2)
    assert mutation_spread(0.2, 2, 0.06) == pytest.approx(0.13)
    assert mutation_spread(0.2, 30, 0.06) == pytest.approx(0.06)
    # however wide, no wider than even odds are
    assert mutation_spread(1e6, 1, 0.06) == pytest.approx(1 / math.sqrt(12))


def test_steps_have_the_spread_of_the_prior_and_end_as_the_usual() -> None:
    rng = np.random.default_rng(2)
    steps = [polynomial_mutation(0.5, rng) - 0.5 for _ in range(10_000)]
    assert np.std(steps) == pytest.approx(STEP_SPREAD, rel=0.03)
    start = replace(Genes(), learning_rate=3e-4)
    alone = Space({"learning_rate": space().genes["learning_rate"]}, Genes(), space().priors)
    for generation, expected in (
        (1, 0.25),
        (2, (0.25 + 3 * STEP_SPREAD) / 2),
        (40, 3 * STEP_SPREAD),
    ):
        scales = step_scales(alone, generation)
        moved = [decades(mutate(alone, start, 1.0, rng, scales)) for _ in range(3000)]
        assert np.std(moved) == pytest.approx(expected, rel=0.08)
    assert step_scales(space(learning_rate=RATE), 1) == {}


def test_fresh_draws_follow_the_prior_less_and_less() -> None:
    alone = Space({"learning_rate": space().genes["learning_rate"]}, Genes(), space().priors)
    near = {
        generation: np.mean(
            [
                abs(decades(alone.draw(generation, generator(1, "t", generation, index)))) < 0.25
                for index in range(1000)
            ]
        )
        for generation in (0, 1, 3, 12)
    }
    anywhere = 0.5 / 3
    for generation, share in near.items():
        follows = 0.75 * weight(generation)
        expected = follows * 0.6827 + (1 - follows) * anywhere
        assert share == pytest.approx(expected, abs=0.045)


def test_of_the_newborn_one_of_four_ignores_the_prior_at_first() -> None:
    """Parents at the centre of a narrow prior have no child a decade off but by ignoring it."""
    narrow = space(learning_rate={**RATE, "prior": 3e-4, "spread": 0.001})
    parents = founders(narrow, 2, 1, [replace(Genes(), learning_rate=3e-4, rank=r) for r in (2, 4)])
    many = evolution(population_size=12, mutation_probability=1.0)
    far = {}
    for generation in (1, 2, 9):
        born = [
            genome
            for seed in range(60)
            for genome in offspring(parents, Seen(), [], narrow, many, generation, seed)
        ]
        assert len(born) == 720
        far[generation] = np.mean([abs(decades(genome.genes)) > 1 for genome in born])
    assert far[1] == pytest.approx(0.25 / 3, abs=0.02)
    assert far[2] == pytest.approx(0.125 / 3, abs=0.02)
    assert far[9] < 0.005


def test_priors_of_genes_that_are_not_searched_do_nothing() -> None:
    with_unknown = replace(space(learning_rate=RATE), priors={"use_dora": Prior(1, 1, "a test")})
    assert step_scales(with_unknown, 1) == {}
    plain = space(learning_rate=RATE).sample(4, np.random.default_rng(0))
    assert with_unknown.sample(4, np.random.default_rng(0)) == plain


def test_a_wrong_prior_does_not_hold_the_search() -> None:
    """The best rate lies a decade above the prior's centre; children find it."""
    wrong = space(learning_rate={**RATE, "prior": 1e-4, "spread": 0.25})

    def distance(genes: Genes) -> float:
        return abs(math.log10(genes.learning_rate / 1e-3))

    reached = []
    for seed in range(10):
        population = sorted(founders(wrong, 8, seed), key=lambda g: distance(g.genes))
        seen = [genome.genes for genome in population]
        for generation in range(1, 6):
            born = offspring(population, Seen(seen), [], wrong, evolution(), generation, seed)
            seen += [genome.genes for genome in born]
            population = sorted([*population, *born], key=lambda g: distance(g.genes))[:8]
        reached.append(distance(population[0].genes))
    assert np.median(reached) < 0.1
