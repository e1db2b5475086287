"""What the ledger says has happened: its events folded into one picture, for engine and reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from coralx.records.events import (
    BudgetSpent,
    CheckpointRestored,
    DerivationFailed,
    Event,
    FrontCompared,
    FrontMeasured,
    GenerationCompleted,
    GenerationStarted,
    GenomeDerived,
    GenomeFailed,
    MeasurementFailed,
    RunCompleted,
    RunResumed,
    RunStarted,
    StageCompleted,
    StageDecided,
    TrainedBeside,
)
from coralx.records.genomes import Genes, Genome
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
        """The run's first event."""
        self.recorded_config: Mapping[str, Any] | None = None
        """Under which resolved config the run was last taken up; None: not recorded."""
        self.completed: RunCompleted | None = None
        """Set while nothing was born or trained since."""
        self.planned_generations: int | None = None
        """How many generations the config asked for when the run was completed; None: not known."""
        self.genomes: dict[str, Genome] = {}
        """By id, in order of birth; derived ones among them."""
        self.generations: dict[int, tuple[Genome, ...]] = {}
        """Who was born in each, copies that replaced others included; derived ones are not."""
        self.derived: dict[int, tuple[Genome, ...]] = {}
        """By generation: who was derived after its last stage, in order of completion."""
        self.not_derived: dict[str, DerivationFailed] = {}
        """By id: who was to be derived, and failed on every attempt. It is not tried again."""
        self.results: dict[tuple[str, str], StageResult] = {}
        """By genome and stage, in order of completion."""
        self.failures: dict[Subject, GenomeFailed] = {}
        """Who brought no result on any attempt."""
        self.decisions: dict[tuple[int, str], StageDecided] = {}
        """By generation and stage: all verdicts so far."""
        self.budgets: dict[int, tuple[StageBudget, ...]] = {}
        """By generation: what each stage gets; empty where budgets do not adapt."""
        self.populations: dict[int, tuple[str, ...]] = {}
        """By generation: its survivors, the parents of the next, best first."""
        self.known_by: dict[int, int] = {}
        """By generation: how many of the `results`, which stand in order, its survivors were chosen
        from."""
        self.trained_beside: dict[tuple[Subject, str], StageResult] = {}
        """Of what was trained beside the search, by stage: baselines and verifications."""
        self.narrowed: list[StageResult] = []
        """Results that took fewer rows at once than a batch, in order."""
        self.restored: list[StageResult] = []
        """What was trained again because its checkpoint was damaged, in order."""
        self.overheads = Overheads()
        self.budget_spent: str | None = None
        """The limit that ended the search, until it goes on."""
        self.is_test_reused = False
        """Whether the search went on after figures of the test split were seen."""
        self.measurements: dict[Subject, Measurement] = {}
        """Figures on the test split."""
        self.unmeasured: dict[Subject, str] = {}
        """Whom the process that had the run last could not measure, and why."""
        self.compared: FrontCompared | None = None
        self._born_at: dict[str, int] = {}
        """By genome: the step at which its own training began; a copy's is not 0."""
        self._given: dict[tuple[str, str], int] = {}
        """By child and parent: the parent's own steps when the child took its weights."""
        self._steps: dict[str, int] = {}
        """By genome: steps since its birth."""
        self._trained_steps = 0
        self._last: dict[str, StageResult] = {}
        """By genome: the result of the furthest stage that left a checkpoint."""
        self._own: dict[str, dict[str, StageResult]] = {}
        """By genome, then by stage: the `results` again, in the same order."""
        self._standing: dict[str, set[str]] = {}
        """By stage: whose furthest stage with a checkpoint it is."""
        self._births: dict[str, int] = {}
        """By genome: its place in the order of birth."""
        self._founders: dict[str, str] = {}
        """By genome: with whose first weights its lineage began."""
        self._bearers: dict[Genes, list[str]] = {}
        """By genes: who was born with them, in order of birth."""
        self._stopped: set[str] = set()
        self._ended: set[str] = set()
        """Who finished or was cut."""
        self.left_behind: set[str] = set()
        """Those who neither train on nor were among the survivors of a generation since."""
        self._blended: dict[str, str] = {}
        """By genome: the second parent whose weights it holds, too."""
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
                self._resume(event)
            case GenerationStarted():
                self.completed = None  # a completed run may be extended by further generations
                self.generations[event.generation] = event.genomes
                self.budgets[event.generation] = event.budgets
                self._add(event.genomes)
            case StageCompleted(result=result):
                self._complete(result)
            case CheckpointRestored(result=result):
                self.restored.append(result)
                self._trained_steps += result.steps
            case TrainedBeside(result=result):
                self.trained_beside[subject_of(result.genome), result.stage] = result
            case BudgetSpent():
                self.budget_spent = event.limits
            case GenomeFailed():
                self.failures[subject_of(event.genome)] = event
            case StageDecided():
                self._decide(event)
            case GenomeDerived(generation=generation, genome=genome):
                self._add((genome,))
                self.derived[generation] = (*self.derived.get(generation, ()), genome)
                self._complete(event.result)
                self._ended.add(genome.id)
            case DerivationFailed():
                self.not_derived[event.genome.id] = event
            case GenerationCompleted():
                self.populations[event.generation] = event.population
                self.known_by[event.generation] = len(self.results)
                self.left_behind |= self._ended.difference(event.population)
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
                self.planned_generations = evolution.get("generations")
            case _:
                pass  # no decision depends on when workers start and stop

    def _resume(self, event: RunResumed) -> None:
        self.recorded_config = event.config or self.recorded_config
        self.budget_spent = None  # recorded again where it still binds
        self.unmeasured = {}  # measured again
        self.failures.pop(Baseline.TRAINED_HEAD, None)  # trained again, which takes moments

    def _complete(self, result: StageResult) -> None:
        """Take the result of a stage of the search into account."""
        genome = result.genome
        self.results[genome, result.stage] = result
        self._own.setdefault(genome, {})[result.stage] = result
        self._begin(genome)
        first = self._born_at.setdefault(genome, result.first_step)
        self._steps[genome] = result.last_step - first
        self._trained_steps += result.steps
        if result.micro_batch is not None:
            self.narrowed.append(result)
        # A diverged stage leaves no checkpoint: the one before it stays the last to go on from.
        if result.divergence is None:
            self._stand(result)
        trial = result.inheritance.blend if result.inheritance else None
        if trial is not None and trial.kept:
            self._blended[genome] = trial.other
        self.budget_spent = self.completed = None
        self.is_test_reused = self.is_test_reused or self._is_test_used()

    def _add(self, genomes: Iterable[Genome]) -> None:
        """Genomes are born."""
        for genome in genomes:
            if genome.id not in self.genomes:
                self._births[genome.id] = len(self._births)
                self._bearers.setdefault(genome.genes, []).append(genome.id)
            donor = next(iter(genome.donors), genome.id)
            self._founders[genome.id] = self._founders.get(donor, donor)
            self.genomes[genome.id] = genome

    def _stand(self, result: StageResult) -> None:
        """The genome has got to the end of the result's stage."""
        before = self._last.get(result.genome)
        if before is not None:
            self._standing[before.stage].discard(result.genome)
        self._last[result.genome] = result
        self._standing.setdefault(result.stage, set()).add(result.genome)

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
            self._add(event.newborn)
        for verdict in event.verdicts:
            if isinstance(verdict, Stop):
                self._stopped.add(verdict.genome)
            if isinstance(verdict, Finish | Cut):
                self._ended.add(verdict.genome)

    def is_done(self, name: str, stage: str) -> bool:
        """Whether the genome, or what is trained beside the search under that id, need not train
        the stage."""
        subject = subject_of(name)
        is_trained = (name, stage) in self.results or (subject, stage) in self.trained_beside
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

    def results_of(self, genome: str) -> list[StageResult]:
        """What the genome was trained through, in order of completion."""
        return list(self._own.get(genome, {}).values())

    def last_result(self, genome: str) -> StageResult | None:
        """The furthest stage that the genome was trained through."""
        return self._last.get(genome)

    def beside(self, *subjects: Subject) -> list[StageResult]:
        """What training them beside the search brought, in order."""
        return [r for (subject, _), r in self.trained_beside.items() if subject in subjects]

    def root(self, genome: str) -> str:
        """The trained genome that it was derived from, of a soup the best one; itself, if it was
        trained."""
        derived = self.genomes[genome].derived
        while derived is not None:
            genome = derived.sources[0]
            derived = self.genomes[genome].derived
        return genome

    def founder(self, genome: str) -> str:
        """The genome with whose first weights its lineage began; of several parents or sources the
        first counts."""
        return self._founders[genome]

    def trained_genes(self) -> list[Genes]:
        """Genes of all genomes that were born to be trained, in order of birth."""
        return [genome.genes for genome in self.genomes.values() if genome.derived is None]

    def known(self) -> list[str]:
        """Genomes that have completed a stage, in order of birth."""
        return [genome for genome in self.genomes if genome in self._last]

    def is_taken_out(self, genome: str) -> bool:
        """Whether a stop rule or a failing worker ended the genome."""
        return genome in self._stopped or self.has_failed(genome)

    def has_ended(self, genome: str) -> bool:
        """Whether it finished, was cut, or was taken out."""
        return genome in self._ended or self.is_taken_out(genome)

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
        copy = self.genomes[genome]
        while copy.continues is not None and place < copy.enters:
            copy = self.genomes[copy.continues]
        return copy

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
            sources = genome.derived.sources if genome.derived is not None else ()
            parents = (genome.inherits, self._blended.get(name), *sources)
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
        standing = self._standing.get(last_stage, ())
        there = [genome for genome in standing if not self.is_taken_out(genome)]
        return sorted(filter(self._births.__contains__, there), key=self._births.__getitem__)

    def born_with(self, genes: Genes) -> tuple[str, ...]:
        """Who was born with these genes, derived genomes among them; in order of birth."""
        return tuple(self._bearers.get(genes, ()))

    def has_finished(self, genome: str, last_stage: str) -> bool:
        """Whether the genome completed `last_stage` and was not taken out."""
        return genome in self._standing.get(last_stage, ()) and not self.is_taken_out(genome)


def _joined(before: StageDecided, after: StageDecided) -> StageDecided:
    return replace(
        after,
        verdicts=before.verdicts + after.verdicts,
        not_judged=before.not_judged + after.not_judged,
        warnings=before.warnings + after.warnings,
        newborn=before.newborn + after.newborn,
    )
