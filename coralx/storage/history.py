"""What the ledger says has happened: its events folded into one picture, for engine and reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from coralx.records.events import (
    BudgetSpent,
    CheckpointRestored,
    Event,
    FrontCompared,
    FrontMeasured,
    GenerationCompleted,
    GenerationStarted,
    GenomeFailed,
    MeasurementFailed,
    RunCompleted,
    RunResumed,
    RunStarted,
    StageCompleted,
    StageDecided,
    TrainedBeside,
)
from coralx.records.genomes import Genome
from coralx.records.jobs import StageBudget
from coralx.records.results import Measurement, StageResult
from coralx.records.run_facts import REVISION
from coralx.records.subjects import Baseline, Searched, Subject, subject_of
from coralx.records.verdicts import Cut, Finish, Stop
from coralx.storage.overheads import Overheads


class History:
    """Everything decided and measured so far. Feed it events in the ledger's order."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.started: RunStarted | None = None
        self.recorded_config: Mapping[str, Any] | None = None
        """Under which resolved config the run was last taken up; None: not recorded."""
        self.completed: RunCompleted | None = None
        self.wanted_generations: int | None = None
        """How many generations the config asked for when the run was completed; None: not known."""
        self.genomes: dict[str, Genome] = {}
        self.generations: dict[int, tuple[Genome, ...]] = {}
        self.results: dict[tuple[str, str], StageResult] = {}
        self.failures: dict[Subject, GenomeFailed] = {}
        self.decisions: dict[tuple[int, str], StageDecided] = {}
        self.budgets: dict[int, tuple[StageBudget, ...]] = {}
        self.populations: dict[int, tuple[str, ...]] = {}
        self.known_by: dict[int, int] = {}
        """By generation: how many of the `results`, which stand in order, its survivors were chosen
        from."""
        self.beside: dict[tuple[Subject, str], StageResult] = {}
        self.narrowed: list[StageResult] = []
        """Results that took fewer rows at once than a batch, in order."""
        self.restored: list[StageResult] = []
        """What was trained again because its checkpoint was damaged, in order."""
        self.overheads = Overheads()
        self.budget_spent: str | None = None
        self.is_test_reused = False
        self.measurements: dict[Subject, Measurement] = {}
        self.unmeasured: dict[Subject, str] = {}
        """Whom the process that had the run last could not measure, and why."""
        self.compared: FrontCompared | None = None
        self._born_at: dict[str, int] = {}
        self._given: dict[tuple[str, str], int] = {}
        self._steps: dict[str, int] = {}
        self._trained_steps = 0
        self._last: dict[str, StageResult] = {}
        self._stopped: set[str] = set()
        self._settled: set[str] = set()
        self.left_behind: set[str] = set()
        """Those who neither train on nor were among the survivors of a generation since."""
        self._blended: dict[str, str] = {}
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Take one more event into account."""
        self.overheads.apply(event)
        match event:
            case RunStarted():
                self.started = event
                self.recorded_config = event.config
            case RunResumed():
                self.recorded_config = event.config or self.recorded_config
                self.budget_spent = None  # it is told again where it still binds
                self.unmeasured = {}  # it is tried again
                self.failures.pop(Baseline.TRAINED_HEAD, None)  # so is what is trained in moments
            case GenerationStarted():
                self.completed = None  # a run may be extended
                self.generations[event.generation] = event.genomes
                self.budgets[event.generation] = event.budgets
                self.genomes.update({genome.id: genome for genome in event.genomes})
            case StageCompleted(result=result):
                self.results[result.genome, result.stage] = result
                self._begin(result.genome)
                first = self._born_at.setdefault(result.genome, result.first_step)
                self._steps[result.genome] = result.last_step - first
                self._trained_steps += result.steps
                if result.micro_batch is not None:
                    self.narrowed.append(result)
                if result.divergence is None:
                    self._last[result.genome] = result
                trial = result.inheritance.blend if result.inheritance else None
                if trial is not None and trial.kept:
                    self._blended[result.genome] = trial.other
                self.budget_spent = self.completed = None
                self.is_test_reused = self.is_test_reused or self._is_test_used()
            case CheckpointRestored(result=result):
                self.restored.append(result)
                self._trained_steps += result.steps
            case TrainedBeside(result=result):
                self.beside[subject_of(result.genome), result.stage] = result
            case BudgetSpent():
                self.budget_spent = event.limits
            case GenomeFailed():
                self.failures[subject_of(event.genome)] = event
            case StageDecided():
                self._decide(event)
            case GenerationCompleted():
                self.populations[event.generation] = event.population
                self.known_by[event.generation] = len(self.results)
                self.left_behind |= self._settled.difference(event.population)
            case FrontMeasured(measurement=measurement):
                subject = subject_of(measurement.genome)
                self.measurements[subject] = measurement
                self.unmeasured.pop(subject, None)
            case MeasurementFailed(genome=genome, reason=reason):
                self.unmeasured[subject_of(genome)] = reason
            case FrontCompared():
                self.compared = event
            case RunCompleted():
                self.completed = event
                evolution = (self.recorded_config or {}).get("evolution", {})
                self.wanted_generations = evolution.get("generations")
            case _:
                pass  # workers' comings and goings change no decision

    def _begin(self, genome: str) -> None:
        """At its first result: how far its parents were, which may train on."""
        if genome not in self._born_at:
            donors = self.genomes[genome].donors if genome in self.genomes else ()
            for parent in donors:
                if parent in self._last:
                    self._given[genome, parent] = self._kept_steps(parent)

    def _decide(self, event: StageDecided) -> None:
        """Take verdicts into account, beside those that the stage has had before."""
        key = event.generation, event.stage
        before = self.decisions.get(key)
        self.decisions[key] = event if before is None else _joined(before, event)
        if event.newborn:
            born = self.generations.get(event.generation, ())
            self.generations[event.generation] = (*born, *event.newborn)
            self.genomes.update({genome.id: genome for genome in event.newborn})
        for verdict in event.verdicts:
            if isinstance(verdict, Stop):
                self._stopped.add(verdict.genome)
            if isinstance(verdict, Finish | Cut):
                self._settled.add(verdict.genome)

    def is_done(self, name: str, stage: str) -> bool:
        """Whether the genome, or what is trained beside the search under that id, need not train
        the stage."""
        subject = subject_of(name)
        is_trained = (name, stage) in self.results or (subject, stage) in self.beside
        return is_trained or subject in self.failures

    def has_failed(self, genome: str) -> bool:
        """Whether the genome brought no result on any attempt at a stage."""
        return Searched(genome) in self.failures

    def measured(self, genome: str) -> Measurement | None:
        """The genome's figures on the test split."""
        return self.measurements.get(Searched(genome))

    def _is_test_used(self) -> bool:
        """Whether the test split was looked at for more than the untuned base."""
        return any(subject is not Baseline.UNTUNED for subject in self.measurements)

    @property
    def revision(self) -> int:
        """By which order of rows and rules of decision the run is led; see `run_facts.Settings`."""
        return self.started.settings.revision if self.started is not None else REVISION

    def last_result(self, genome: str) -> StageResult | None:
        """The furthest stage that the genome was trained through."""
        return self._last.get(genome)

    @property
    def baseline(self) -> dict[str, StageResult]:
        """What the default recipe brought beside the search, by stage."""
        return {
            stage: result
            for (subject, stage), result in self.beside.items()
            if subject is Baseline.DEFAULT_RECIPE
        }

    def known(self) -> list[str]:
        """Genomes that have completed a stage, in order of birth."""
        return [genome for genome in self.genomes if genome in self._last]

    def is_taken_out(self, genome: str) -> bool:
        """Whether a stop rule or a failing worker ended the genome."""
        return genome in self._stopped or self.has_failed(genome)

    def may_give_weights(self, genome: str) -> bool:
        """Whether its last checkpoint is kept where generations overlap: it trains on, or may be a
        parent."""
        return not self.is_taken_out(genome) and genome not in self.left_behind

    def own_steps(self, genome: str) -> int:
        """Steps trained since the genome's birth."""
        return self._steps.get(genome, 0)

    @property
    def trained_steps(self) -> int:
        """Optimizer steps that the search has trained."""
        return self._trained_steps

    def step_of(self, genome: str) -> int:
        """Where its training stands: own steps, and those of the genome that it continues."""
        return self._born_at.get(genome, 0) + self.own_steps(genome)

    def lineage_steps(self, genome: str, stage: str | None = None) -> int:
        """Own steps and those that its inherited weights had seen before, by the end of `stage`
        (its last one)."""
        result = self.results[genome, stage] if stage is not None else self._last.get(genome)
        own = result.last_step - self._born_at[genome] if result else 0
        return (result.inherited_steps if result else 0) + own

    def genome_at(self, genome: str, place: int) -> Genome:
        """Whom the genome, at the stage of that place, was: itself, or the one that it is a copy
        of since. The hyperparameters of a lineage, stage by stage, are those of these genomes."""
        found = self.genomes[genome]
        while found.continues is not None and place < found.enters:
            found = self.genomes[found.continues]
        return found

    def joint_steps(self, *genomes: str) -> int:
        """Steps that a blend of the genomes' weights has seen; those of a common ancestor count
        once."""
        steps: dict[str, int] = {}
        waiting = [(name, self._kept_steps(name)) for name in genomes]
        while waiting:
            name, own = waiting.pop()
            if steps.get(name, -1) >= own:
                continue
            steps[name] = own
            genome = self.genomes[name]
            parents = (genome.inherits, self._blended.get(name))
            waiting += [(p, self._given.get((name, p), self._kept_steps(p))) for p in parents if p]
            if genome.continues is not None:
                copied = self._born_at[name] - self._born_at[genome.continues]
                waiting.append((genome.continues, copied))
        return sum(steps.values())

    def _kept_steps(self, genome: str) -> int:
        """Own steps by the last checkpoint."""
        result = self._last.get(genome)
        return self.lineage_steps(genome) - (result.inherited_steps if result else 0)

    def finished(self, last_stage: str) -> list[str]:
        """Ids of genomes that completed `last_stage` and were not taken out, in order of birth."""
        return [
            genome
            for genome in self.genomes
            if (result := self._last.get(genome)) is not None
            and result.stage == last_stage
            and not self.is_taken_out(genome)
        ]


def _joined(before: StageDecided, after: StageDecided) -> StageDecided:
    return replace(
        after,
        verdicts=before.verdicts + after.verdicts,
        not_judged=before.not_judged + after.not_judged,
        warnings=before.warnings + after.warnings,
        newborn=before.newborn + after.newborn,
    )
