"""What training the genomes of a run without any cut would have cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

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
    broken = [course for course in courses if course.broke]
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


def _naive_end(course: _Course, broken: Sequence[_Course]) -> tuple[float, bool]:
    """The share of its budget that a genome would have trained without any cut, and whether it
    would have got to its end.

    One that was cut may have been about to diverge. It counts as if it had where another did whose
    training is as stable or more, at that point.
    """
    if course.broke:
        return course.reached, False
    ends = [
        other.reached
        for other in broken
        if other.reached > course.reached and _is_as_stable(other.genes, course.genes)
    ]
    return (min(ends), False) if ends else (1.0, True)


def _is_as_stable(genes: Genes, than: Genes) -> bool:
    """Whether training with `genes` diverges no sooner than with the others: where batches are of
    one size, and rate, rank and scaling, each of which makes updates larger, are no greater. Of
    others nothing is known: which of two genes weighs more depends on the base."""
    return (
        genes.batch_size == than.batch_size
        and genes.learning_rate <= than.learning_rate
        and genes.rank <= than.rank
        and genes.alpha_ratio <= than.alpha_ratio
    )


def steps_per_epoch(history: History, genome: str) -> int:
    """Steps that one pass over the data takes with the genome's batch size."""
    facts = history.started.facts if history.started else None
    return facts.steps_per_epoch(history.genomes[genome].genes.batch_size) if facts else 0
