"""Who is born, who survives, and whose weights are worth inheriting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coralx.backends.memory_estimate import memory_warnings, why_too_large
from coralx.engine.convergence import genes_of
from coralx.engine.derivation import cuts_ranks, low_ranks_are_free
from coralx.engine.explosions import exploded
from coralx.engine.rung_estimates import generation_plan
from coralx.engine.state import RunState
from coralx.records.events import GenerationCompleted, GenerationStarted, GenomeFailed
from coralx.records.genomes import Genome
from coralx.records.jobs import StageBudget
from coralx.records.run_facts import Facts
from coralx.rng import generator
from coralx.schedule.adaptive_budgets import adapted
from coralx.schedule.adaptive_rungs import GenerationPlan, with_rates
from coralx.schedule.brackets import bracket_sizes, brackets_of
from coralx.schedule.stages import Stage
from coralx.search.indicators import diversity
from coralx.search.needless import Courses, Needless, Seen
from coralx.search.nsga2 import Standing, founders, offspring, survival_order
from coralx.search.pareto import as_minimised
from coralx.search.ranking import constraints_of, niching_of, violations
from coralx.search.recipes import own_recipes
from coralx.search.space import Categorical, Space
from coralx.search.tournament import tournament
from coralx.storage.ledger import Ledger
from coralx.text import counted


class Population:
    """Generations as the ledger records them; what it does not hold yet is founded or bred.

    `given` genomes form generation 0, drawing by the run's seed, which their ids say nothing of;
    otherwise it is founded from the search space.
    """

    def __init__(
        self,
        state: RunState,
        facts: Facts,
        ledger: Ledger,
        given: Sequence[Genome] = (),
    ) -> None:
        config = state.config
        self.config = config
        started = state.history.started
        self._experience = started.experience if started is not None else None
        self.space = state.space
        self._evolution = config.evolution
        if not config.hyperband_config.enable_hyperband:
            # Naive training, which the search is compared with, never inherits.
            self._evolution = config.evolution.model_copy(update={"inherit": "off"})
        self._facts = facts
        self._footprint = facts.footprint
        self._ledger = ledger
        self._state = state
        self._history = state.history
        self._given = tuple(given)

    def of(self, generation: int) -> tuple[Genome, ...]:
        """The genomes of a generation; none where the space holds no further one."""
        if generation in self._history.generations:
            return self._history.generations[generation]
        plan = generation_plan(self._state, generation)
        births = plan.births if plan else self._evolution.births(generation)
        dealt = self._in_brackets(self._born(generation, births), generation)
        genomes = self._with_controls(dealt, generation, plan.controls if plan else 0)
        if genomes:
            planned = len(self._given) or births
            short = (
                f"the search space holds no more configurations: {len(genomes)} of "
                f"{counted(planned, 'genome')}"
            )
            warnings = memory_warnings(self._footprint, genomes, self.config.model.max_length)
            if len(genomes) < planned:
                warnings = (short, *warnings)
            budgets, spread = self._budgets(generation, len(genomes), plan)
            event = GenerationStarted(generation, tuple(genomes), warnings, budgets, spread)
            self._ledger.append(event)
        return tuple(genomes)

    def _born(self, generation: int, births: int) -> list[Genome]:
        seed = self.config.experiment.seed
        if generation == 0 and self._given:
            return [replace(genome, seed=seed) for genome in self._given]
        if generation == 0:
            own = own_recipes(self.config, self.space)
            learned = self._experience.founders if self._experience is not None else ()
            known = [founder.genes for founder in learned]
            size = self._evolution.population_size
            return founders(self.space, size, seed, own, known, self._seen(), self._core())
        parents = self._breeders(self._history.populations[generation - 1])
        contest = tournament(
            [self._standing(genome) for genome in parents],
            self.config.objectives,
            constraints_of(self.config),
            by_crowding=self._evolution.selection == "nsga2",
            revision=self._history.revision,
        )
        return offspring(
            population=[self._history.genomes[genome] for genome in parents],
            seen=self._seen(),
            donors=self._donors(parents),
            space=self.space,
            evolution=self._evolution,
            generation=generation,
            seed=seed,
            contest=contest,
            births=births,
            core=self._core(),
            revision=self._history.revision,
        )

    def _seen(self) -> Seen:
        """What need not be trained by what is known so far."""
        state, history = self._state, self._history
        trained = history.trained_genes()
        if history.revision < 4:
            return Seen(trained)
        finished = [history.genomes[name] for name in state.finished()]
        courses = Courses(
            trained,
            finished=[genome.genes for genome in finished if genome.derived is None],
            exploded=[history.genomes[name].genes for name in sorted(exploded(history))],
        )
        layers = self._footprint.linear if self._footprint is not None else ()
        return Needless(courses, cuts=cuts_ranks(state), layers=[name for name, *_ in layers])

    def _core(self) -> Space | None:
        """The part of the space that is worth training, if that is not all of it: where low ranks
        come by cuts, high ones."""
        is_new = self._history.revision >= 4
        if not (is_new and low_ranks_are_free(self._state, self._facts)):
            return None
        core = self.space.with_high_ranks()
        return core if self._holds(core) else None

    def _holds(self, space: Space) -> bool:
        """Whether a device can hold the largest adapters of the space, as far as is known."""
        rank, modules = space.genes.get("rank"), space.genes.get("target_modules")
        highest = space.common.rank if rank is None else int(rank.decode(1.0))
        lists = modules.values if isinstance(modules, Categorical) else ()
        return not any(
            why_too_large(self._footprint, replace(space.common, rank=highest, target_modules=one))
            for one in lists or (space.common.target_modules,)
        )

    def _breeders(self, population: Sequence[str]) -> list[str]:
        """Of each lineage of the population its best on the first objective: those derived of one
        genome share its genes, and would leave no others to be crossed with."""
        metrics = [self._standing(genome).metrics for genome in population]
        missed = violations(metrics, constraints_of(self.config)).tolist()
        firsts = np.nan_to_num(as_minimised(metrics, self.config.objectives)[:, 0], nan=np.inf)
        best: dict[str, tuple[float, float, str]] = {}
        for key in zip(missed, firsts.tolist(), population, strict=True):
            root = self._history.root(key[2])
            best[root] = min(best.get(root, key), key)
        return [genome for _, _, genome in best.values()]

    def _in_brackets(self, genomes: Sequence[Genome], generation: int) -> list[Genome]:
        """Deal the genomes out to the brackets by lot."""
        brackets = brackets_of(self.config.hyperband_config)
        if brackets == 1 or not genomes:
            return list(genomes)
        sizes = bracket_sizes(self._state.stages, brackets, len(genomes))
        rng = generator(self.config.experiment.seed, "brackets", generation)
        # By lot, since the order of birth is no accident: a user's own recipes come first.
        lots = rng.permutation([k for k, size in enumerate(sizes) for _ in range(size)])
        return [
            replace(genome, bracket=int(lot), enters=int(lot))
            for genome, lot in zip(genomes, lots, strict=True)
        ]

    def _with_controls(self, genomes: list[Genome], generation: int, controls: int) -> list[Genome]:
        """The genomes, of which so many are drawn by lot for the control group."""
        if not controls:
            return genomes
        rng = generator(self.config.experiment.seed, "control", generation)
        drawn = set(rng.permutation(len(genomes))[:controls].tolist())
        return [replace(g, is_control=place in drawn) for place, g in enumerate(genomes)]

    def _budgets(
        self, generation: int, genomes: int, plan: GenerationPlan | None
    ) -> tuple[tuple[StageBudget, ...], float | None]:
        """What each stage gets, and the parents' diversity relative to the founders'."""
        if plan is not None:
            return with_rates(self._state.stages, plan.rates), None
        schedule = self.config.hyperband_config
        # Founders have no parents whose diversity could tell how far the search has come.
        if generation == 0 or not (schedule.adaptive_budgets and schedule.enable_hyperband):
            return (), None
        # The copies that replaced some of them later are no founders.
        founded = [g for g in self._history.generations[0] if g.continues is None]
        first = [genome.genes for genome in founded]
        parents = self._history.populations[generation - 1]
        now = diversity(self.space, genes_of(self._history, parents))
        relative = now / max(diversity(self.space, first), 1e-12)
        longest = self._state.longest_epoch
        return adapted(self._state.stages, genomes, relative, longest), relative

    def _donors(self, genomes: Sequence[str]) -> list[str]:
        """Those that have weights which never exploded or ran into numbers that are not finite."""
        if self._evolution.inherit == "off":
            return []
        results = self._history.results.values()
        spoilt = {
            r.genome for r in results if r.divergence is not None and r.divergence.ruins_weights
        }
        return [
            genome
            for genome in self._state.succession.donors(self._history, genomes)
            if genome not in spoilt and self._history.last_result(genome) is not None
        ]

    def survive(self, generation: int, pool: Sequence[str]) -> None:
        """Record the parents of the next generation: the best of `pool`. What is derived takes no
        place from what was trained."""
        standings = [self._standing(genome) for genome in pool]
        size = self._evolution.population_size
        niching = niching_of(self.config, size, "survive", generation)
        constraints = constraints_of(self.config)
        revision = self._history.revision
        order = survival_order(standings, self.config.objectives, constraints, niching, revision)
        self._ledger.append(GenerationCompleted(generation, self._survivors(order, size)))

    def _survivors(self, order: Sequence[str], size: int) -> tuple[str, ...]:
        """The first of `order`: a population's worth of lineages, and of derived genomes at most as
        many. Where nothing was derived, every genome is a lineage of its own."""
        lineages: set[str] = set()
        kept: list[str] = []
        derived = 0
        for genome in order:
            root = self._history.root(genome)
            if root not in lineages and len(lineages) == size:
                break
            lineages.add(root)
            if genome == root or derived < size:
                kept.append(genome)
                derived += genome != root
        return tuple(kept)

    def is_too_large(self, genome: Genome, stage: Stage) -> bool:
        """Whether no worker could hold the genome: then it is failed at once, rather than on every
        attempt at the stage."""
        reason = why_too_large(self._footprint, genome.genes)
        if reason is not None:
            self._ledger.append(GenomeFailed(genome.generation, genome.id, stage.name, reason))
        return reason is not None

    def _standing(self, genome: str) -> Standing:
        result = self._history.last_result(genome)
        places = {stage.name: stage.place for stage in self._state.stages}
        return Standing(
            genome=genome,
            place=places[result.stage] if result else -1,
            metrics=result.metrics if result else {},
            taken_out=self._history.is_taken_out(genome),
        )
