"""Where a run stands: what both live views draw from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from coralx.config import Config
from coralx.engine.derivation import derives
from coralx.engine.state import RunState
from coralx.engine.verification import heirs, unverified
from coralx.records.derivations import derivation_json
from coralx.records.events import (
    Event,
    GenerationStarted,
    GenomeDerived,
    GenomeFailed,
    RunStarted,
    StageCompleted,
    StageDecided,
    TrainedBeside,
)
from coralx.records.genomes import Genome
from coralx.records.results import Progress, StageResult
from coralx.records.subjects import Baseline
from coralx.records.verdicts import Cut, Fail, Finish, Promote, Replace, Stop, Verdict
from coralx.report.derived import origin
from coralx.report.formatting import figure
from coralx.report.rungs import decision_line
from coralx.schedule.brackets import brackets_of, entries
from coralx.schedule.short_stage_warnings import can_judge
from coralx.schedule.stages import Stage
from coralx.storage.history import History
from coralx.text import counted

Kind = Literal[
    "training", "waiting", "evaluated", "finished", "derived", "stopped", "failed", "cut"
]
"""What a genome is doing, or what became of it."""


@dataclass(frozen=True)
class Brief:
    """A state in as few words as a column has room for: `S1 44/108`."""

    kind: Kind
    text: str


class Standings:
    """The state of every genome of the current generation, and the time that remains."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.history = History()
        self._run = RunState(config, self.history)
        self._overlaps = self._run.succession.overlaps
        self.generation = 0
        self.stage = self.stages[0]
        self.genomes: tuple[Genome, ...] = ()
        self.state: dict[str, str] = {}
        """In words, by the genome's id."""
        self.brief: dict[str, Brief] = {}
        """In a few words, by the genome's id."""
        self._short = short_names([stage.name for stage in self.stages])
        self.began = time.monotonic()
        self._live: dict[str, Progress] = {}
        """Of the genomes that are in training now."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The schedule, in order."""
        return self._run.stages

    def on_event(self, event: Event) -> None:
        self.history.apply(event)
        match event:
            case RunStarted():
                self.began = time.monotonic() - event.startup_seconds
            case GenerationStarted():
                self.generation = event.generation
                self.stage = self.stages[0]
                # under asynchronous promotion genomes of earlier generations still train
                going_on = [g for g in self.genomes if self._overlaps and self._is_open(g)]
                self.genomes = (*going_on, *event.genomes)
                self.state = {genome.id: self.state[genome.id] for genome in going_on}
                self.brief = {genome.id: self.brief[genome.id] for genome in going_on}
                for genome in event.genomes:
                    self._note(genome.id, "waiting", self.stage.name, "queued")
            case StageCompleted(result=result):
                self._live.pop(result.genome, None)
                if (ended := result.divergence) is not None:
                    words = f"stopped at {result.stage}, step {ended.step}: {ended.reason}"
                    self._note(result.genome, "stopped", result.stage, words)
                else:
                    words = f"trained {counted(result.last_step, 'step')}"
                    self._note(result.genome, "evaluated", result.stage, words)
            case TrainedBeside(result=result):
                self._live.pop(result.genome, None)
            case GenomeFailed():
                self._live.pop(event.genome, None)
                self._note(event.genome, "failed", event.stage, f"failed: {event.reason}")
            case GenomeDerived(genome=genome, result=result):
                self.genomes += (genome,)
                self._note(genome.id, "derived", result.stage, self.origin(genome))
            case StageDecided():
                self._apply_verdicts(event)
            case _:
                pass

    def _is_open(self, genome: Genome) -> bool:
        """Whether it may still train: under asynchronous promotion generations overlap."""
        is_done = (genome.id, self.stages[-1].name) in self.history.results
        return not is_done and not self.history.is_taken_out(genome.id)

    def _apply_verdicts(self, event: StageDecided) -> None:
        place = next(stage.place for stage in self.stages if stage.name == event.stage)
        following = self.stages[min(place + 1, len(self.stages) - 1)]
        for verdict in event.verdicts:
            if isinstance(verdict, Promote):
                if self._is_beyond(verdict.genome, following.name):
                    continue  # it was certain, and has gone on before
                words = f"promoted, queued for {following.name}"
                self._note(verdict.genome, "waiting", following.name, words)
            else:
                words = describe(verdict, event.stage)
                self._note(verdict.genome, _BECAME[type(verdict)], event.stage, words)
        self.genomes += event.newborn
        for genome in event.newborn:
            self._note(genome.id, "waiting", following.name, f"queued for {following.name}")
        self.stage = following

    def _is_beyond(self, genome: str, stage: str) -> bool:
        """Whether it is at the stage, or has been."""
        progress = self._live.get(genome)
        is_there = progress is not None and progress.stage == stage
        return is_there or self.history.is_done(genome, stage)

    def _note(self, genome: str, kind: Kind, stage: str, words: str, brief: str = "") -> None:
        self.state[genome] = words
        brief = (
            kind
            if kind in ("finished", "derived")
            else f"{self._short.get(stage, stage)} {brief or kind}"
        )
        self.brief[genome] = Brief(kind, brief)

    def on_progress(self, progress: Progress) -> None:
        self._live[progress.genome] = progress
        loss = f"loss {progress.loss:.3f}"
        at_end = progress.step >= progress.last_step
        doing = "evaluating" if at_end else f"{progress.step}/{progress.last_step}"
        words = f"{progress.stage}: {'' if at_end else 'step '}{doing}, {loss}"
        self._note(progress.genome, "training", progress.stage, words, doing)

    def origin(self, genome: Genome) -> str:
        """How a derived genome comes to be, in words."""
        derived = derivation_json(genome.derived)
        known = {g.id: derivation_json(g.derived) for g in self.history.genomes.values()}
        return "" if derived is None else origin(derived, known)

    def may_judge(self, decision: StageDecided) -> bool:
        """Whether a genome could have been judged by every stop rule of a stage. Where none could,
        the opening lines said so."""
        longest = self._run.longest_epoch
        if longest is None:  # a run of an earlier version, whose opening lines say nothing of it
            return True
        stages = self._run.stages_in(decision.generation)
        stage = next(stage for stage in stages if stage.name == decision.stage)
        return can_judge(self.config, stages, stage, longest)

    def reliability(self, decision: StageDecided) -> str | None:
        """How well a stage has ranked so far, and what it did about it, in a line."""
        return decision_line(self._run, decision)

    def loss(self, genome: str) -> float | None:
        """The training loss of a genome that is in training."""
        progress = self._live.get(genome)
        return None if progress is None else progress.loss

    @property
    def is_searched(self) -> bool:
        """Whether the last generation's last verdicts are in; what remains is to measure."""
        newest = self.config.evolution.generations - 1
        return self._run.succession.is_searched(self.history, newest, self._run.last_stage)

    def closing(self) -> str:
        """What goes on once the search is over."""
        if self._may_derive:
            return "deriving adapters from those that finished"
        left = len(unverified(self._run))
        if not left or Baseline.UNTUNED not in self.history.measurements:
            return "measuring baselines and front on the test split"
        total = len(heirs(self.history, self._run.front()))
        return f"verifying the front: {total - left} of {total} trained from scratch"

    @property
    def _may_derive(self) -> bool:
        """Whether adapters may still be derived after the last generation."""
        newest = self.config.evolution.generations - 1
        is_closed = newest in self.history.populations or bool(self.history.measurements)
        return derives(self._run) and not is_closed

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def remaining(self) -> float | None:
        """Seconds to the search's end by what steps and evaluations have taken so far; None
        before the first stage result. Stop rules can only make it less."""
        genomes = self.history.genomes
        results = [r for r in self.history.results.values() if genomes[r.genome].derived is None]
        started = self.history.started
        steps_done = sum(result.steps for result in results)
        if started is None or not steps_done or started.facts.device == "none":
            return None
        pace = sum(result.train_seconds for result in results) / steps_done
        per_job = sum(r.eval_seconds + r.overhead_seconds for r in results) / len(results)
        steps, jobs = self._planned()
        # what is trained beside the search, as a baseline, is no part of the plan
        in_search = [p for p in self._live.values() if p.genome in genomes]
        live = sum(p.step - self._stood_at(p.genome) for p in in_search)
        left = pace * max(0, steps - steps_done - live) + per_job * max(0, jobs - len(results))
        return left / started.settings.workers

    def _stood_at(self, genome: str) -> int:
        """The step from which the genome's present stage goes on."""
        born = self.history.genomes[genome]
        if born.continues is not None and self.history.last_result(genome) is None:
            copied = born.continues, self.stages[born.enters - 1].name
            return self.history.results[copied].last_step
        return self.history.step_of(genome)

    def _planned(self) -> tuple[int, int]:
        """Steps and jobs of the whole run: as decided where decided, as planned elsewhere."""
        started = self.history.started
        steps_per_epoch = (
            started.facts.steps_per_epoch(self.config.training.batch_size) if started else 0
        )
        brackets = brackets_of(self.config.hyperband_config)
        evolution = self.config.evolution
        steps = jobs = 0
        # what enters a stage from scratch is planned; what continues is at most what was promoted
        for generation in range(evolution.generations):
            births, stages = self._births(generation), self._run.stages_in(generation)
            cohorts = entries(stages, births, brackets)
            promoted: int | None = None
            for stage, (begun, going_on) in zip(self.stages, cohorts, strict=True):
                continued = going_on if promoted is None else promoted
                before = self.stages[stage.place - 1].trained_steps(steps_per_epoch)
                total = stage.trained_steps(steps_per_epoch)
                steps += begun * total + continued * (total - before)
                jobs += begun + continued
                decision = self.history.decisions.get((generation, stage.name))
                # asynchronous decisions come one by one, so none says how many go on in the end
                if decision is not None and not self._overlaps:
                    promoted = sum(isinstance(v, Promote | Replace) for v in decision.verdicts)
        return steps, jobs

    def front(self) -> tuple[str, ...]:
        """The front so far, best first."""
        return self._run.front()

    def _births(self, generation: int) -> int:
        """How many are born in a generation: as it happened where rungs are adaptive."""
        born = self.history.generations.get(generation)
        if born is None or self.config.hyperband_config.rungs == "fixed":
            return self.config.evolution.births(generation)
        return len(born)

    def best(self) -> tuple[str, float] | None:
        """The front's best genome on the first objective, and its figure."""
        front = self.front()
        if not front:
            return None
        figures = self.history.results[front[0], self._run.last_stage].metrics
        value = figures[self.config.objectives[0].metric]
        return None if value is None else (front[0], value)

    def latest(self, genome: str) -> float | None:
        """The genome's last figure on the first objective."""
        result = self.history.last_result(genome)
        return result.metrics.get(self.config.objectives[0].metric) if result else None


_BECAME: dict[type[Verdict], Kind] = {
    Replace: "cut",
    Finish: "finished",
    Cut: "cut",
    Stop: "stopped",
    Fail: "failed",
}


def short_names(stages: Sequence[str]) -> dict[str, str]:
    """What comes before the first underscore, where that tells the stages apart."""
    short = {name: name.partition("_")[0] for name in stages}
    return short if len(set(short.values())) == len(short) else {name: name for name in stages}


def result_words(result: StageResult, metric: str) -> str:
    """What a stage reached: its figure, where it was scored, or why training ended early."""
    if result.divergence is not None:
        return f"{result.divergence.reason}, at step {result.divergence.step},"
    is_scored = metric in result.metrics
    return f"{metric} {figure(result.metrics[metric], metric)}" if is_scored else "trained"


def describe(verdict: Verdict, stage: str) -> str:
    """A verdict in words."""
    match verdict:
        case Promote():
            return "promoted"
        case Replace(by=by):
            return f"replaced by {by}, a mutated copy of a better genome"
        case Finish():
            return "finished"
        case Cut(place=place, quota=quota):
            return f"cut at {stage}: place {place}, {quota} go on"
        case Stop(rule=rule, value=value, step=step):
            shown = "" if value is None else f" (it was {value:.3g})"
            return f"stopped at {stage}, step {step}: {rule}{shown}"
        case Fail(reason=reason):
            return f"failed at {stage}: {reason}"


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many of each verdict, in words."""
    names: dict[type[Verdict], str] = {
        Promote: "promoted",
        Replace: "replaced",
        Finish: "finished",
        Cut: "cut",
        Stop: "stopped",
        Fail: "failed",
    }
    counts = Counter(names[type(verdict)] for verdict in verdicts)
    listed = [f"{counts[word]} {word}" for word in names.values() if counts[word]]
    return ", ".join(listed) or "no genome entered"
