"""Which derivations are tried, on response curves that are known: few looks, and the good ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest

from coralx.config.conditions import parse_constraint
from coralx.config.evolution import Objective
from coralx.records.derivations import Derivation, Operator
from coralx.records.genomes import Genes, Genome
from coralx.records.run_facts import Axis
from coralx.search.derivation_aims import UNTRIED, Aims, Finisher, Look, lower_ranks
from coralx.search.derivation_lines import next_cut, next_factor
from coralx.search.derivations import propose
from coralx.search.space import Categorical, Gene, Integer, Ordered

SKILL = Objective(metric="auroc", direction="maximize")
SIZE = Objective(metric="trainable_parameters", direction="minimize")
CALIBRATION = Objective(metric="calibration", direction="minimize")
AXES = {
    "auroc": Axis("auroc", "maximize", "linear", 0.0, 1.0),
    "trainable_parameters": Axis("trainable_parameters", "minimize", "log", 1e3, 64e3),
    "calibration": Axis("calibration", "minimize", "linear", 0.0, 1.0),
}
RANKS = Ordered((1, 2, 4, 8, 16))


def aims(*objectives: Objective, constraints: Sequence[str] = (), rank: object = RANKS) -> Aims:
    listed = objectives or (SKILL, SIZE)
    return Aims(
        objectives=listed,
        constraints=tuple(parse_constraint(text) for text in constraints),
        axes=tuple(AXES[one.metric] for one in listed),
        operators=UNTRIED,
        rank=rank,  # type: ignore[arg-type]
        first_group=0.0,
        further_group=0.0,
    )


@dataclass(frozen=True)
class World:
    """What an adapter is worth: its skill falls off as (λ - best)² and below an effective rank."""

    best_factor: float = 1.0
    effective_rank: int = 1
    soup_gain: float = 0.0
    curvature: float = 0.1
    calibrated: float = 1.0

    def figures(self, skill: float, factor: float, rank: float, size: float) -> dict[str, float]:
        halvings = max(0.0, self.effective_rank / rank - 1.0)
        off = (factor - self.best_factor) ** 2 - (1.0 - self.best_factor) ** 2
        return {
            "auroc": skill - self.curvature * off - 0.04 * halvings,
            "trainable_parameters": size,
            "calibration": 0.05 + 0.1 * (factor - self.calibrated) ** 2,
        }


def finisher(
    name: str, skill: float, rank: int = 8, world: World = World(), **genes: object
) -> Finisher:
    genome = Genome(name, 0, Genes(rank=rank, **genes))  # type: ignore[arg-type]
    return Finisher(genome, world.figures(skill, 1.0, rank, 1e3 * rank))


class Play:
    """A phase after a phase, scored by a world."""

    def __init__(self, aims: Aims, world: World, trained: list[Finisher]) -> None:
        self.aims, self.world, self.trained = aims, world, trained
        self.looks: list[Look] = []
        self._made = {
            one.genome.id: (one.metrics["auroc"] or 0.0, 1.0, float(one.genome.genes.rank),
                            one.metrics["trainable_parameters"] or 0.0)
            for one in trained
        }  # fmt: skip

    def phase(self, generation: int, most: int, at_once: int = 2) -> list[Look]:
        before = len(self.looks)
        while (left := most - (len(self.looks) - before)) > 0:
            found = propose(
                self.aims, self.trained, self.looks, generation, most=at_once, left=left
            )
            if not found:
                break
            assert len(set(found)) == len(found) <= min(at_once, left)
            tried = [replace(look.genome.derived or found[0], groups=()) for look in self.looks]
            assert not set(found) & set(tried)
            self.looks += [
                self._score(one, f"d{generation:02d}-{len(self.looks) + k:02d}", generation)
                for k, one in enumerate(found)
            ]
        return self.looks[before:]

    def _score(self, derivation: Derivation, name: str, generation: int) -> Look:
        parts = [self._made[source] for source in derivation.sources]
        skill, factor, rank, size = parts[0]
        match derivation.operator:
            case "scale":
                factor *= derivation.factor or 1.0
            case "truncate":
                size *= (derivation.rank or 1) / rank
                rank = float(derivation.rank or 1)
            case "compress":
                size, rank = size * (derivation.share or 1), 1.5 * rank * (derivation.share or 1)
            case "drop":
                size, skill = size * 0.8, skill - 0.02
            case "soup":
                size, skill = max(p[3] for p in parts), sum(p[0] for p in parts) / len(parts)
                skill += self.world.soup_gain
        self._made[name] = skill, factor, rank, size
        known = [finisher.genome for finisher in self.trained]
        known += [look.genome for look in self.looks]
        source = next(genome for genome in known if genome.id == derivation.sources[0])
        genes = replace(source.genes, rank=derivation.rank or source.genes.rank)
        genome = Genome(name, generation, genes, derived=derivation)
        return Look(genome, self.world.figures(skill, factor, rank, size))

    def best(self, metric: str = "auroc") -> float:
        scored = [look.metrics for look in self.looks if look.metrics is not None]
        return max(figures[metric] or 0.0 for figures in scored)


def operators(looks: Sequence[Look]) -> list[Operator]:
    return [look.genome.derived.operator for look in looks if look.genome.derived is not None]


# -- one parameter ---------------------------------------------------------------------------------


def minimum(curve: Callable[[float], float], first: float = 0.75) -> tuple[float, int]:
    """The best factor that is found, and after how many looks."""
    known = {1.0: curve(1.0)}
    while (factor := next_factor(known, first)) is not None:
        assert 0.5 <= factor <= 1.5
        known[factor] = curve(factor)
    return min(known, key=known.__getitem__), len(known) - 1


@pytest.mark.parametrize("best", [0.55, 0.6, 0.7, 0.75, 0.85, 0.9, 1.1, 1.2, 1.25, 1.4])
def test_the_best_factor_is_found_in_four_looks(best: float) -> None:
    found, looks = minimum(lambda factor: (factor - best) ** 2)
    assert abs(found - best) <= 0.05
    assert looks <= 4


@pytest.mark.parametrize("best", [0.65, 0.8, 1.15, 1.35])
def test_a_curve_with_a_kink_is_no_obstacle(best: float) -> None:
    found, looks = minimum(lambda factor: abs(factor - best) * (1.0 if factor < best else 2.0))
    assert abs(found - best) <= 0.12
    assert looks <= 6


def test_what_is_best_as_trained_costs_two_looks() -> None:
    assert minimum(lambda factor: abs(factor - 1.0)) == (1.0, 2)


def test_a_search_begins_where_an_earlier_one_ended() -> None:
    assert minimum(lambda factor: (factor - 0.6) ** 2, first=0.6)[1] <= 3


@pytest.mark.parametrize("knee", range(6))
def test_the_deepest_cut_that_holds_is_found_by_bisection(knee: int) -> None:
    ladder, known = (1, 2, 4, 8, 16), dict[float, bool]()
    while (cut := next_cut(ladder, known)) is not None:
        known[cut] = ladder.index(int(cut)) >= knee
    assert len(known) <= 3
    assert [cut for cut, holds in known.items() if holds][-1:] == list(ladder[knee : knee + 1])


def test_what_another_adapter_bore_is_tried_first() -> None:
    assert next_cut((1, 2, 4, 8), {}, first=2) == 2
    assert next_cut((1, 2, 4, 8), {}, first=3) == 4  # no rung of this ladder


# -- a phase ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("best", [0.7, 1.2])
def test_scaling_is_found_and_what_follows_starts_from_it(best: float) -> None:
    world = World(best_factor=best, effective_rank=2)
    play = Play(aims(), world, [finisher("a", 0.9, 16), finisher("b", 0.8, 4)])
    play.phase(0, most=12)
    by_factor = {
        look.genome.derived.factor: look
        for look in play.looks
        if look.genome.derived is not None and look.genome.derived.operator == "scale"
    }
    nearest = min(by_factor, key=lambda factor: abs((factor or 0.0) - best))
    assert abs((nearest or 0.0) - best) <= 0.1
    cut = [look.genome.derived for look in play.looks if look.genome.derived]
    smaller = [one for one in cut if one.operator in ("truncate", "compress")]
    assert any(one.sources[0].startswith("d") for one in smaller)


def test_ranks_are_cut_to_what_is_needed_and_are_ranks_of_the_space() -> None:
    play = Play(aims(), World(effective_rank=2), [finisher("a", 0.9, 16)])
    play.phase(0, most=10)
    ranks = [one.genome.derived.rank for one in play.looks if one.genome.derived]
    assert 2 in ranks
    assert {rank for rank in ranks if rank is not None} <= {1, 2, 4, 8}


def test_where_nothing_helps_the_looks_end_early() -> None:
    """Every figure is as good as it gets, and cutting ruins it."""
    ruinous = World(best_factor=1.0, effective_rank=64, curvature=3.0)
    play = Play(aims(SKILL), ruinous, [finisher("a", 0.9, 8), finisher("b", 0.5, 8)])
    assert operators(play.phase(0, most=50)) == ["scale", "soup", "scale", "soup"]
    assert len(play.phase(1, most=50)) <= 2
    assert len(play.phase(2, most=50)) <= 2


def test_an_operator_that_pays_gets_more_of_the_next_looks() -> None:
    play = Play(aims(SKILL), World(soup_gain=0.05), [finisher(n, 0.9) for n in "abcd"])
    play.phase(0, most=4)
    play.phase(1, most=4, at_once=1)
    tried = operators(play.looks)
    assert tried.count("soup") > tried.count("scale")


def test_the_first_cut_is_the_deepest_and_what_held_is_tried_on_the_next() -> None:
    play = Play(aims(), World(effective_rank=1), [finisher("a", 0.9, 16), finisher("b", 0.8, 8)])
    play.phase(0, most=1)
    (first,) = play.looks
    assert first.genome.derived == Derivation("truncate", ("a",), rank=1)
    play = Play(aims(), World(effective_rank=4), [finisher("a", 0.9, 16)])
    play.aims = replace(play.aims, operators=("truncate",))
    play.phase(0, most=9, at_once=1)
    ranks = [one.genome.derived.rank for one in play.looks if one.genome.derived]
    assert ranks == [1, 4, 2]


def test_where_looks_are_few_one_that_pays_goes_on_before_all_were_tried() -> None:
    trained = [finisher("a", 0.9, 16), finisher("b", 0.8, 16)]
    play = Play(aims(), World(effective_rank=8), trained)
    play.phase(0, most=4)
    assert operators(play.looks).count("truncate") >= 2


# -- what is wanted --------------------------------------------------------------------------------


def first_operators(aims: Aims, trained: Sequence[Finisher], most: int = 8) -> list[Operator]:
    return [one.operator for one in propose(aims, trained, [], 0, most=most, left=99)]


TWO = [finisher("a", 0.9), finisher("b", 0.8)]


def test_without_a_wish_for_small_adapters_none_is_cut() -> None:
    assert set(first_operators(aims(SKILL), TWO)) == {"scale", "soup"}
    assert set(first_operators(aims(SKILL, CALIBRATION), TWO)) == {"scale", "soup"}
    bounded = aims(SKILL, constraints=["trainable_parameters <= 2000"])
    assert set(first_operators(bounded, TWO)) == set(UNTRIED)


def test_where_size_alone_is_wanted_nothing_is_scaled() -> None:
    assert set(first_operators(aims(SIZE), TWO)) == {"truncate", "compress", "drop"}


def test_where_a_figure_of_training_is_wanted_nothing_is_derived() -> None:
    """A derived adapter has none, so it would never be on the front."""
    assert first_operators(aims(constraints=["train_loss <= 0.7"]), TWO) == []


def test_without_finishers_there_is_nothing_to_derive_from() -> None:
    assert first_operators(aims(), []) == []
    unknown = Finisher(Genome("a", 0, Genes()), {"auroc": None})
    assert propose(aims(SKILL), [unknown], [], 0, most=8, left=99) == []


def test_what_is_left_is_not_spent_on_what_costs_more() -> None:
    """To find the groups that are worth least takes trials, which cost as much as looks."""
    dear = replace(aims(), first_group=3.5, further_group=0.75)
    assert [dear.cost(Derivation("drop", ("a",), count=count)) for count in (1, 2)] == [5, 6]
    all_five = propose(dear, TWO, [], 0, most=8, left=28)
    assert [one.operator for one in all_five] == ["truncate", "scale", "soup", "compress", "drop"]
    too_dear = propose(dear, TWO, [], 0, most=8, left=27)
    assert {"scale", "truncate", "soup", "compress"} == {one.operator for one in too_dear}
    assert len(propose(dear, TWO, [], 0, most=8, left=3)) == 3


def test_operators_that_are_off_are_not_taken() -> None:
    only = replace(aims(), operators=("soup", "truncate"))
    assert set(first_operators(only, TWO)) == {"soup", "truncate"}


def test_a_second_objective_moves_the_factor_too() -> None:
    world = World(best_factor=1.0, calibrated=0.6)
    play = Play(aims(SKILL, CALIBRATION), world, [finisher("a", 0.9, world=world)])
    play.phase(0, most=8, at_once=1)
    assert min(look.metrics["calibration"] or 1.0 for look in play.looks if look.metrics) < 0.052


def test_who_meets_the_constraints_is_the_first_source() -> None:
    trained = [finisher("a", 0.9, 16), finisher("b", 0.8, 4)]
    bounded = aims(constraints=["trainable_parameters <= 5000"])
    assert [one.sources for one in propose(bounded, trained, [], 0, most=1, left=99)] == [("b",)]


# -- sources ---------------------------------------------------------------------------------------


def test_dora_and_heads_are_no_sources() -> None:
    odd = [finisher("a", 0.9, use_dora=True), finisher("b", 0.8, target_modules=())]
    assert propose(aims(), odd, [], 0, most=8, left=99) == []
    found = propose(aims(), [*odd, finisher("c", 0.7)], [], 0, most=8, left=99)
    assert {source for one in found for source in one.sources} == {"c"}


def test_what_was_dropped_since_is_no_source_but_still_to_be_beaten() -> None:
    gone = replace(finisher("a", 0.9), is_source=False)
    found = propose(aims(), [gone, finisher("b", 0.8)], [], 0, most=8, left=99)
    assert {source for one in found for source in one.sources} == {"b"}


def test_a_soup_needs_two_that_adapt_the_same_modules() -> None:
    other = finisher("b", 0.8, target_modules=("query", "value"))
    assert "soup" not in first_operators(aims(SKILL), [finisher("a", 0.9), other])
    higher = finisher("b", 0.8, layers="top-half")
    assert "soup" not in first_operators(aims(SKILL), [finisher("a", 0.9), higher])
    third = finisher("c", 0.7, 16)
    found = propose(aims(SKILL), [finisher("a", 0.9), other, third], [], 0, most=8, left=99)
    assert Derivation("soup", ("a", "c"), rank=16, weights=(0.5, 0.5)) in found


def test_a_soup_is_of_those_that_began_with_the_same_weights() -> None:
    strangers = [replace(finisher(name, 0.9), descent=name) for name in "ab"]
    assert "soup" not in first_operators(aims(SKILL), strangers)
    child = replace(finisher("c", 0.7), descent="b")
    found = propose(aims(SKILL), [*strangers, child], [], 0, most=8, left=99)
    assert [one.sources for one in found if one.operator == "soup"] == [("b", "c")]


def test_a_soup_is_scaled_and_then_cut_and_never_the_other_way_round() -> None:
    world = World(best_factor=0.7, soup_gain=0.05, effective_rank=2)
    play = Play(aims(), world, [finisher("a", 0.9), finisher("b", 0.89)])
    play.phase(0, most=8)
    play.phase(1, most=8)
    made = {one.genome.id: one.genome.derived for one in play.looks if one.genome.derived}
    chains = set()
    for derivation in made.values():
        chain: list[str] = [derivation.operator]
        source = made.get(derivation.sources[0])
        while source is not None:
            chain.append(source.operator)
            source = made.get(source.sources[0])
        chains.add(tuple(reversed(chain)))
    assert ("soup", "scale", "truncate") in chains or ("soup", "scale", "compress") in chains
    assert all(len(chain) <= 3 for chain in chains)
    for made_by in chains:
        places = [{"soup": 0, "scale": 1}.get(operator, 2) for operator in made_by]
        assert places == sorted(set(places)), made_by


def test_a_derivation_that_failed_is_not_tried_again() -> None:
    only = replace(aims(SKILL), operators=("soup",))
    (first,) = propose(only, TWO, [], 0, most=1, left=99)
    failed = Look(Genome("d", 0, Genes(), derived=first), None)
    (second,) = propose(only, TWO, [failed], 0, most=1, left=99)
    assert second != first
    again = Look(Genome("e", 0, Genes(), derived=second), None)
    # Two in a row that moved nothing.
    assert propose(only, TWO, [failed, again], 0, most=1, left=99) == []


@pytest.mark.parametrize(
    ("gene", "ladder"),
    [
        (Ordered((2, 4, 8, 16)), (2, 4)),
        (Integer(3, 20, log=False), (3, 4)),
        (Integer(8, 64, log=True), ()),
        (None, ()),
        (Categorical((1,)), ()),
    ],
)
def test_the_ladder_has_ranks_of_the_space_alone(
    gene: Gene | None, ladder: tuple[int, ...]
) -> None:
    assert lower_ranks(gene, 8) == ladder


# -- cases that nothing was tuned on ---------------------------------------------------------------


@pytest.mark.parametrize("best", [0.62, 0.83, 1.07, 1.33])
@pytest.mark.parametrize("effective", [1, 4, 8])
def test_ten_looks_come_near_the_best_that_there_is(best: float, effective: int) -> None:
    world = World(best_factor=best, effective_rank=effective, soup_gain=-0.02, curvature=0.2)
    play = Play(aims(), world, [finisher("a", 0.88, 16), finisher("b", 0.86, 8)])
    play.phase(0, most=5)
    play.phase(1, most=5)
    reachable = 0.88 + 0.2 * (1.0 - best) ** 2
    gained = (play.best() - 0.88) / (reachable - 0.88)
    assert gained >= (0.7 if abs(best - 1.0) > 0.1 else 0.0)
    held = [
        look.metrics["trainable_parameters"] or 1e9
        for look in play.looks
        if look.metrics and (look.metrics["auroc"] or 0.0) >= 0.87
    ]
    assert min(held) <= 2e3 * effective
