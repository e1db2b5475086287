"""The arithmetic of the comparison: what a contestant had reached when, in naive trainings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np
from contestants import FIXED_LIST, NAIVE
from observations import Observation, Run

from coralx.search.pareto import hypervolume

TOLERANCE = 0.005
"""AUROC on validation by which an adapter may be behind the naive best."""

SMALLEST, LARGEST = 1e3, 1e7
"""Trainable parameters between which fronts are compared, on a log scale."""

QUIET = 0.1
"""What others may have kept busy, as a share of a run's cores, for its seconds to be taken at
word."""
BUSY = 0.8
"""The share of its cores that the piece must have had: on a crowded machine threads wait for each
other, and naive training, which has several, looks slower than it is."""
UNSTEADY = 1.3
"""By what factor the pieces before and after may differ, and wall-clock and CPU figures."""

SAME = ("processor", "precision", "torch", "transformers", "peft")
"""What contestants and naive training are to have in common of machine and versions."""


@dataclass(frozen=True)
class Finished:
    """An adapter that a contestant had, and when: in naive trainings since its start."""

    time: float
    configuration: str
    validation: float
    test: float
    parameters: float


@dataclass(frozen=True)
class Curve:
    """What a contestant's run comes to. Times are in naive trainings."""

    contestant: str
    seed: int
    finished: tuple[Finished, ...]
    """The earliest first."""
    decided: float | None
    """Time to decision; None: no adapter of the naive best's quality was finished."""
    reached: Finished | None
    """The first of that quality; of a fixed list the best, once all are done."""
    by_cpu: float | None
    """The time of `reached` by CPU seconds, of naive trainings' CPU seconds."""
    end: float
    seconds: float
    """Of a naive training, where and when the contestant ran."""
    steps: int
    tokens: int
    token_rate: float
    """Tokens read a second while training, all processes together, as a multiple of naive's."""
    utilisation: float | None
    """The share of its processes' time that training and evaluating took."""
    doubts: tuple[str, ...] = ()
    """Why its figures in seconds are not to be taken at word."""

    def best(self, time: float) -> Finished | None:
        """The best on validation that was finished by then."""
        own = [each for each in self.finished if each.time <= time]
        return max(own, key=lambda each: each.validation, default=None)

    def volume(self, time: float) -> float:
        """Of the front on validation at that time, by test AUROC (0.5 to 1) and parameters."""
        own = [each for each in self.finished if each.time <= time]
        points = [(2.0 * (1.0 - each.test), _size(each)) for each in _front(own)]
        return hypervolume(np.asarray(points), np.ones(2)) if points else 0.0


def _size(finished: Finished) -> float:
    parameters = max(finished.parameters, SMALLEST)
    return math.log(parameters / SMALLEST) / math.log(LARGEST / SMALLEST)


def _front(finished: Sequence[Finished]) -> list[Finished]:
    """Those that no other dominates on validation."""
    kept: list[Finished] = []
    for each in sorted(finished, key=lambda each: (-each.validation, each.parameters)):
        if not kept or each.parameters < kept[-1].parameters:
            kept.append(each)
    return kept


# -- naive training ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Naive:
    """The trainings of one workload and seed, and what they are the measure of."""

    rows: Sequence[Mapping[str, Any]]

    @property
    def per_training(self) -> float:
        """A training's seconds, in those of the fixed piece: the median."""
        return self._in_pieces("seconds")

    @property
    def cpu_per_training(self) -> float:
        return self._in_pieces("cpu_seconds")

    def _in_pieces(self, key: str) -> float:
        return median(float(row[key]) / _mean(row["pieces"], key) for row in self.rows)

    @property
    def token_rate(self) -> float:
        """Tokens read while training, in the seconds of one piece."""
        rates = [
            _mean(row["pieces"], "seconds") * row["tokens"] / row["train_seconds"]
            for row in self.rows
        ]
        return float(median(rates))

    @property
    def best(self) -> Mapping[str, Any]:
        return max(self.rows, key=lambda row: row["validation"] or 0.0)

    @property
    def target(self) -> float:
        """AUROC on validation that counts as the naive best's quality."""
        return float(self.best["validation"] or 0.0) - TOLERANCE

    def curve(self, seed: int) -> Curve:
        """The trainings one after another, as they were timed."""
        time, finished = 0.0, []
        for row in self.rows:
            time += row["seconds"] / _mean(row["pieces"], "seconds") / self.per_training
            if row["validation"] is not None:
                finished.append(_finished_row(row, time))
        best = max(finished, key=lambda each: each.validation)
        best = Finished(time, best.configuration, best.validation, best.test, best.parameters)
        return Curve(
            contestant=NAIVE,
            seed=seed,
            finished=tuple(finished),
            decided=time,
            reached=best,
            by_cpu=float(len(self.rows)),
            end=time,
            seconds=median(row["seconds"] for row in self.rows),
            steps=sum(row["steps"] for row in self.rows),
            tokens=sum(row["tokens"] for row in self.rows),
            token_rate=1.0,
            utilisation=None,
        )


def _finished_row(row: Mapping[str, Any], time: float) -> Finished:
    validation, test = float(row["validation"]), float(row["test"] or 0.5)
    return Finished(time, str(row["index"]), validation, test, float(row["parameters"]))


def _mean(pieces: Sequence[Mapping[str, float]], key: str) -> float:
    return fmean(piece[key] for piece in pieces)


# -- other contestants -----------------------------------------------------------------------------


def curve_of(run: Run, naive: Naive) -> Curve:
    """A contestant's run, measured by the naive trainings."""
    piece = _mean(run.pieces, "seconds")
    unit = piece * naive.per_training
    seen = [each for each in run.observations if _counts(each, run)]
    finished = _finished(seen, run, unit)
    end = (run.seconds if run.limit is None else min(run.seconds, run.limit)) / unit
    reached = next((each for each in finished if each.validation >= naive.target), None)
    decided = None
    if run.contestant in FIXED_LIST and finished:
        end = finished[-1].time
        best = max(finished, key=lambda each: each.validation)
        is_good = best.validation >= naive.target
        reached = Finished(**{**vars(best), "time": end}) if is_good else None
        decided = end if is_good else None
    elif reached is not None:
        decided = decision(seen, reached, run.began, unit)
    trained = sum(each.train_seconds for each in seen)
    spent = trained + sum(each.eval_seconds for each in seen)
    tokens = sum(each.tokens for each in seen)
    rate = run.processes * tokens / trained * piece / naive.token_rate if trained else 0.0
    return Curve(
        contestant=run.contestant,
        seed=run.seed,
        finished=tuple(finished),
        decided=decided,
        reached=reached,
        by_cpu=None if reached is None else _by_cpu(reached.time * unit, run, naive),
        end=end,
        seconds=unit,
        steps=sum(each.steps for each in seen),
        tokens=tokens,
        token_rate=rate,
        utilisation=spent / (run.processes * end * unit),
        doubts=tuple(doubts(run, naive)),
    )


def _counts(seen: Observation, run: Run) -> bool:
    """Whether it was told within the contestant's time."""
    return run.limit is None or seen.time - run.began <= run.limit


def _finished(seen: Sequence[Observation], run: Run, unit: float) -> list[Finished]:
    """What was finished, with plain transformers' scores; what these cannot score is left out."""
    finished = []
    for each in seen:
        score = run.scores.get(each.adapter or "")
        if score is None or score.validation is None or score.test is None:
            continue
        time = (each.time - run.began) / unit
        figures = (score.validation, score.test, each.parameters)
        finished.append(Finished(time, each.configuration, *figures))
    return sorted(finished, key=lambda each: each.time)


def decision(seen: Sequence[Observation], reached: Finished, began: float, unit: float) -> float:
    """From when on, until it was finished, the configuration of `reached` was the contestant's
    best: the furthest trained, and of those the best on validation."""
    since, best = None, None
    for each in seen:
        if (each.time - began) / unit > reached.time:
            break
        rank = (each.step, each.validation or 0.0)
        if best is None or rank > best[0]:
            best = (rank, each.configuration)
        if best[1] != reached.configuration:
            since = None
        elif since is None:
            since = (each.time - began) / unit
    return reached.time if since is None else since


def _by_cpu(seconds: float, run: Run, naive: Naive) -> float:
    """The same time by CPU seconds, spread evenly over the contestant's own."""
    cpu = seconds * run.cpu_seconds / run.seconds
    return cpu / (naive.cpu_per_training * _mean(run.pieces, "cpu_seconds"))


def doubts(run: Run, naive: Naive) -> list[str]:
    """Why a run's seconds are not to be taken at word."""
    found = []
    others = run.others_seconds / run.seconds
    if others > QUIET * int(run.machine["cores"]):
        found.append(f"others kept {others:.2g} cores busy")
    seconds = [piece["seconds"] for piece in run.pieces]
    if max(seconds) > UNSTEADY * min(seconds):
        found.append(f"the piece took {seconds[0]:.1f} s before and {seconds[-1]:.1f} s after")
    had = min(piece["cpu_seconds"] / piece["seconds"] for piece in run.pieces)
    if had < BUSY * int(run.machine["cores"]):
        found.append(f"the piece had {had:.2g} of {run.machine['cores']} cores")
    if any(row["rows"] != run.rows for row in naive.rows):
        found.append("it had other rows than naive training")
    for key in SAME:
        other = {row["machine"].get(key) for row in naive.rows} - {run.machine.get(key)}
        if other:
            found.append(f"naive training had {key} {', '.join(map(str, other))}")
    return found
