"""What is derived next from finished adapters: pure, from figures that are known to proposals.

Scoring an adapter is a look at the validation split, and looks are few. So each operator works on
one source at a time, the best first, by a search along its one parameter (`derivation_lines`);
operators get looks by the hypervolume that theirs have gained, and one ends after two in a row that
moved nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from coralx.config.evolution import Objective
from coralx.config.metric_catalogue import standard_error_name
from coralx.records.derivations import Derivation, Operator
from coralx.records.genomes import Genes
from coralx.records.results import Metrics
from coralx.search.derivation_aims import Aims, Finisher, Look, lower_ranks, operator_of
from coralx.search.derivation_gains import Gains, promising
from coralx.search.derivation_lines import FIRST_FACTOR, next_cut, next_factor
from coralx.search.pareto import as_minimised, front, minimised
from coralx.search.ranking import violations

MAY_FOLLOW: Mapping[Operator, tuple[Operator | None, ...]] = {
    "soup": (None,),
    "scale": (None, "soup"),
    "truncate": (None, "soup", "scale"),
    "compress": (None, "soup", "scale"),
    "drop": (None, "soup", "scale"),
}
"""By operator: how what it is applied to was made (None: trained). In any other order, or twice,
they would lead to what one of these compositions is."""

SHARES = 1 / 16, 1 / 8, 1 / 4, 1 / 2
"""Of an adapter's parameters, to which it is compressed."""

COUNTS = 4, 2, 1
"""How many groups of modules are dropped."""

SOUPS: tuple[tuple[float, ...], ...] = (
    (1 / 2, 1 / 2),
    (1 / 3, 1 / 3, 1 / 3),
    (2 / 3, 1 / 3),
    (1 / 4, 1 / 4, 1 / 4, 1 / 4),
    (1 / 2, 1 / 3, 1 / 6),
)
"""Weights of the best finishers, the best first."""

LEFT_FOR_OTHERS = 4
"""What costs more than a look takes at most a quarter of what is left."""

TOLERANCE = 0.01
"""The share of its first figure that an adapter may lose and still be said to bear a cut, where the
figure's standard error is not known."""


def propose(
    aims: Aims,
    trained: Sequence[Finisher],
    looks: Sequence[Look],
    generation: int,
    *,
    most: int,
    left: int,
    gains: Gains | None = None,
) -> list[Derivation]:
    """At most so many derivations that are to be scored next, none of which was before, and which
    cost no more than what is `left`; empty where nothing moves any more. `trained` are the
    finishers up to the generation, in order of birth, `looks` all that was derived so far, in order
    of proposal; `gains` remembers what these brought from one call to the next."""
    scene = _Scene(aims, trained, looks)
    known = (gains or Gains()).of(aims, trained, looks)
    expected = promising(aims, looks, known, generation)
    lines = {operator: scene.lines(operator) for operator in expected}
    taken: Counter[Operator] = Counter()
    proposals: list[Derivation] = []
    while lines and len(proposals) < most:
        # Each further look of a round is expected to bring less: what it tries is the next source.
        operator = max(lines, key=lambda one: (expected[one] / (1 + taken[one]), -taken[one]))
        derivation = next(lines[operator], None)
        if derivation is None:
            del lines[operator]
        elif derivation not in proposals and _is_worth(aims.cost(derivation), left):
            proposals.append(derivation)
            taken[operator] += 1
            left -= aims.cost(derivation)
    return proposals


class _Scene:
    """What is known at one moment."""

    def __init__(self, aims: Aims, trained: Sequence[Finisher], looks: Sequence[Look]) -> None:
        self._aims = aims
        self._trained = trained
        self._looks = looks
        scored = [
            Finisher(look.genome, look.metrics, look.is_source)
            for look in looks
            if look.metrics is not None
        ]
        self._members = [*trained, *scored]
        self._tried = {
            replace(look.genome.derived, groups=()) for look in looks if look.genome.derived
        }

    def lines(self, operator: Operator) -> Iterator[Derivation]:
        """The next derivation by the operator of each source, the best source first."""
        if operator == "soup":
            yield from self._soups()
            return
        for source in self._sources(operator):
            scales = operator == "scale"
            derivation = self._scaled(source) if scales else self._cut(operator, source)
            if derivation is not None:
                yield derivation

    def _sources(self, operator: Operator) -> list[Finisher]:
        """Whom the operator may be applied to: the best on the first objective, then the others of
        the front in that order."""
        able = [
            member
            for member in self._members_by_skill
            if _is_plain(member.genome.genes)
            and member.is_source
            and operator_of(member.genome) in MAY_FOLLOW[operator]
        ]
        return able[:1] + [member for member in able[1:] if member.genome.id in self._front]

    @cached_property
    def _members_by_skill(self) -> list[Finisher]:
        return self._by_skill(self._members)

    def _scaled(self, source: Finisher) -> Derivation | None:
        """The next factor: for the first objective, then for the others that it moves."""
        for objective in self._aims.quality:
            factor = next_factor(self._factors(source, objective), self._first_factor())
            if factor is not None:
                return self._new(Derivation("scale", (source.genome.id,), factor=factor))
        return None

    def _factors(self, source: Finisher, objective: Objective) -> dict[float, float]:
        """The figure of the source by each factor that was tried, 1 among them."""
        return {1.0: _figure(source.metrics, objective)} | {
            derivation.factor or 0.0: _figure(look.metrics, objective)
            for look, derivation in self._derived_from(source, "scale")
        }

    def _first_factor(self) -> float:
        """What was best for the source that was scaled last, or else the usual."""
        latest = self._latest_source("scale")
        if latest is None:
            return FIRST_FACTOR
        known = self._factors(latest, self._aims.quality[0])
        best = min(known, key=lambda factor: (known[factor], factor))
        return FIRST_FACTOR if best == 1.0 else best

    def _latest_source(self, operator: Operator) -> Finisher | None:
        """To whom the operator was applied last."""
        latest = [look.genome.derived for look in self._looks if look.genome.derived]
        sources = [one.sources[0] for one in latest if one.operator == operator]
        return next((one for one in self._members if one.genome.id in sources[-1:]), None)

    def _cut(self, operator: Operator, source: Finisher) -> Derivation | None:
        """The next cut of the source along its operator's ladder."""
        ladder: Sequence[float] = SHARES if operator == "compress" else COUNTS
        if operator == "truncate":
            ladder = lower_ranks(self._aims.rank, source.genome.genes.rank)
        cut = next_cut(ladder, self._cuts(operator, source), self._first_cut(operator, ladder))
        return None if cut is None else self._new(_cut_to(operator, source.genome.id, cut))

    def _cuts(self, operator: Operator, source: Finisher) -> dict[float, bool]:
        """Whether the source bore each cut that was tried."""
        return {
            _depth(derivation): self._holds(source, look)
            for look, derivation in self._derived_from(source, operator)
        }

    def _first_cut(self, operator: Operator, ladder: Sequence[float]) -> float | None:
        """The deepest cut that the latest source bore. Before any, the deepest of all: most of what
        an adapter learns lies in few directions, and no other cut gains as much. Groups of modules
        are another matter."""
        latest = self._latest_source(operator)
        if latest is None:
            return None if operator == "drop" else next(iter(ladder), None)
        cuts = self._cuts(operator, latest)
        borne = [cut for cut, held in cuts.items() if held]
        return max(borne, default=None) if operator == "drop" else min(borne, default=None)

    def _holds(self, source: Finisher, look: Look) -> bool:
        """Whether a cut cost no more than the figure is known to."""
        if not self._aims.quality:
            return look.metrics is not None
        objective = self._aims.quality[0]
        before, after = _figure(source.metrics, objective), _figure(look.metrics, objective)
        error = source.metrics.get(standard_error_name(objective.metric))
        return after <= before + (TOLERANCE * abs(before) if error is None else error)

    def _soups(self) -> Iterator[Derivation]:
        """Means of the best finishers with the next weights: of those that adapt the same modules
        of the same layers and began with the same weights, since others' updates are no steps in
        one direction."""
        kinds: dict[tuple[object, ...], list[Finisher]] = {}
        for member in self._by_skill(self._trained):
            if _is_plain(member.genome.genes) and member.is_source:
                genes = member.genome.genes
                kind = genes.target_modules, genes.layers, member.descent
                kinds.setdefault(kind, []).append(member)
        alike = next((members for members in kinds.values() if len(members) > 1), [])
        for weights in SOUPS:
            best = alike[: len(weights)]
            if len(best) < len(weights):
                continue
            derivation = Derivation(
                "soup",
                tuple(member.genome.id for member in best),
                rank=max(member.genome.genes.rank for member in best),
                weights=weights,
            )
            if derivation not in self._tried:
                yield derivation
                return

    def _by_skill(self, members: Sequence[Finisher]) -> list[Finisher]:
        """Those with a figure on the first objective of quality, the best first."""
        if not self._aims.quality:
            return list(members)
        objective = self._aims.quality[0]
        figures = {one.genome.id: _figure(one.metrics, objective) for one in members}
        missed = violations([one.metrics for one in members], self._aims.constraints)
        ordered = sorted(
            zip(missed.tolist(), members, strict=True),
            key=lambda pair: (pair[0], figures[pair[1].genome.id], pair[1].genome.id),
        )
        return [one for _, one in ordered if math.isfinite(figures[one.genome.id])]

    @cached_property
    def _front(self) -> set[str]:
        figures = [member.metrics for member in self._members]
        return set(
            front(
                [member.genome.id for member in self._members],
                as_minimised(figures, self._aims.objectives),
                violations(figures, self._aims.constraints),
            )
        )

    def _derived_from(self, source: Finisher, operator: Operator) -> list[tuple[Look, Derivation]]:
        """What the operator made of this source alone."""
        return [
            (look, look.genome.derived)
            for look in self._looks
            if look.genome.derived is not None
            and look.genome.derived.operator == operator
            and look.genome.derived.sources == (source.genome.id,)
        ]

    def _new(self, derivation: Derivation) -> Derivation | None:
        return None if derivation in self._tried else derivation


def _is_worth(cost: int, left: int) -> bool:
    """Whether what is left affords a derivation, and what is more than a look does not eat up most
    of it."""
    return cost <= left and (cost == 1 or cost * LEFT_FOR_OTHERS <= left)


def _is_plain(genes: Genes) -> bool:
    """Whether the adapter is an update of the base's weights: DoRA's is more, a head's is none."""
    return genes.adapts_base and not genes.use_dora


def _figure(metrics: Metrics | None, objective: Objective) -> float:
    """To be minimised; infinite where there is none."""
    value = None if metrics is None else metrics.get(objective.metric)
    return math.inf if value is None or math.isnan(value) else minimised(value, objective)


def _cut_to(operator: Operator, source: str, cut: float) -> Derivation:
    match operator:
        case "truncate":
            return Derivation(operator, (source,), rank=int(cut))
        case "compress":
            return Derivation(operator, (source,), share=cut)
        case _:
            return Derivation(operator, (source,), count=int(cut))


def _depth(derivation: Derivation) -> float:
    """The place on its operator's ladder."""
    return derivation.rank or derivation.share or derivation.count or 0
