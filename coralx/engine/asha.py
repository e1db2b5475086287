"""Asynchronous promotion: no worker waits for the others (ASHA, Li et al. 2020).

A genome goes on as soon as it is among the best that its stage has seen so far, over all
generations; of those that wait for it, the best, as many as a population, stay; and when a worker
would be idle, the next generation is bred from what is known by then. What was decided depends on
the order in which jobs were completed; the ledger records it, and a resumed run goes on from there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from coralx.engine.checkpoint_retention import needed_checkpoints
from coralx.engine.context import RunContext
from coralx.engine.derivation import DerivationPhase
from coralx.engine.population import Population
from coralx.engine.stage_decisions import promotion_order
from coralx.records.events import StageDecided
from coralx.records.genomes import Genome
from coralx.records.jobs import DeriveJob, Job
from coralx.records.results import StageResult
from coralx.records.verdicts import Cut, Fail, Finish, Promote, Stop, Verdict
from coralx.schedule.promotion import promotable
from coralx.schedule.stages import Stage
from coralx.schedule.stop_rules import judge, judgeable
from coralx.system.files import verify_folder


class Asha:
    """The `Scheduler` of genomes that are promoted one by one. All that is left is one round."""

    def __init__(
        self, context: RunContext, population: Population, derivation: DerivationPhase
    ) -> None:
        self._context = context
        self._history = context.history
        self._config = context.state.config
        self._stages = context.state.stages
        self._population = population
        self._derivation = derivation
        self._derivations: list[DeriveJob] = []
        """The round, where it is one of derivations."""
        self._outcomes = 0
        self._is_trained = False
        self._is_closed = False
        self._is_exhausted = False
        self._under_way: dict[str, Job] = {}
        self._verdicts: dict[tuple[str, str], Verdict] = {}
        """By genome and stage."""
        self._newborn: deque[Genome] = deque()
        """Genomes that have not begun."""
        self._promoted: tuple[deque[Genome], ...] = ()
        """By stage: who is to train it next."""
        self._rungs: dict[tuple[int, int], list[StageResult]] = {}
        """By place and bracket: what has come of the rung so far."""
        self._news: set[tuple[int, int]] = set()
        """Rungs with results since the last promotions."""
        self._warnings: dict[str, tuple[str, ...]] = {}
        """By stage: those of its last judgement."""

    def _take_up(self) -> None:
        """Stand where the history ends: who is ready for which stage, and what the rungs hold."""
        self._stages = self._context.state.stages  # which are scored is known once a run has begun
        self._newborn.clear()
        self._promoted = tuple(deque() for _ in self._stages)
        self._rungs.clear()
        for decision in self._history.decisions.values():
            for verdict in decision.verdicts:
                self._verdicts[verdict.genome, decision.stage] = verdict
        places = {stage.name: stage.place for stage in self._stages}
        for genome in self._history.genomes.values():
            if genome.derived is None and self._may_train(genome, genome.enters):
                self._newborn.append(genome)
        for (genome_id, stage), verdict in self._verdicts.items():
            genome = self._history.genomes[genome_id]
            if isinstance(verdict, Promote) and self._may_train(genome, places[stage] + 1):
                self._promoted[places[stage] + 1].append(genome)
        for genome_id, stage in self._history.results:
            if self._history.genomes[genome_id].derived is None:
                self._file(genome_id, self._stages[places[stage]])

    def _may_train(self, genome: Genome, place: int) -> bool:
        """Whether the genome has neither trained the stage nor failed."""
        is_trained = (genome.id, self._stages[place].name) in self._history.results
        return not is_trained and not self._history.has_failed(genome.id)

    def _file(self, genome: str, stage: Stage) -> None:
        """A result joins its rung: a stage of one bracket, over all generations."""
        rung = stage.place, self._history.genomes[genome].bracket
        self._rungs.setdefault(rung, []).append(self._history.results[genome, stage.name])
        self._news.add(rung)

    def begin(self, under_way: Collection[str]) -> list[Path] | None:
        """Take up all that is left; once that has trained, what is to be derived of it. What may go
        on or be a parent must be whole now, for while workers are busy nothing is trained again."""
        if self._is_closed:
            return None
        if self._is_trained:
            return [Path(source) for job in self._derivations for source in job.sources]
        self._take_up()
        layout = self._context.layout
        if layout is None:
            return []
        needed = needed_checkpoints(self._context.state)
        return [layout.checkpoint(*pair) for pair in needed if pair[0] in self._history.genomes]

    def jobs(self, *, ahead: bool) -> Iterator[Job | DeriveJob | None]:
        """Jobs for as long as there are any; None while all that is left waits for an outcome.

        Ends early where the budget does not afford the next one, with all that are under way.
        """
        if self._is_trained:
            yield from self._derivations
            while self._outcomes < len(self._derivations):
                yield None
            return
        allowance = self._context.allowance
        while (job := self._next()) is not None or self._under_way:
            if job is None:
                yield None
                continue
            steps = sum(other.last_step - other.first_step for other in self._under_way.values())
            if not allowance.affords(job, self._history.trained_steps + steps):
                while self._under_way:
                    yield None
                return
            self._under_way[job.genome.id] = job
            for source in job.sources:
                verify_folder(Path(source))
            yield job

    def done(self, genome: str) -> bool:
        """File the result in its rung. What the genome has left behind can go."""
        if self._is_trained:
            self._outcomes += 1
            return False
        job = self._under_way.pop(genome)
        # A job that failed for good has left no result to file.
        stage = next(stage for stage in self._stages if stage.name == job.stage)
        if (genome, stage.name) in self._history.results:
            self._file(genome, stage)
        return True

    def end(self) -> bool:
        """Whether nothing was cut off; verdicts were recorded on the way."""
        self._under_way.clear()  # at a deadline workers were stopped with what they had
        if not self._is_trained or self._outcomes < len(self._derivations):
            return False
        self._conclude()
        return True

    @property
    def has_more(self) -> bool:
        """Whether something is left to train or to derive, as far as is known."""
        return not self._is_closed

    @property
    def is_deriving(self) -> bool:
        """Whether all that there was to train has trained, and its survivors are not chosen."""
        return self._is_trained and not self._is_closed

    # -- who trains what next ----------------------------------------------------------------------

    def _next(self) -> Job | None:
        """The job that a free worker gets: a promotion into the furthest stage that has one, else
        a genome that has not begun, else one of a new generation."""
        while True:
            self._stop_and_finish()
            self._promote()
            while (ready := self._take()) is not None:
                if not self._population.is_too_large(*ready):
                    return self._context.jobs.train(*ready)
            if self._breed():
                continue
            if self._under_way:
                return None
            if not self._promote_one():
                self._close()
                return None

    def _take(self) -> tuple[Genome, Stage] | None:
        """The next genome that is ready, and the stage that it is to train."""
        for stage in reversed(self._stages):  # as ASHA does: promotions before new genomes
            if self._promoted[stage.place]:
                return self._promoted[stage.place].popleft(), stage
        if not self._newborn:
            return None
        genome = self._newborn.popleft()
        return genome, self._stages[genome.enters]

    def _breed(self) -> bool:
        """Begin the next generation, if there is to be one and enough is known to breed it: half a
        population of genomes that completed a stage which is scored, or all that there will be."""
        history = self._history
        evolution = self._config.evolution
        newest = max(history.generations, default=-1)
        if newest + 1 >= evolution.generations or self._is_exhausted:
            return False
        scored = [name for name in history.known() if self._is_scored(name)]
        # With no job under way no further result will come, so few must do.
        if 2 * len(scored) < evolution.population_size and self._under_way:
            return False
        if newest >= 0 and newest not in history.populations:
            self._population.survive(newest, list(history.genomes))
        newborn = self._population.of(newest + 1)
        self._newborn.extend(newborn)
        self._is_exhausted = not newborn
        return not self._is_exhausted

    def _is_scored(self, genome: str) -> bool:
        """Whether figures of validation are known of a genome."""
        result = self._history.last_result(genome)
        return any(s.is_scored for s in self._stages if result and s.name == result.stage)

    # -- who goes on -------------------------------------------------------------------------------

    def _by_stage(self, *, news: bool = False) -> Iterator[tuple[Stage, list[StageResult]]]:
        """Every rung's results, the furthest stage first; with `news` of those only in which
        something may be due."""
        for rung in sorted(self._rungs, key=lambda rung: (-rung[0], rung[1])):
            if not news or rung in self._news:
                yield self._stages[rung[0]], self._rungs[rung]

    def _stop_and_finish(self) -> None:
        """Take out whom a stop rule ends, and let those finish that completed the last stage."""
        for place in sorted({place for place, _ in self._news}, reverse=True):
            stage = self._stages[place]
            # A rule goes by all that the stage has seen, whatever their brackets.
            results = [r for other, rung in self._by_stage() if other == stage for r in rung]
            judgement = judge(stage, results, self._history.revision)
            self._warnings[stage.name] = judgement.warnings
            for result in sorted(results, key=lambda result: result.genome):
                name = result.genome
                if self._has_verdict(name, stage):
                    continue
                if name in judgement.breaches:
                    breach = judgement.breaches[name]
                    step = result.divergence.step if result.divergence else result.last_step
                    self._record(stage, Stop(name, breach.rule, breach.value, step))
                elif stage.is_last:
                    self._record(stage, Finish(name))

    def _promote(self) -> None:
        """Record the promotions that are due, the furthest stage's first."""
        for stage, results in self._by_stage(news=True):
            if stage.is_last:
                continue
            order = self._order(stage, results)
            judged = {genome for genome in order if self._has_verdict(genome, stage)}
            for genome in promotable(stage, order, len(results), judged):
                self._let_pass(genome, stage)
            self._cut_off(stage, order, len(results))
        self._news.clear()

    def _cut_off(self, stage: Stage, order: Sequence[str], completed: int) -> None:
        """Of those that wait for a promotion, as many as a population stay: the others' turn would
        hardly come, and their checkpoints would fill the disk with every generation."""
        waiting = [
            (place, genome)
            for place, genome in enumerate(order, start=1)
            if not self._has_verdict(genome, stage)
        ]
        quota = math.floor(stage.survival_rate * completed)
        for place, genome in waiting[self._config.evolution.population_size :]:
            self._record(stage, Cut(genome, place, quota))

    def _let_pass(self, name: str, stage: Stage) -> None:
        self._record(stage, Promote(name))
        genome = self._history.genomes[name]
        if self._may_train(genome, stage.place + 1):
            self._promoted[stage.place + 1].append(genome)

    def _promote_one(self) -> bool:
        """At the very end, where a stage was too small to let anyone pass: its best one goes on."""
        for stage, results in self._by_stage():
            if stage.is_last:
                continue
            waiting = [
                genome
                for genome in self._order(stage, results)
                if not self._has_verdict(genome, stage)
            ]
            # Where someone was promoted before, the rung has done what its rate asks for.
            if waiting and not any(self._is_promoted(r.genome, stage) for r in results):
                self._let_pass(waiting[0], stage)
                return True
        return False

    def _order(self, stage: Stage, results: Sequence[StageResult]) -> list[str]:
        """The genomes of a rung that no rule of its stage took out, best first. Who went on and was
        stopped later keeps its place among them, so that nobody else gets it."""
        verdicts = {r.genome: self._verdicts.get((r.genome, stage.name)) for r in results}
        ranked = [result for result in results if not isinstance(verdicts[result.genome], Stop)]
        revision = self._history.revision
        return promotion_order(self._config, stage, ranked, len(results), revision=revision)

    def _has_verdict(self, genome: str, stage: Stage) -> bool:
        return (genome, stage.name) in self._verdicts

    def _is_promoted(self, genome: str, stage: Stage) -> bool:
        return isinstance(self._verdicts.get((genome, stage.name)), Promote)

    def _record(self, stage: Stage, verdict: Verdict) -> None:
        self._verdicts[verdict.genome, stage.name] = verdict
        generation = self._history.genomes[verdict.genome].generation
        result = self._history.results.get((verdict.genome, stage.name))
        is_judged = result is None or isinstance(verdict, Stop) or judgeable(stage, result)
        not_judged = () if is_judged else (verdict.genome,)
        self._context.ledger.append(StageDecided(generation, stage.name, (verdict,), not_judged))

    def _close(self) -> None:
        """Nothing is trained any more: a verdict for whoever has none."""
        # What a resumed run has recorded before is not recorded again: see the guards below.
        newest = max(self._history.generations)
        for name, warnings in self._warnings.items():
            if warnings and newest not in self._history.populations:
                self._context.ledger.append(StageDecided(newest, name, (), warnings=warnings))
        for stage, results in reversed(list(self._by_stage())):
            order = self._order(stage, results)
            quota = sum(self._is_promoted(r.genome, stage) for r in results)
            for place, genome in enumerate(order):
                if not self._has_verdict(genome, stage):
                    self._record(stage, Cut(genome, place=place + 1, quota=quota))
        for failure in self._history.failures.values():
            if failure.genome in self._history.genomes:
                stage = next(s for s in self._stages if s.name == failure.stage)
                if not self._has_verdict(failure.genome, stage):
                    self._record(stage, Fail(failure.genome, failure.reason))
        self._is_trained = True

    def _conclude(self) -> None:
        """What is to be derived next; where nothing is, the last survivors."""
        newest = max(self._history.generations)
        self._outcomes, self._derivations = 0, self._derivation.jobs(newest)
        if self._derivations:
            return
        if newest not in self._history.populations:
            self._population.survive(newest, list(self._history.genomes))
        self._is_closed = True
