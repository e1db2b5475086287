"""The space: what a config makes of it, and which configurations are the same."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.records.genomes import Genes
from coralx.rng import generator
from coralx.search.needless import Seen
from coralx.search.nsga2 import (
    founders,
    genome_id,
    offspring,
)
from coralx.search.space import Continuous, Integer
from tests.support.factories import make_space, tiny_space
from tests.support.spaces import MIXED, evolution, seeds

units = st.floats(0, 1)


# -- the space -----------------------------------------------------------------------------------


@given(st.integers(1, 500), st.integers(1, 500), st.booleans(), units)
def test_whole_numbers_decode_in_bounds_and_encode_back(
    low: int, span: int, log: bool, u: float
) -> None:
    gene = Integer(low, low + span, log)
    value = gene.decode(u)
    assert low <= value <= low + span
    assert gene.decode(gene.encode(value)) == value
    assert gene.decode(0.0) == low
    assert gene.decode(1.0) == low + span


@given(st.floats(1e-8, 1e3), st.floats(1.01, 1e4), st.booleans(), units)
def test_numbers_decode_in_bounds_and_encode_back(
    low: float, factor: float, log: bool, u: float
) -> None:
    gene = Continuous(low, low * factor, log)
    value = gene.decode(u)
    assert gene.contains(value)
    assert gene.contains(gene.decode(gene.encode(value)))
    assert math.isclose(gene.decode(gene.encode(value)), value, rel_tol=2e-5)


def test_log_scale_has_its_geometric_mean_in_the_middle() -> None:
    assert Continuous(1e-4, 1e-2, True).decode(0.5) == pytest.approx(1e-3)
    assert Continuous(0.0, 0.2, False).decode(0.5) == pytest.approx(0.1)


@given(seeds, st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_latin_hypercube_hits_every_stratum_once(seed: int, count: int) -> None:
    sampled = MIXED.sample(count, np.random.default_rng(seed))
    assert len(sampled) == count
    assert all(MIXED.contains(genes) for genes in sampled)
    for name in ("dropout", "learning_rate"):
        gene = MIXED.genes[name]
        assert isinstance(gene, Continuous)
        coordinates = sorted(gene.encode(getattr(genes, name)) for genes in sampled)
        for place, u in enumerate(coordinates):
            assert place / count - 1e-4 <= u <= (place + 1) / count + 1e-4


def test_latin_hypercube_draws_choices_equally_often() -> None:
    sampled = MIXED.sample(30, np.random.default_rng(3))
    for name, share in (("alpha_ratio", 10), ("target_modules", 10), ("use_dora", 15)):
        values = [getattr(genes, name) for genes in sampled]
        assert {values.count(value) for value in values} == {share}


@pytest.mark.parametrize(
    "outside",
    [{"rank": 65}, {"dropout": 0.31}, {"alpha_ratio": 3.0}, {"weight_decay": 0.1}],
)
def test_genes_outside_the_space_are_recognised(outside: dict[str, Any]) -> None:
    inside = MIXED.build({name: gene.decode(0.5) for name, gene in MIXED.genes.items()})
    assert MIXED.contains(inside)
    assert not MIXED.contains(Genes(**{**vars(inside), **outside}))


def test_genes_that_are_not_searched_are_the_training_section_s() -> None:
    space = make_space(training={"weight_decay": 0.01, "warmup_ratio": 0.1, "batch_size": 4})
    genes = space.sample(1, np.random.default_rng(0))[0]
    assert (genes.weight_decay, genes.warmup_ratio, genes.batch_size) == (0.01, 0.1, 4)


# -- identity ------------------------------------------------------------------------------------


def test_id_depends_on_seed_generation_and_index_only() -> None:
    named = {genome_id(s, g, i) for s in range(3) for g in range(3) for i in range(3)}
    assert len(named) == 27
    assert genome_id(1, 2, 3) == genome_id(1, 2, 3)
    first = founders(MIXED, 5, seed=11)
    other = founders(tiny_space(9), 5, seed=11)
    assert [g.id for g in first] == [g.id for g in other]
    assert [g.id for g in first] == [genome_id(11, 0, index) for index in range(5)]
    children = offspring(first, Seen(), [], MIXED, evolution(), 1, seed=11)
    assert [g.id for g in children] == [genome_id(11, 1, index) for index in range(6)]


# -- the part that is worth training -------------------------------------------------------------


@pytest.mark.parametrize(
    ("rank", "kept"),
    [
        ({"choices": [2, 4, 8, 16, 32]}, {8, 16, 32}),
        ({"choices": [4, 16]}, {16}),
        ({"choices": [8]}, {8}),
        ({"low": 1, "high": 8}, {4, 5, 6, 7, 8}),
        ({"choices": [2, 4, 8, 16], "prior": 4, "spread": 1.0}, {2, 4, 8, 16}),
    ],
)
def test_the_high_ranks_are_the_upper_half(rank: dict[str, Any], kept: set[int]) -> None:
    part = make_space(rank=rank).with_high_ranks()
    sample = part.sample(64, generator(1, "ranks"))
    assert {genes.rank for genes in sample} == kept


def test_newborns_are_of_the_core_whatever_their_parents() -> None:
    space = make_space(rank={"low": 1, "high": 64, "log": True})
    core = space.with_high_ranks()
    first = founders(space, 8, 1, [replace(Genes(), rank=1), replace(Genes(), rank=2)], core=core)
    assert [genome.genes.rank for genome in first][:2] == [1, 2]  # own recipes stay
    assert min(genome.genes.rank for genome in first[2:]) >= 6
    seen = Seen(genome.genes for genome in first)
    children = offspring(first, seen, [], space, evolution(population_size=40), 1, 3, core=core)
    assert min(child.genes.rank for child in children) >= 6
