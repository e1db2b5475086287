"""What training the genomes of a run without any cut would have cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from coralx.engine.explosions import stopped_as_ill
from coralx.engine.state import RunState
from coralx.records.genomes import Genes
from coralx.records.results import StageResult
from coralx.schedule.stages import horizon_of
from coralx.storage.history import History


@dataclass(frozen=True)
class NaiveTraining:
    """What training the same genomes without any cut would have cost."""

    steps: int
    seconds: float


@dataclass(frozen=True)
class _Course:
    """How far a genome was trained, and at what pace."""

    budget: int
    """Steps of its naive training."""
    reached: float
    """The share of these that it was trained."""
    broke: bool
    """Whether it diverged there, or counts as if it had, or failed for good."""
    pace: float
    """Seconds a step."""
    genes: Genes


def naive_training(state: RunState, results: Sequence[StageResult]) -> NaiveTraining:
    """What it would have cost to train the genomes of `results` to the schedule's last budget, or
    to where they diverge.

    How a genome that was cut would have ended is inferred, never in favour of the search where
    there are signs. One that a rule on gradient norms or on the loss's slope stopped counts as if
    it had diverged there, or as soon as its warm-up was over. Of others see `_naive_end`.
    """
    history, last = state.history, state.stages[-1]
    # a naive training is scored and saved once, so at the cost that the last stage had
    finals = [r for r in results if r.stage == last.name and r.divergence is None]
    ending = fmean(r.eval_seconds + r.overhead_seconds for r in finals) if finals else 0.0
    by_genome: dict[str, list[StageResult]] = {}
    for result in results:
        # a copy takes up another's training: without cuts there would be none
        if history.genomes[result.genome].continues is None:
            by_genome.setdefault(result.genome, []).append(result)
    ill = stopped_as_ill(history)
    courses = [_course(state, own, is_ill=genome in ill) for genome, own in by_genome.items()]
    broken = _Broken(courses)
    steps, seconds = 0, 0.0
    for course in courses:
        share, is_scored = _naive_end(course, broken)
        trained = round(share * course.budget)
        steps += trained
        seconds += trained * course.pace + is_scored * ending
    return NaiveTraining(steps, seconds)


def _course(state: RunState, own: Sequence[StageResult], *, is_ill: bool) -> _Course:
    history, genome = state.history, own[0].genome
    genes, epoch = history.genomes[genome].genes, steps_per_epoch(history, genome)
    budget = state.stages[-1].trained_steps(epoch)
    trained = sum(result.steps for result in own)
    pace = sum(result.train_seconds for result in own) / trained if trained else 0.0
    diverged = [r.divergence.step for r in own if r.divergence and r.divergence.ruins_weights]
    end = min(diverged, default=max(result.last_step for result in own))
    if is_ill:
        warmup = horizon_of(state.stages, epoch, genes.warmup_ratio).warmup_steps
        end = min(max(end, warmup + 1), budget)
    broke = bool(diverged) or is_ill or history.has_failed(genome)
    return _Course(budget, end / budget, broke, pace, genes)


class _Broken:
    """The genomes that broke, to be asked for one that is as stable as another."""

    def __init__(self, courses: Sequence[_Course]) -> None:
        broken = sorted((c for c in courses if c.broke), key=lambda course: course.reached)
        self._reached = np.array([course.reached for course in broken])
        self._batch_sizes = np.array([course.genes.batch_size for course in broken])
        self._steps = np.array([_update_sizes(course.genes) for course in broken]).reshape(-1, 3)

    def next_end(self, course: _Course) -> float | None:
        """Where the first broke, beyond what the genome reached, whose training diverges no sooner
        than the genome's; None where none did.

        That is known where batches are of one size, and rate, rank and scaling, each of which makes
        updates larger, are no greater. Of others nothing is known: which of two genes weighs more
        depends on the base.
        """
        first = int(np.searchsorted(self._reached, course.reached, side="right"))
        is_like = self._batch_sizes[first:] == course.genes.batch_size
        is_like &= (self._steps[first:] <= _update_sizes(course.genes)).all(axis=1)
        return float(self._reached[first + int(is_like.argmax())]) if is_like.any() else None


def _update_sizes(genes: Genes) -> tuple[float, float, float]:
    """What makes updates larger."""
    return genes.learning_rate, genes.rank, genes.alpha_ratio


def _naive_end(course: _Course, broken: _Broken) -> tuple[float, bool]:
    """The share of its budget that a genome would have trained without any cut, and whether it
    would have got to its end.

    One that was cut may have been about to diverge. It counts as if it had where another did whose
    training is as stable or more, at that point.
    """
    if course.broke:
        return course.reached, False
    end = broken.next_end(course)
    return (1.0, True) if end is None else (end, False)


def steps_per_epoch(history: History, genome: str) -> int:
    """Steps that one pass over the data takes with the genome's batch size."""
    facts = history.started.facts if history.started else None
    return facts.steps_per_epoch(history.genomes[genome].genes.batch_size) if facts else 0
