"""What a stage could rank its genomes by: signals of a learning curve's beginning.

Every signal is turned so that higher is better.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from regret import Signal, fixed, rank_sum

LAST = 3
"""Evaluations that a mean or a trend takes: those up to the stage's end, a quarter of it apart."""


@dataclass(frozen=True)
class Curve:
    """One training: figures by point (per cent of its horizon), in order."""

    task: str
    config: int
    points: Mapping[float, Mapping[str, float]]

    def at(self, point: float, figure: str) -> float:
        """NaN where the training did not come so far."""
        return self.points.get(point, {}).get(figure, np.nan)

    def until(self, point: float, figure: str) -> tuple[list[float], list[float]]:
        """Points and figures up to `point`."""
        seen = [place for place in self.points if place <= point]
        return seen, [self.points[place][figure] for place in seen]

    @property
    def full(self) -> float:
        """The full result: AUROC on the test split; 0.5 for a training that diverged."""
        return self.points.get(100.0, {}).get("test_auroc", 0.5)


def read_curves(path: Path) -> dict[str, list[Curve]]:
    """The curves of each task, by configuration."""
    rows: dict[tuple[str, int], dict[float, dict[str, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            points = rows.setdefault((row["task"], int(row["config"])), {})
            figures = {
                name: float(cell)
                for name, cell in row.items()
                if cell and name.endswith(("auroc", "loss", "learning_rate", "lora_rank"))
            }
            points[float(row["point"])] = figures
    curves = [Curve(task, config, points) for (task, config), points in sorted(rows.items())]
    return {
        task: [c for c in curves if c.task == task] for task in sorted({c.task for c in curves})
    }


def _mean(curve: Curve, point: float, figure: str) -> float:
    _, values = curve.until(point, figure)
    return float(np.mean(values[-LAST:])) if curve.at(point, figure) else np.nan


def _trend(curve: Curve, point: float, figure: str) -> float:
    """Least squares over the last evaluations against log time, read off at the horizon's end."""
    points, values = curve.until(point, figure)
    slope, level = np.polyfit(np.log(points[-LAST:]), values[-LAST:], 1)
    return float(level + slope * np.log(100.0))


def _power_law(curve: Curve, point: float, figure: str) -> float:
    """The log of a x^-b at the horizon's end, fitted to all evaluations so far: pow3 of Domhan,
    Springenberg and Hutter (2015) with its asymptote at the figure's best value. AUROC's distance
    from 1 stands in for a loss."""
    points, values = curve.until(point, figure)
    distance = np.asarray(values) if figure == "eval_loss" else 1.0 - np.asarray(values)
    slope, level = np.polyfit(np.log(points), np.log(distance), 1)
    return float(level + slope * np.log(100.0))


SIGNALS: dict[str, Callable[[Curve, float], float]] = {
    "AUROC": lambda curve, point: curve.at(point, "auroc"),
    "loss": lambda curve, point: -curve.at(point, "eval_loss"),
    "training loss": lambda curve, point: -curve.at(point, "train_loss"),
    "AUROC, EMA 0.9": lambda curve, point: curve.at(point, "ema90_auroc"),
    "AUROC, EMA 0.98": lambda curve, point: curve.at(point, "ema98_auroc"),
    "loss, EMA 0.9": lambda curve, point: -curve.at(point, "ema90_eval_loss"),
    "loss, EMA 0.98": lambda curve, point: -curve.at(point, "ema98_eval_loss"),
    "AUROC, mean of last 3": lambda curve, point: _mean(curve, point, "auroc"),
    "loss, mean of last 3": lambda curve, point: -_mean(curve, point, "eval_loss"),
    "AUROC, log-linear": lambda curve, point: _trend(curve, point, "auroc"),
    "loss, log-linear": lambda curve, point: -_trend(curve, point, "eval_loss"),
    "AUROC, power law": lambda curve, point: -_power_law(curve, point, "auroc"),
    "loss, power law": lambda curve, point: -_power_law(curve, point, "eval_loss"),
}
RANK_SUM = "AUROC + loss, rank sum"


def signals_of(curves: list[Curve], point: float) -> dict[str, Signal]:
    """Every signal of a task's curves at a stage's end."""
    values = {
        name: np.asarray([signal(curve, point) for curve in curves])
        for name, signal in SIGNALS.items()
    }
    found = {name: fixed(value) for name, value in values.items()}
    found[RANK_SUM] = rank_sum(values["AUROC"], values["loss"])
    return found
