"""What the ledger's events add up to: steps that a genome's weights have seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from coralx.records.derivations import Derivation
from coralx.records.events import (
    DerivationFailed,
    GenerationCompleted,
    GenerationStarted,
    GenomeDerived,
    RunResumed,
    StageCompleted,
)
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


def derive(history: History, name: str, *sources: str) -> Genome:
    derivation = Derivation("soup", sources, rank=4, weights=(1 / len(sources),) * len(sources))
    genome = Genome(name, 2, make_genome("").genes, derived=derivation)
    result = make_result(name, {"auroc": 0.9}, stage="S1", last_step=0)
    result = replace(result, inherited_steps=history.joint_steps(*sources))
    history.apply(GenomeDerived(2, genome, result))
    return genome


def test_a_derived_genome_has_seen_its_sources_steps_and_trained_none() -> None:
    history = family(kept=True)
    steps, genes, born_by_now = history.trained_steps, history.trained_genes(), history.generations
    derive(history, "x", "d", "a")
    derive(history, "y", "x", "b")
    assert (history.own_steps("x"), history.step_of("x")) == (0, 0)
    assert history.lineage_steps("x") == history.lineage_steps("x", "S1") == 155
    assert history.lineage_steps("y") == history.joint_steps("x", "y") == 155
    assert (history.trained_steps, history.trained_genes()) == (steps, genes)
    assert history.generations == born_by_now
    assert history.finished("S1") == ["x", "y"]
    assert [genome.id for genome in history.derived[2]] == ["x", "y"]


def test_a_child_of_a_derived_genome_has_its_steps_as_well() -> None:
    history = family(kept=True)
    derive(history, "x", "a", "b")
    born(history, 3, replace(make_genome("e"), inherits="x"))
    trained(history, "e", 0, 7, inherited=history.lineage_steps("x"))
    assert history.lineage_steps("e") == 87
    assert history.joint_steps("e", "c") == 157  # of "c" 70 are new


def test_a_lineage_begins_with_its_founder_and_a_derivation_with_what_was_trained() -> None:
    history = family(kept=True)
    derive(history, "x", "d", "a")
    derive(history, "y", "x", "b")
    born(history, 3, replace(make_genome("e"), inherits="y"))
    assert [history.founder(genome) for genome in "abcdxye"] == ["a", "b", "a", "a", "a", "a", "a"]
    assert [history.root(genome) for genome in "adxye"] == ["a", "d", "d", "d", "e"]


def test_who_was_derived_and_not_taken_into_the_population_is_left_behind() -> None:
    history = family(kept=True)
    derive(history, "x", "a")
    derive(history, "y", "a")
    assert history.may_give_weights("x")
    history.apply(GenerationCompleted(2, ("y", "d")))
    assert history.may_give_weights("y")
    assert not history.may_give_weights("x")


def test_a_derivation_that_failed_is_remembered_by_later_processes() -> None:
    history = family(kept=True)
    lost = Genome("x", 2, make_genome("").genes, derived=Derivation("scale", ("a",), factor=0.5))
    history.apply(DerivationFailed(2, lost, "died"))
    history.apply(RunResumed(0.1, 1))
    assert history.not_derived["x"].genome == lost
    assert "x" not in history.genomes
