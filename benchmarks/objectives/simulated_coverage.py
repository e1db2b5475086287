"""How often 95 % intervals cover what they are of, and how often two equal models are told apart.

    python benchmarks/objectives/simulated_coverage.py [--samples 200] [--seed 0] [--rows 100 500]

Scores of the two classes are normal, 1.8 standard deviations apart; a model's probabilities are
those of Bayes' rule at the split's prevalence, so that it is as good as calibrated, and its
log-odds twice those where it is too sure. Validation has as many rows as the test split. One group
in four is worse than the others; each positive row is rewritten in four ways, which succeed
together more often than not. Two equal models see seven tenths of the same. The figures of all
rows are those of a million.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from coralx.metrics.bootstrap import drawn_figures
from coralx.metrics.classification import auroc
from coralx.metrics.compute import task_figures
from coralx.metrics.false_positive_cost import positives, suspicion, threshold
from coralx.metrics.intervals import intervals
from coralx.metrics.paired_differences import difference_interval
from coralx.metrics.robustness import judged_groups
from coralx.metrics.row_scores import RowScores
from coralx.metrics.safety import flagged
from coralx.records.results import Interval

ROWS = (100, 500, 2000)
PREVALENCES = (0.5, 0.1, 0.05)
SKILL = 1.8
WAYS = 4
GROUPS = 4
RESAMPLES = 300
POPULATION = 1_000_000
FEWEST = 50
"""Intervals that have to be shown for a share of them to say anything."""

FIGURES = (
    "auroc",
    "robustness",
    "safety",
    "safety_argmax",
    "false_positive_cost",
    "false_positive_rate_argmax",
    "recall_at_threshold",
    "calibration",
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "brier",
    "eval_loss",
)


@dataclass(frozen=True)
class World:
    """Where rows come from: a prevalence, how well a model does, and how sure it is of itself."""

    prevalence: float
    skill: float
    sureness: float = 1.0

    def probabilities(self, looks: NDArray[np.float64]) -> NDArray[np.float64]:
        """What a model says that sees a normal score a row."""
        odds = np.log(self.prevalence / (1.0 - self.prevalence))
        positive = expit(self.sureness * (self.skill * looks - self.skill**2 / 2.0 + odds))
        return np.column_stack([1.0 - positive, positive])


@dataclass(frozen=True)
class Rows:
    """Test rows, attacks on the positive ones and validation's positive rows, before any model has
    seen them: what all models see alike."""

    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    test: NDArray[np.float64]
    attacks: NDArray[np.float64]
    positives: NDArray[np.float64]


SHARED = 0.7
"""Of the variance of what two models see."""

ATTACKED = 0.6
"""By how much an attack lowers the score."""


def rows_of(world: World, count: int, rng: np.random.Generator) -> Rows:
    """A sample of so many rows, with the prevalence exactly."""
    wanted = max(1, round(world.prevalence * count))
    labels = np.zeros(count, dtype=np.int64)
    labels[:wanted] = 1
    groups = rng.integers(GROUPS, size=count)
    attacked = rng.normal(size=(wanted, 1)) * SHARED**0.5
    attacks = attacked + rng.normal(size=(wanted, WAYS)) * (1 - SHARED) ** 0.5
    return Rows(labels, groups, rng.normal(size=count), attacks.ravel(), rng.normal(size=wanted))


def said_by_a_model(world: World, rows: Rows, rng: np.random.Generator) -> RowScores:
    """A model among equals: it sees what others see, and noise of its own."""

    def seen(shared: NDArray[np.float64]) -> NDArray[np.float64]:
        return SHARED**0.5 * shared + (1 - SHARED) ** 0.5 * rng.normal(size=shared.shape)

    weaker = np.where(rows.groups == 0, 0.7, 1.0)
    test = world.probabilities(seen(rows.test) + world.skill * rows.labels * weaker)
    known = world.probabilities(seen(rows.positives) + world.skill)
    attacked = world.probabilities(seen(rows.attacks) + world.skill - ATTACKED)
    reference = suspicion(known)
    return RowScores(
        test,
        rows.labels,
        groups=rows.groups,
        withstood=flagged(attacked),
        attacked=suspicion(attacked),
        sources=np.repeat(np.arange(len(attacked) // WAYS), WAYS),
        threshold=threshold(reference),
        temperature=1.0,
        positives=reference,
    )


class Truth:
    """The figures of all rows there are."""

    def __init__(self, world: World) -> None:
        rng = np.random.default_rng(987_654_321)
        rows = rows_of(world, POPULATION, rng)
        self._all = said_by_a_model(world, rows, rng)
        self._figures = task_figures(self._all)
        self._areas = [
            auroc(self._all.scores[rows.groups == group], rows.labels[rows.groups == group])
            for group in range(GROUPS)
        ]
        self._positives = np.sort(positives(self._all.scores, rows.labels))

    def of(self, name: str, sample: RowScores) -> float | None:
        """A figure of all rows: the worst of the groups that are judged in the sample, and the
        recall that the sample's own threshold has."""
        if name == "robustness" and sample.groups is not None and sample.labels is not None:
            judged = judged_groups(sample.labels, sample.groups, 2)
            areas = [a for group in judged if (a := self._areas[group]) is not None]
            return min(areas, default=None)
        if name == "recall_at_threshold" and sample.threshold is not None:
            below = np.searchsorted(self._positives, sample.threshold, side="left")
            return 1.0 - float(below) / len(self._positives)
        return self._figures[name]


@dataclass
class Counted:
    """How many intervals there were, how many held, and how many differences looked real."""

    shown: int = 0
    held: int = 0
    outside: int = 0
    compared: int = 0
    alarms: int = 0

    def add(self, found: Interval, truth: float | None, ends: tuple[float, float] | None) -> None:
        if ends is not None:
            self.compared += 1
            self.alarms += not ends[0] <= 0.0 <= ends[1]
        if found.value is None or found.low is None or found.high is None or truth is None:
            return
        self.shown += 1
        self.held += found.low <= truth <= found.high
        self.outside += not found.low <= found.value <= found.high


def simulated(
    world: World, count: int, samples: int, seed: int, names: Sequence[str] = FIGURES
) -> dict[str, Counted]:
    """Coverage of each figure's interval, and false alarms between two equal models."""
    truth = Truth(world)
    found = {name: Counted() for name in names}
    for sample in range(samples):
        rng = np.random.default_rng([seed, sample, count])
        rows = rows_of(world, count, rng)
        pair = [said_by_a_model(world, rows, rng) for _ in range(2)]
        drawn = drawn_figures(dict(enumerate({"": said} for said in pair)), sample, RESAMPLES)
        own = [intervals({"": said}, sample, RESAMPLES) for said in pair]
        for name in names:
            sides = own[0].get(name), own[1].get(name)
            if sides[0] is None or sides[1] is None:
                continue
            ends = None
            if name != "recall_at_threshold":  # equal models have thresholds of their own
                ends = difference_interval(name, *sides, (drawn[0][name], drawn[1][name]))
            found[name].add(sides[0], truth.of(name, pair[0]), ends)
    return found


def language(count: int, samples: int, seed: int) -> Counted:
    """Of the loss of completions of one to sixty tokens, hard ones and easy ones."""

    def completions(rows: int, rng: np.random.Generator) -> list[RowScores]:
        tokens = rng.integers(1, 61, size=rows).astype(np.float64)
        shared = SHARED**0.5 * rng.normal(size=rows)
        losses = [
            tokens * np.exp(0.6 * (shared + (1 - SHARED) ** 0.5 * rng.normal(size=rows)))
            for _ in range(2)
        ]
        return [RowScores(np.column_stack([loss, tokens])) for loss in losses]

    (everything, _) = completions(POPULATION, np.random.default_rng(987_654_321))
    truth = task_figures(everything)["eval_loss"]
    found = Counted()
    for sample in range(samples):
        pair = completions(count, np.random.default_rng([seed, sample, count]))
        drawn = drawn_figures(dict(enumerate({"": said} for said in pair)), sample)
        sides = [intervals({"": said}, sample)["eval_loss"] for said in pair]
        moves = drawn[0]["eval_loss"], drawn[1]["eval_loss"]
        found.add(sides[0], truth, difference_interval("eval_loss", sides[0], sides[1], moves))
    return found


def table(samples: int, seed: int, rows: Sequence[int] = ROWS) -> Iterator[str]:
    """The table of docs/objectives.md: coverage and, behind it, false alarms, in per cent."""
    cells = [(count, prevalence) for count in rows for prevalence in PREVALENCES]
    calibrated = [simulated(World(p, SKILL), count, samples, seed) for count, p in cells]
    sure = [
        simulated(World(p, SKILL, 2.0), count, samples, seed, ("calibration",))
        for count, p in cells
    ]
    yield "| | " + " | ".join(f"{count}, {p:g}" for count, p in cells) + " |"
    yield "| --- |" + " --- |" * len(cells)
    for name in FIGURES:
        yield f"| `{name}` | " + " | ".join(_cell(by[name]) for by in calibrated) + " |"
    shown = " | ".join(_cell(by["calibration"]) for by in sure)
    yield f"| `calibration`, too sure | {shown} |"
    shown = " | ".join(
        _cell(language(count, samples, seed)) if p == PREVALENCES[0] else "" for count, p in cells
    )
    yield f"| `eval_loss`, `perplexity` of sft | {shown} |"


def _cell(found: Counted) -> str:
    if found.shown < FEWEST:
        return "-"
    if found.outside:
        return "outside"
    held = f"{100.0 * found.held / found.shown:.0f}"
    if not found.compared:
        return held
    return f"{held} ({100.0 * found.alarms / found.compared:.0f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    given = parser.parse_args()
    for line in table(given.samples, given.seed, given.rows):
        print(line, flush=True)


if __name__ == "__main__":
    main()
