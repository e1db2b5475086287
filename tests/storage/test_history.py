"""What the ledger's events add up to: steps that a genome's weights have seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from coralx.records.events import GenerationStarted, StageCompleted
from coralx.records.genomes import Genome
from coralx.records.results import BlendTrial, Inheritance
from coralx.storage.history import History
from tests.support.factories import make_genome, make_result


def born(history: History, generation: int, *genomes: Genome) -> None:
    named = tuple(replace(genome, generation=generation) for genome in genomes)
    history.apply(GenerationStarted(generation, named))


def trained(
    history: History, genome: str, first: int, last: int, inherited: int = 0, **changes: Any
) -> None:
    result = make_result(genome, last_step=last)
    result = replace(result, first_step=first, inherited_steps=inherited, **changes)
    history.apply(StageCompleted(0, result))


def blend_with(other: str, *, kept: bool) -> Inheritance:
    return Inheritance(4, 0.0, blend=BlendTrial("merge", other, 0.5, 0.7, 0.6, kept))


def family(*, kept: bool) -> History:
    """a and b; c from a, 70 of its own; d from c, or from c and b, 5 of its own."""
    history = History()
    born(history, 0, make_genome("a"), make_genome("b"))
    trained(history, "a", 0, 50)
    trained(history, "b", 0, 30)
    born(history, 1, replace(make_genome("c"), inherits="a"))
    trained(history, "c", 0, 70, inherited=50)
    born(history, 2, replace(make_genome("d"), inherits="c"))
    steps = history.joint_steps("c", "b") if kept else history.lineage_steps("c")
    trained(history, "d", 0, 5, inherited=steps, inheritance=blend_with("b", kept=kept))
    return history


def test_a_blend_has_seen_the_steps_of_both_its_lineages() -> None:
    history = family(kept=True)
    assert history.joint_steps("a", "b") == 80
    assert history.joint_steps("c", "b") == 150
    assert history.lineage_steps("d") == 155


def test_steps_of_common_ancestors_count_once() -> None:
    history = family(kept=True)
    assert history.joint_steps("c", "a") == 120  # c has come through a
    assert history.joint_steps("d", "c") == 155
    assert history.joint_steps("d", "b") == 155  # b is in d already


def test_a_blend_that_was_dropped_is_no_lineage() -> None:
    history = family(kept=False)
    assert history.lineage_steps("d") == 125
    assert history.joint_steps("d", "b") == 155


def test_a_copy_has_seen_its_models_steps_up_to_where_it_took_them_up() -> None:
    history = family(kept=False)
    born(history, 3, replace(make_genome("e"), continues="b", enters=1))
    trained(history, "e", 20, 60, inherited=20)
    assert history.joint_steps("e", "a") == 50 + 20 + 40
    assert history.joint_steps("e", "b") == 30 + 40


def test_a_single_lineage_is_the_same_by_both_counts() -> None:
    history = family(kept=False)
    assert history.joint_steps("d") == history.lineage_steps("d") == 125
