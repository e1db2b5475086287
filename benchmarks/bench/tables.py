"""The comparison in Markdown and as JSON: medians and ranges over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from contestants import FIXED_LIST, NAMES
from curves import Curve, Finished

EARLY = 2.0
"""Naive trainings after which contestants are compared, beside the end of their time."""

Figure = Callable[[Curve], float | None]


@dataclass(frozen=True)
class Column:
    """A figure of the table, read off each seed's curve; None where it has none."""

    title: str
    figure: Figure
    form: str = ".3g"
    missing: str = "-"
    """What stands for a seed without the figure."""
    worst: float = math.inf
    """The side on which such a seed counts."""


def columns(budget: float, naive: Callable[[Curve], float]) -> list[Column]:
    """Those of the table; `naive` says how long naive training of the same seed took in all."""

    def of_reached(figure: Callable[[Finished], float]) -> Figure:
        return lambda curve: None if curve.reached is None else figure(curve.reached)

    def saving(curve: Curve) -> float:
        return naive(curve) / curve.reached.time if curve.reached else 0.0

    def seconds(curve: Curve) -> float | None:
        return curve.reached.time * curve.seconds if curve.reached else None

    def best(time: float) -> Figure:
        return lambda curve: found.test if (found := curve.best(time)) else None

    never = f"> {budget:g}"
    return [
        Column("time to decision", lambda curve: curve.decided, missing=never),
        Column("time to finished adapter", of_reached(lambda each: each.time), missing=never),
        Column("by CPU seconds", lambda curve: curve.by_cpu, missing=never),
        Column("in s", seconds, ",.0f", "never"),
        Column("naive / it", saving, ".1f"),
        Column("its validation", of_reached(lambda each: each.validation), ".3f", worst=-math.inf),
        Column("its test", of_reached(lambda each: each.test), ".3f", worst=-math.inf),
        Column(f"best test at {EARLY:g}", best(EARLY), ".3f", worst=-math.inf),
        Column(f"best test at {budget:g}", best(budget), ".3f", worst=-math.inf),
        Column(f"hypervolume (test) at {EARLY:g}", lambda curve: curve.volume(EARLY), ".3f"),
        Column(f"hypervolume (test) at {budget:g}", lambda curve: curve.volume(budget), ".3f"),
        Column("steps", lambda curve: curve.steps, ",.0f"),
        Column("tokens", lambda curve: curve.tokens, ",.0f"),
        Column("tokens/s of naive", lambda curve: curve.token_rate, ".2f"),
        Column("utilisation", lambda curve: curve.utilisation, ".0%"),
    ]


def cell(column: Column, curves: Sequence[Curve]) -> str:
    """Median and range over seeds; a seed without the figure counts as worse than all others."""
    found = [column.figure(curve) for curve in curves]
    known = sorted(column.worst if value is None else float(value) for value in found)

    def written(value: float) -> str:
        return format(value, column.form) if math.isfinite(value) else column.missing

    middle = written(median(known))
    return middle if len(known) == 1 else f"{middle} ({written(known[0])} to {written(known[-1])})"


def table(curves: Sequence[Curve], budget: float) -> Iterator[str]:
    """The table of one workload, in Markdown."""
    whole = {curve.seed: curve.end for curve in curves if curve.contestant == NAMES[0]}
    shown = columns(budget, lambda curve: whole[curve.seed])
    yield f"| contestant | {' | '.join(column.title for column in shown)} | seeds |"
    yield "| --- |" + " --- |" * (len(shown) + 1)
    for name in NAMES:
        own = [curve for curve in curves if curve.contestant == name]
        if own:
            cells = [cell(column, own) for column in shown]
            yield f"| {name} | {' | '.join(cells)} | {len(own)} |"


def remarks(curves: Sequence[Curve]) -> Iterator[str]:
    """What makes figures in seconds doubtful, and where wall-clock and CPU seconds disagree."""
    for curve in curves:
        for doubt in curve.doubts:
            yield f"- {curve.contestant}, seed {curve.seed}: {doubt}"
        if curve.reached and curve.by_cpu and curve.contestant not in FIXED_LIST:
            ratio = curve.reached.time / curve.by_cpu
            if not 0.5 <= ratio <= 2.0:
                yield (
                    f"- {curve.contestant}, seed {curve.seed}: {curve.reached.time:.2f} naive "
                    f"trainings by the clock, {curve.by_cpu:.2f} by CPU seconds"
                )


def as_json(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """All of it, for other programs."""
    return [asdict(curve) for curve in curves]
