"""What is not worth a training, and what newborns become instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from coralx.records.genomes import Genes, Genome
from coralx.search.needless import Courses, Needless, Seen
from coralx.search.nsga2 import founders, offspring
from tests.support.factories import make_space
from tests.support.spaces import MIXED, evolution

TRAINED = Genes(rank=16, alpha_ratio=2.0, dropout=0.1, learning_rate=1e-3, weight_decay=0.01)
LAYERS = ("encoder.0.query", "encoder.0.value", "encoder.0.key")


def needless(
    *trained: Genes,
    finished: Sequence[Genes] = (),
    exploded: Sequence[Genes] = (),
    cuts: bool = True,
    layers: Sequence[str] = LAYERS,
) -> Needless:
    courses = Courses((*trained, *finished, *exploded), finished, exploded)
    return Needless(courses, cuts=cuts, layers=layers)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learning_rate": 1.015e-3},
        {"learning_rate": 0.99e-3},
        {"dropout": 0.1 + 1e-9},
        {"dropout": 0.104},
        {"weight_decay": 0.01 + 1e-5},
        {"alpha_ratio": 0.5, "use_rslora": True},  # a scaling of 0.5 x 4, the root of the rank
        {"target_modules": ("key", "query", "value")},  # all that there is
        {"target_modules": ("encoder.0.key", "query", "value")},
    ],
)
def test_equal_trainings_under_other_names_are_repeats(changes: dict[str, Any]) -> None:
    assert replace(TRAINED, **changes) in needless(TRAINED)


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 1.05e-3},
        {"dropout": 0.11},
        {"weight_decay": 0.02},
        {"warmup_ratio": 0.1},
        {"batch_size": 8},
        {"alpha_ratio": 1.0},
        {"use_rslora": True},
        {"use_dora": True},
        {"rank": 32},
        {"target_modules": ("query", "value")},
    ],
)
def test_what_trains_otherwise_is_none(changes: dict[str, Any]) -> None:
    assert replace(TRAINED, **changes) not in needless(finished=[TRAINED])


def test_of_a_head_alone_nothing_of_an_adapter_counts() -> None:
    head = replace(TRAINED, target_modules=())
    known = needless(finished=[head])
    assert replace(head, rank=2, alpha_ratio=1.0, dropout=0.0, use_rslora=True) in known
    assert replace(head, learning_rate=2e-3) not in known


def test_names_of_modules_are_compared_where_no_layers_are_known() -> None:
    known = needless(TRAINED, layers=())
    assert TRAINED in known
    assert replace(TRAINED, target_modules=("key", "query", "value")) not in known


def test_a_lower_rank_of_a_finished_adapter_is_cut_and_not_trained() -> None:
    lower = replace(TRAINED, rank=4, learning_rate=1.01e-3)
    known = needless(finished=[TRAINED])
    assert lower in known
    assert known.is_last_resort(lower)  # where the space has nothing else
    assert lower not in needless(finished=[TRAINED], cuts=False)
    assert lower not in needless(TRAINED)  # it did not finish: there is nothing to cut
    # Nor are others what a cut would make.
    for changes in ({"rank": 32}, {"rank": 4, "learning_rate": 2e-3}, {"rank": 4, "dropout": 0.0}):
        assert replace(TRAINED, **changes) not in known
    with_magnitudes = replace(TRAINED, use_dora=True)
    assert replace(with_magnitudes, rank=4) not in needless(finished=[with_magnitudes])


def test_of_newborns_that_differ_by_the_rank_alone_the_highest_is_trained() -> None:
    known = needless()
    ranks = [4, 16, 8]
    candidates = [replace(TRAINED, rank=rank) for rank in ranks]
    order = known.order(candidates)
    assert [ranks[place] for place in order] == [16, 8, 4]
    known.add(candidates[1])
    assert candidates[0] in known
    assert candidates[2] in known


EXPLODED = [
    replace(TRAINED, learning_rate=rate, rank=rank) for rate, rank in ((4e-3, 8), (3e-3, 2))
]


@pytest.mark.parametrize(
    ("changes", "is_doomed"),
    [
        ({"learning_rate": 4.5e-3}, True),
        ({"learning_rate": 4.5e-3, "rank": 2, "dropout": 0.0}, True),
        ({"learning_rate": 4.5e-3, "alpha_ratio": 4.0}, True),
        ({"learning_rate": 4.5e-3, "batch_size": 8}, True),
        ({"learning_rate": 3.5e-3}, False),  # one exploded below it: that may be chance
        ({"learning_rate": 4.5e-3, "alpha_ratio": 1.0}, False),
        ({"learning_rate": 4.5e-3, "batch_size": 32}, False),
        ({"learning_rate": 4.5e-3, "target_modules": ("query",)}, False),
        ({"learning_rate": 4.5e-3, "use_dora": True}, False),
    ],
)
def test_rates_at_which_two_exploded_are_not_tried_again(
    changes: dict[str, Any], is_doomed: bool
) -> None:
    candidate = replace(TRAINED, **changes)
    known = needless(exploded=EXPLODED)
    assert (candidate in known) == is_doomed
    assert known.is_last_resort(candidate) != is_doomed
    assert candidate not in needless(exploded=EXPLODED[:1])


def test_a_rate_with_which_another_finished_is_tried() -> None:
    bold = replace(TRAINED, learning_rate=5e-3, rank=32)
    assert replace(TRAINED, learning_rate=4.5e-3) not in needless(
        finished=[bold], exploded=EXPLODED
    )


# -- what is born instead ------------------------------------------------------------------------


def test_newborns_avoid_what_is_needless() -> None:
    space = make_space()
    first = founders(space, 8, seed=1)
    genes = [genome.genes for genome in first]
    exploded = [g for g in genes if g.learning_rate > 1e-3]
    courses = Courses(genes, [g for g in genes if g not in exploded], exploded)
    many = evolution(population_size=60, mutation_probability=0.05)
    known = Needless(courses, cuts=True)
    children = offspring(first, known, [], space, many, 1, seed=3)
    assert len(children) == 60
    fresh = Needless(courses, cuts=True)
    for child in sorted(children, key=lambda one: -one.genes.rank):
        assert child.genes not in fresh
        fresh.add(child.genes)


def test_a_search_of_ranks_alone_trains_them_where_nothing_else_is_left() -> None:
    space = make_space(
        rank={"choices": [2, 4, 8]},
        alpha_ratio={"choices": [1]},
        dropout={"choices": [0]},
        learning_rate={"choices": [2e-4]},
    )
    first = founders(space, 1, seed=1)
    known = Needless(Courses([g.genes for g in first], [g.genes for g in first]), cuts=True)
    children = offspring(first, known, [], space, evolution(population_size=4), 1, seed=1)
    assert sorted(genome.genes.rank for genome in (*first, *children)) == [2, 4, 8]


def test_own_recipes_are_trained_as_they_are() -> None:
    own = [replace(Genes(), learning_rate=1e-4, rank=rank) for rank in (2, 4, 8)]
    space = make_space()
    with_rules = founders(space, 6, 1, own, seen=Needless(Courses(()), cuts=True))
    assert [genome.genes for genome in with_rules[:3]] == own


def test_earlier_runs_avoid_equal_genes_alone() -> None:
    parent = Genome("p", 0, TRAINED)
    seen = Seen([TRAINED])
    assert TRAINED in seen
    assert replace(TRAINED, dropout=0.1 + 1e-9) not in seen
    children = offspring([parent], seen, [], MIXED, evolution(), 1, seed=3, revision=3)
    assert all(child.genes in seen for child in children)
