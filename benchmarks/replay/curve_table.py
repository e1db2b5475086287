"""A table of recorded learning curves, as a space to search and a price for every look.

One row is one checkpoint of one configuration. The last checkpoint of a configuration counts as
100 % of its budget, also where training was stopped early and curves differ in length. Training is
counted in steps where the table tells them, else in checkpoints.
"""

from __future__ import annotations

import csv
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from coralx.errors import UsageError
from coralx.text import did_you_mean

CORALX_GENES = {
    "lora_rank": "rank",
    "alpha_ratio": "alpha_ratio",
    "dropout": "dropout",
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
    "warmup_ratio": "warmup_ratio",
    "batch_size": "batch_size",
}
"""Columns of numbers that are genes of CoralX's own, in its names."""

WHOLE = ("lora_rank", "batch_size")
FURTHER_GENES = ("base_model", "hidden_size", "layers", "target_modules", "dataset_size")
"""Known columns that CoralX has no gene of its own for: together they are one choice."""

MAXIMISED = ("bleu", "auroc", "accuracy", "f1", "precision", "recall")
MINIMISED = ("perplexity", "eval_loss", "loss", "calibration")
CHOICE = "choice"

Point = tuple[int, ...]


@dataclass(frozen=True)
class Gene:
    """One dimension of the space; its values ascend where they are ordered."""

    name: str
    values: tuple[float, ...] | tuple[str, ...]
    is_ordered: bool


@dataclass(frozen=True)
class Table:
    """Configurations by number. `points` place each in `genes`; `curves` are the metric at each
    checkpoint, turned so that lower is better, and `costs` what is trained by then, ascending;
    `parameters` are proportional to the adapter's."""

    genes: tuple[Gene, ...]
    points: tuple[Point, ...]
    curves: tuple[tuple[float, ...], ...]
    costs: tuple[tuple[int, ...], ...]
    parameters: tuple[float, ...]
    unit: str = "checkpoints"
    _found: dict[Point, int] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._found.update({point: place for place, point in enumerate(self.points)})

    def __len__(self) -> int:
        return len(self.points)

    @property
    def is_grid(self) -> bool:
        """Whether every combination of values is in the table."""
        return len(self) == math.prod(len(gene.values) for gene in self.genes)

    @property
    def full_training(self) -> Fraction:
        """The cost of one configuration trained to its end, on average: the unit of budgets."""
        return Fraction(sum(cost[-1] for cost in self.costs), len(self))

    def full_loss(self, config: int) -> float:
        """The metric at the configuration's last checkpoint, lower is better."""
        return self.curves[config][-1]

    def checkpoint(self, config: int, share: Fraction) -> int:
        """The place of the first checkpoint at which `share` of the budget is trained."""
        costs = self.costs[config]
        return bisect_left(costs, share * costs[-1])

    def config_at(self, point: Point) -> int:
        """The configuration at `point`, or, where the table has none there, the nearest: by places
        between ordered values, and 0 or 1 for others (Gower 1971); the first of equals."""
        if point not in self._found:
            self._found[point] = min(
                range(len(self)), key=lambda config: (self._distance(point, config), config)
            )
        return self._found[point]

    def _distance(self, point: Point, config: int) -> float:
        return sum(
            abs(a - b) / (len(gene.values) - 1) if gene.is_ordered else float(a != b)
            for gene, a, b in zip(self.genes, point, self.points[config], strict=True)
        )


def read_table(
    path: Path,
    metric: str,
    *,
    direction: str | None = None,
    genes: Sequence[str] = (),
    where: Mapping[str, str] | None = None,
) -> Table:
    """The table in a CSV file. `genes` names its gene columns; without, those known columns that
    vary. `where` keeps the rows that have these values.

    Raises UsageError where the file is no such table.
    """
    rows = _rows(path, [metric, *genes, *(where or {})])
    rows = [row for row in rows if all(row[k] == v for k, v in (where or {}).items())]
    sign = -1.0 if _direction(metric, direction) == "maximize" else 1.0
    configs: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        configs.setdefault(row["config"], []).append(row)
    if len(configs) < 2:
        raise UsageError(
            f"{path}: {len(configs)} configurations; a search needs two or more",
            "Look at what --where keeps." if where else "",
        )
    curves, costs = [], []
    for name, listed in configs.items():
        measured = _curve(path, name, listed, metric)
        curves.append(tuple(sign * value for _, value in measured))
        costs.append(tuple(cost for cost, _ in measured))
    firsts = [listed[0] for listed in configs.values()]
    space, points = _space(path, configs, firsts, genes)
    parameters = tuple(_parameters(row) for row in firsts)
    unit = "steps" if "steps" in rows[0] else "checkpoints"
    return Table(space, tuple(points), tuple(curves), tuple(costs), parameters, unit)


def _rows(path: Path, named: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            rows = list(reader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"{path}: cannot be read ({reason})") from None
    missing = [name for name in ("config", "checkpoint", *named) if name not in columns]
    if missing:
        listed = ", ".join(f"{name!r}{did_you_mean(name, columns)}" for name in missing)
        raise UsageError(
            f"{path}: no column {listed}; it has {', '.join(columns) or 'none'}",
            "See --help for the columns that are read.",
        )
    return rows


def _direction(metric: str, direction: str | None) -> str:
    if direction is not None:
        return direction
    if metric not in MAXIMISED and metric not in MINIMISED:
        raise UsageError(
            f"whether {metric!r} is to be high or low is not known",
            "Say --direction maximize or --direction minimize.",
        )
    return "maximize" if metric in MAXIMISED else "minimize"


def _curve(
    path: Path, config: str, rows: list[dict[str, str]], metric: str
) -> list[tuple[int, float]]:
    """(what is trained by then, the metric) at each checkpoint, in their order."""
    clock = "steps" if "steps" in rows[0] else "checkpoint"
    measured: dict[int, tuple[int, float]] = {}
    for row in rows:
        try:
            checkpoint, time, value = int(row["checkpoint"]), int(row[clock]), float(row[metric])
        except (TypeError, ValueError):
            checkpoint, time, value = 0, 0, math.nan
        if not math.isfinite(value):
            raise UsageError(
                f"{path}: configuration {config}, checkpoint {row['checkpoint']!r}: {clock} is "
                f"{row[clock]!r} and {metric} {row[metric]!r}; both must be finite numbers"
            )
        if checkpoint in measured:
            raise UsageError(
                f"{path}: configuration {config} has checkpoint {checkpoint} twice",
                "Where the table holds several tasks, keep one: --where COLUMN=VALUE",
            )
        measured[checkpoint] = time, value
    curve = [measured[checkpoint] for checkpoint in sorted(measured)]
    times = [time for time, _ in curve]
    if clock == "checkpoint":
        return [(place, value) for place, (_, value) in enumerate(curve, start=1)]
    if times != sorted(set(times)) or times[0] < 1:
        raise UsageError(f"{path}: configuration {config}: steps must grow from 1 upward")
    return curve


def _space(
    path: Path,
    configs: Mapping[str, list[dict[str, str]]],
    firsts: Sequence[Mapping[str, str]],
    named: Sequence[str],
) -> tuple[tuple[Gene, ...], list[Point]]:
    columns = named or [name for name in (*CORALX_GENES, *FURTHER_GENES) if name in firsts[0]]
    for config, rows in configs.items():
        changing = [name for name in columns if len({row[name] for row in rows}) > 1]
        if changing:
            raise UsageError(f"{path}: configuration {config} changes its {changing[0]!r}")
    varying = [name for name in columns if len({row[name] for row in firsts}) > 1]
    if not varying:
        raise UsageError(f"{path}: no gene varies among {', '.join(columns) or 'no columns'}")
    space, places = [], []
    for name in (name for name in varying if name in CORALX_GENES):
        numbers = [_number(path, name, row[name]) for row in firsts]
        values = tuple(sorted(set(numbers)))
        space.append(Gene(name, values, is_ordered=True))
        places.append([values.index(number) for number in numbers])
    others = [name for name in varying if name not in CORALX_GENES]
    if others:
        texts = ["/".join(row[name] for name in others) for row in firsts]
        choices = tuple(dict.fromkeys(texts))
        space.append(Gene(CHOICE, choices, is_ordered=False))
        places.append([choices.index(text) for text in texts])
    points = list(zip(*places, strict=True))
    for place, point in enumerate(points):
        if point in points[:place]:
            same, name = (list(configs)[index] for index in (points.index(point), place))
            raise UsageError(
                f"{path}: configurations {same} and {name} have the same genes "
                f"({', '.join(varying)})",
                "Name what tells them apart with --genes, or keep one set with --where.",
            )
    return tuple(space), points


def _number(path: Path, name: str, text: str) -> float:
    kind = "whole number" if name in WHOLE else "number"
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (name in WHOLE and number != int(number)):
        raise UsageError(f"{path}: {name!r} holds {text!r}, which is no {kind}")
    return number


def _parameters(row: Mapping[str, str]) -> float:
    """Rank times width times depth, as far as the table says; what is left out is a constant."""
    parts = (row[name] for name in ("lora_rank", "hidden_size", "layers") if row.get(name))
    return math.prod(float(part) for part in parts)
