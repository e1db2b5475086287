"""Crossover and mutation: every value in its gene's bounds, spread as the papers have it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from coralx.records.genomes import Genes
from coralx.rng import generator
from coralx.search.operators import (
    MUTATION_ETA,
    SBX_ETA,
    cross_values,
    moved_rate,
    mutate,
    mutate_values,
    polynomial_mutation,
    sbx,
)
from coralx.search.space import Categorical, Continuous, Gene, Integer, Ordered
from tests.support.factories import make_space

DRAWS = 4000
MIXED = make_space(
    rank={"low": 1, "high": 64, "log": True},
    alpha_ratio={"choices": [0.5, 2.0, 1.0]},
    dropout={"low": 0.0, "high": 0.3},
    learning_rate={"low": 1e-5, "high": 1e-2, "log": True},
    target_modules={"choices": ["all-linear", ["query", "value"], ["query"]]},
    batch_size={"low": 4, "high": 40},
    use_dora={"choices": [False, True]},
)
seeds = st.integers(0, 2**32)
units = st.floats(0, 1)


class Scripted(np.random.Generator):
    """A generator whose uniform draws are given."""

    def __init__(self, *draws: float) -> None:
        super().__init__(np.random.PCG64(0))
        self._draws: Iterator[float] = iter(draws)

    def random(self, *args: Any, **kwargs: Any) -> Any:
        return next(self._draws)


def continuous(log: bool) -> st.SearchStrategy[Gene]:
    return st.builds(
        lambda low, factor: Continuous(low, low * factor, log),
        st.floats(1e-8, 1e3),
        st.floats(1.01, 1e4),
    )


def integers(log: bool) -> st.SearchStrategy[Gene]:
    return st.builds(
        lambda low, span: Integer(low, low + span, log), st.integers(1, 500), st.integers(1, 500)
    )


ordered = st.builds(
    lambda values: Ordered(tuple(sorted(values))),
    st.sets(st.integers(1, 256), min_size=1, max_size=6),
)
categorical = st.builds(
    lambda count: Categorical(tuple(f"m{i}" for i in range(count))), st.integers(1, 5)
)
numbers = st.one_of(continuous(True), continuous(False), integers(True), integers(False))
genes = st.one_of(numbers, ordered, categorical)


def crossed(gene: Gene, first: Any, second: Any, rng: np.random.Generator) -> Any:
    return cross_values({"g": gene}, {"g": first}, {"g": second}, rng)["g"]


def mutated(gene: Gene, value: Any, rng: np.random.Generator) -> Any:
    return mutate_values({"g": gene}, {"g": value}, 1.0, rng)["g"]


# -- every operator ------------------------------------------------------------------------------


@given(genes, units, units, seeds)
@settings(max_examples=400, deadline=None)
def test_no_operator_leaves_a_gene_s_bounds_or_type(
    gene: Gene, u1: float, u2: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    first, second = gene.decode(u1), gene.decode(u2)
    for value in (crossed(gene, first, second, rng), mutated(gene, first, rng)):
        assert gene.contains(value)
        assert type(value) is type(first)


@given(genes, units, seeds)
@settings(max_examples=200, deadline=None)
def test_crossover_of_equals_changes_nothing(gene: Gene, u: float, seed: int) -> None:
    value = gene.decode(u)
    again = crossed(gene, value, value, np.random.default_rng(seed))
    if isinstance(gene, Continuous):  # through a logarithm and back, and rounded to six digits
        assert again == pytest.approx(value, rel=1e-5)
    else:
        assert again == value


@given(numbers, units, units, st.floats(0, 1, exclude_max=True), st.booleans())
@settings(max_examples=200, deadline=None)
def test_sbx_treats_its_parents_alike(
    gene: Any, u1: float, u2: float, draw: float, low: bool
) -> None:
    script = (0.9, draw, 0.2 if low else 0.8)
    first, second = gene.decode(u1), gene.decode(u2)
    if gene.encode(first) != gene.encode(second):
        assert crossed(gene, first, second, Scripted(*script)) == crossed(
            gene, second, first, Scripted(*script)
        )


@given(seeds, units)
@settings(max_examples=60, deadline=None)
def test_bred_configurations_lie_in_the_space(seed: int, probability: float) -> None:
    rng = np.random.default_rng(seed)
    first, second = MIXED.sample(2, rng)
    values = cross_values(MIXED.genes, MIXED.values(first), MIXED.values(second), rng)
    child = MIXED.build(values)
    assert MIXED.contains(child)
    assert MIXED.contains(mutate(MIXED, child, probability, rng))
    for name in ("alpha_ratio", "target_modules", "use_dora"):
        assert getattr(child, name) in (getattr(first, name), getattr(second, name))


def test_each_gene_is_mutated_with_its_probability() -> None:
    rng = np.random.default_rng(5)
    start = MIXED.sample(1, rng)[0]
    assert mutate(MIXED, start, 0.0, rng) == start
    changed: Counter[str] = Counter()
    for _ in range(DRAWS):
        mutant = mutate(MIXED, start, 0.25, rng)
        changed.update(name for name in MIXED.genes if getattr(mutant, name) != value(start, name))
    for name in ("target_modules", "use_dora", "learning_rate", "dropout"):
        assert changed[name] / DRAWS == pytest.approx(0.25, abs=0.03)


def value(genes: Genes, name: str) -> Any:
    return getattr(genes, name)


# -- simulated binary crossover ------------------------------------------------------------------


def spread_cdf(beta: Any, eta: float) -> Any:
    """P(spread factor <= beta), from equations 6 and 7 of Deb and Agrawal 1995."""
    beta = np.asarray(beta, dtype=float)
    with np.errstate(divide="ignore"):
        return np.where(
            beta <= 1, 0.5 * beta ** (eta + 1), 1 - 0.5 * np.maximum(beta, 1) ** -(eta + 1)
        )


@pytest.mark.parametrize(
    ("u1", "u2"), [(0.45, 0.55), (0.9, 0.5), (0.0, 0.2), (0.05, 0.3), (0.97, 0.99), (0.0, 1.0)]
)
@pytest.mark.parametrize("toward_low", [True, False])
def test_sbx_spreads_as_the_paper_s_distribution_cut_off_at_the_bounds(
    u1: float, u2: float, toward_low: bool
) -> None:
    draws = (np.arange(DRAWS) + 0.5) / DRAWS
    side = 0.2 if toward_low else 0.8
    children = np.array([sbx(u1, u2, Scripted(draw, side)) for draw in draws])
    middle, half = (u1 + u2) / 2, abs(u1 - u2) / 2
    beta = abs(children - middle) / half
    assert ((children <= middle) == toward_low).all()
    room = (middle - 0.0 if toward_low else 1.0 - middle) / half  # where beta meets the bound
    found = kstest(
        beta,
        lambda b: np.minimum(spread_cdf(b, SBX_ETA) / spread_cdf(room, SBX_ETA), 1),
    )
    assert found.statistic < 1e-3


@given(st.floats(0.001, 0.499), st.floats(0, 1, exclude_max=True))
def test_the_two_children_of_a_draw_have_their_parents_mean(half: float, draw: float) -> None:
    """Where both bounds are equally far: elsewhere each side is cut off by itself."""
    low, high = 0.5 - half, 0.5 + half
    children = [sbx(low, high, Scripted(draw, side)) for side in (0.2, 0.8)]
    assert sum(children) / 2 == pytest.approx(0.5)


def test_half_of_the_children_lie_between_their_parents_and_both_sides_are_as_likely() -> None:
    rng = np.random.default_rng(1)
    children = np.array([sbx(0.48, 0.52, rng) for _ in range(DRAWS)])
    assert np.mean((children > 0.48) & (children < 0.52)) == pytest.approx(0.5, abs=0.03)
    assert np.mean(children < 0.5) == pytest.approx(0.5, abs=0.03)


def test_sbx_varies_half_of_the_genes_and_leaves_the_others_as_the_first_parent_has_them() -> None:
    rng = np.random.default_rng(2)
    gene = Continuous(0.0, 1.0, False)
    children = [crossed(gene, 0.3, 0.7, rng) for _ in range(DRAWS)]
    assert np.mean([child == 0.3 for child in children]) == pytest.approx(0.5, abs=0.03)


# -- polynomial mutation -------------------------------------------------------------------------


def mutation_cdf(delta: Any, u: float, eta: float) -> Any:
    """P(step <= delta) from u: the polynomial density 0.5 (eta + 1) (1 - |delta|)^eta of Deb and
    Goyal 1996, on either side scaled to a half where the bound cuts it off."""
    below, above = (1 - u) ** (eta + 1), u ** (eta + 1)
    down = ((1 + np.minimum(delta, 0)) ** (eta + 1) - below) / (2 * (1 - below))
    up = 1 - ((1 - np.maximum(delta, 0)) ** (eta + 1) - above) / (2 * (1 - above))
    return np.where(np.asarray(delta) < 0, down, up)


@pytest.mark.parametrize("u", [0.5, 0.01, 0.1, 0.93, 0.999])
def test_polynomial_mutation_is_distributed_as_the_paper_has_it(u: float) -> None:
    draws = (np.arange(DRAWS) + 0.5) / DRAWS
    steps = np.array([polynomial_mutation(u, Scripted(draw)) - u for draw in draws])
    assert kstest(steps, lambda delta: mutation_cdf(delta, u, MUTATION_ETA)).statistic < 1e-3
    assert (steps < 0).mean() == pytest.approx(0.5)


@given(units, st.floats(0.001, 0.999))
def test_polynomial_mutation_mirrors(u: float, draw: float) -> None:
    there = polynomial_mutation(u, Scripted(draw))
    back = polynomial_mutation(1 - u, Scripted(1 - draw))
    assert there == pytest.approx(1 - back, abs=1e-9)


# -- choices -------------------------------------------------------------------------------------


@given(ordered, units)
def test_ordered_choices_move_one_step_and_mutation_favours_none(gene: Ordered, u: float) -> None:
    """Up and down are as likely; a step leads back, and one beyond an end stays there. So the
    chance to come from a value to another equals that of the way back."""
    start = gene.decode(u)
    place = gene.values.index(start)
    for draws, step in (((0.0, 0.49), 1), ((0.0, 0.51), -1)):
        moved = mutate_values({"g": gene}, {"g": start}, 1.0, Scripted(*draws))["g"]
        expected = place + step
        if 0 <= expected < len(gene.values):
            assert moved == gene.values[expected]
            back = (0.0, 0.51 if step == 1 else 0.49)
            assert mutate_values({"g": gene}, {"g": moved}, 1.0, Scripted(*back))["g"] == start
        else:
            assert moved == start


def shares(values: Iterable[Any]) -> dict[Any, float]:
    counts = Counter(values)
    return {name: count / counts.total() for name, count in counts.items()}


def test_unordered_choices_become_each_other_value_equally_often() -> None:
    rng = np.random.default_rng(0)
    gene = Categorical(("a", "b", "c", "d"))
    found = shares(mutated(gene, "b", rng) for _ in range(DRAWS))
    assert found == {name: pytest.approx(1 / 3, abs=0.03) for name in "acd"}
    assert mutated(Categorical(("a",)), "a", rng) == "a"


@pytest.mark.parametrize("gene", [Categorical(("a", "b", "c")), Ordered((2, 8, 16))])
def test_crossover_of_choices_is_uniform(gene: Gene) -> None:
    rng = np.random.default_rng(0)
    first, second = gene.decode(0.0), gene.decode(1.0)
    found = shares(crossed(gene, first, second, rng) for _ in range(DRAWS))
    assert found == {name: pytest.approx(0.5, abs=0.03) for name in (first, second)}


def test_genes_are_crossed_independently() -> None:
    rng = np.random.default_rng(3)
    pair = {"a": Categorical((0, 1)), "b": Categorical((0, 1))}
    children = [cross_values(pair, {"a": 0, "b": 0}, {"a": 1, "b": 1}, rng) for _ in range(DRAWS)]
    mixed = shares((child["a"], child["b"]) for child in children)
    assert all(share == pytest.approx(0.25, abs=0.03) for share in mixed.values())


@pytest.mark.parametrize(
    "gene", [Integer(1, 4, log=False), Integer(1, 4, log=True), Integer(7, 8, log=False)]
)
def test_a_whole_number_in_a_narrow_range_becomes_another(gene: Integer) -> None:
    rng = np.random.default_rng(3)
    for value in range(gene.low, gene.high + 1):
        found = Counter(mutate_values({"n": gene}, {"n": value}, 1.0, rng)["n"] for _ in range(500))
        assert value not in found
        assert all(gene.contains(other) for other in found)
        inside = gene.low < value < gene.high
        if inside and not gene.log:  # to either side equally often
            above = sum(count for other, count in found.items() if other > value)
            assert above / 500 == pytest.approx(0.5, abs=0.07)


def test_a_range_of_one_whole_number_stays() -> None:
    rng = np.random.default_rng(3)
    assert mutate_values({"n": Integer(3, 3, log=False)}, {"n": 3}, 1.0, rng) == {"n": 3}


# -- the learning rate ---------------------------------------------------------------------------


def test_every_child_has_another_rate_near_its_parents() -> None:
    rate = {"low": 1e-6, "high": 1.0, "log": True}
    space = make_space(learning_rate=rate)
    rng = generator(1, "rates")
    for generation, spread in ((1, 0.3), (4, 0.15)):
        moved = [
            moved_rate(space.genes, {"learning_rate": 1e-3}, generation, rng)["learning_rate"]
            for _ in range(2_000)
        ]
        decades = np.log10(moved) + 3
        assert np.mean(decades) == pytest.approx(0.0, abs=0.02)
        assert np.std(decades) == pytest.approx(spread, rel=0.06)


def test_a_moved_rate_stays_in_its_range() -> None:
    genes = make_space(learning_rate={"low": 1e-4, "high": 2e-4, "log": True}).genes
    rng = generator(1, "rates")
    rates = [moved_rate(genes, {"learning_rate": 2e-4}, 1, rng)["learning_rate"] for _ in range(99)]
    assert (min(rates), max(rates)) == (1e-4, 2e-4)


@pytest.mark.parametrize(
    "rate", [{"choices": [1e-4, 1e-3]}, {"low": 1e-4, "high": 1e-3, "log": False}]
)
def test_rates_on_no_log_scale_vary_like_other_genes(rate: dict[str, Any]) -> None:
    genes = make_space(learning_rate=rate).genes
    assert moved_rate(genes, {"learning_rate": 1e-3}, 1, generator(1, "rates")) == {}
