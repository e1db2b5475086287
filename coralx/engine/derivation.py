"""Which adapters are derived after a generation's last stage, before its survivors are chosen.

A phase goes in rounds. What a round tries follows from the finishers and from what the rounds
before it brought, so a resumed run comes to the same rounds, and takes from the ledger what they
brought already: neither the number of workers nor the order of completion decides anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import islice

from coralx.backends.choice import holds_half
from coralx.config import Config
from coralx.config.metric_catalogue import metric_entry
from coralx.engine.jobs import JobMaker
from coralx.engine.state import RunState
from coralx.records.derivations import Derivation, Operator
from coralx.records.genomes import Genome
from coralx.records.jobs import DeriveJob
from coralx.records.results import Metrics
from coralx.records.run_facts import Facts
from coralx.rng import derive_seed
from coralx.schedule.adaptive_rungs import cost_of
from coralx.schedule.derivation_budget import (
    affordable_looks,
    group_costs,
    look_cost,
    round_size,
    sample_cost,
)
from coralx.search.derivation_aims import Aims, Finisher, Look, lower_ranks, useful_operators
from coralx.search.derivation_gains import Gains
from coralx.search.derivations import propose
from coralx.search.module_groups import module_groups
from coralx.search.ranking import constraints_of
from coralx.search.space import Space, space_of

FIRST_REVISION = 3
"""Runs of earlier versions derive nothing, and end as they would have."""

BEFORE_THE_LAST = Fraction(1, 2)
"""Of what derivations may cost, generations before the last take so much at most: what they derive
is bred from, but better adapters may come, and the last word is with these."""


def derives(state: RunState) -> bool:
    """Whether the run derives adapters at all: what a look brings is told in the box that was
    recorded at its start, and where figures of training are wanted, nothing can be brought."""
    config, started = state.config, state.history.started
    if started is not None and not started.reference:
        return False
    is_new = state.history.revision >= FIRST_REVISION
    is_on = config.hyperband_config.enable_hyperband and config.evolution.derive.is_on
    return is_new and is_on and bool(_operators(config))


def cuts_ranks(state: RunState) -> bool:
    """Whether the run cuts finished adapters to lower ranks, as smaller ones are wanted."""
    return derives(state) and "truncate" in _operators(state.config)


def low_ranks_are_free(state: RunState, facts: Facts) -> bool:
    """Whether whatever is trained can be cut, and will be. Not where DoRA is searched, whose
    adapters cannot be, nor where a size is limited, which adapters of high rank would miss before
    they are cut. Under asynchronous promotion nothing is cut before all has trained, which a budget
    may not allow; and what derivations may cost may afford too few."""
    config = state.config
    space = space_of(config)
    has_dora = space.common.use_dora or "use_dora" in space.genes
    if not cuts_ranks(state) or has_dora or _limits_size(state):
        return False
    is_in_time = config.hyperband_config.promotion == "synchronous"
    return is_in_time and _planned_looks(state, facts) >= len(_left_out(space))


def least_trained_rank(state: RunState, facts: Facts) -> int | None:
    """The lowest rank that is trained, where those below it come by cuts, unless a device cannot
    hold the highest; None where all ranks are trained."""
    space = space_of(state.config)
    if state.history.revision < 4 or not _left_out(space) or not low_ranks_are_free(state, facts):
        return None
    return int(space.with_high_ranks().genes["rank"].decode(0.0))


def _limits_size(state: RunState) -> bool:
    """Whether a constraint or a stop rule may take genomes out for what follows from their size."""
    rules = [rule for stage in state.stages for rule in stage.stop_when]
    limits = (*constraints_of(state.config), *rules)
    limited = {metric_entry(one.metric).source for one in limits}
    return not limited.isdisjoint({"adapter", "measurement"})


def _planned_looks(state: RunState, facts: Facts) -> int:
    """The looks that all generations will pay for, by what they train if no rule stops a genome."""
    config, stages = state.config, state.stages
    evolution, rates = config.evolution, [stage.survival_rate for stage in stages]
    births = [evolution.births(generation) for generation in (0, 1)]
    first, later = (cost_of(stages, rates, count) for count in births)
    trainings = first + (evolution.generations - 1) * later
    rows = trainings * stages[-1].planned_steps(1) * facts.rows["train"]
    return affordable_looks(evolution.derive.share, rows, _look_cost(config, facts))


def _left_out(space: Space) -> Sequence[int]:
    """The ranks that cuts must make, as derivations try them, where only high ones are trained."""
    rank, core = space.genes.get("rank"), space.with_high_ranks().genes.get("rank")
    return () if core is None else lower_ranks(rank, int(core.decode(0.0)))


def _operators(config: Config) -> tuple[Operator, ...]:
    """Those that can lead to what the run is after."""
    named = config.evolution.derive.operators
    return useful_operators(named, config.objectives, constraints_of(config))


class DerivationPhase:
    """The rounds of each generation's phase."""

    def __init__(self, state: RunState, jobs: JobMaker, facts: Facts) -> None:
        self._state = state
        self._history = state.history
        self._jobs = jobs
        task = state.config.model.task
        self._cost = _look_cost(state.config, facts)
        in_full = _scores_in_full(state.config, facts)
        self._sample_cost = partial(sample_cost, task, facts.rows, scores_in_full=in_full)
        layers = facts.footprint.linear if facts.footprint is not None else ()
        groups = module_groups([name for name, *_ in layers])
        self._group_costs = group_costs(len(groups), self._cost)
        self._gains = Gains()
        self._counted = 0
        """How many of the history's results are in the two below."""
        self._trained_rows: Counter[int] = Counter()
        """By generation: rows that its genomes have trained on, those of each step."""
        self._scorings: Counter[tuple[int, str]] = Counter()
        """By generation and stage: how many genomes have completed it."""

    def jobs(self, generation: int) -> list[DeriveJob]:
        """What the phase of a generation whose last stage is decided is to derive next; none where
        it is over."""
        if not derives(self._state) or generation in self._history.populations:
            return []
        genomes = self._round(generation)
        return [self._jobs.derive(genome) for genome in genomes]

    def _round(self, generation: int) -> list[Genome]:
        """The first round of which the ledger does not hold everything: what is missing of it."""
        aims, trained = self._aims(), self._trained(generation)
        looks = [look for earlier in range(generation) for look in self._looks(earlier, aims)]
        made = {look.genome.id: look for look in self._looks(generation, aims)}
        left = self._affordable(generation) - sum(look.cost for look in looks)
        size, place = round_size(left), 0
        while left > 0:
            derivations = propose(
                aims, trained, looks, generation, most=size, left=left, gains=self._gains
            )
            genomes = [
                self._genome(derivation, generation, place + index)
                for index, derivation in enumerate(derivations)
            ]
            missing = [genome for genome in genomes if genome.id not in made]
            if missing or not genomes:
                return missing
            done = [made[genome.id] for genome in genomes]
            looks += done
            left -= sum(look.cost for look in done)
            place += len(done)
        return []

    def _affordable(self, generation: int) -> int:
        """The looks that the stages up to the generation pay for."""
        self._count()
        spent = Fraction(sum(rows for g, rows in self._trained_rows.items() if g <= generation))
        for (place, stage), times in self._scorings.items():
            if place <= generation:
                spent += times * self._scored(place, stage)
        evolution = self._state.config.evolution
        is_last = generation == evolution.generations - 1
        share: Fraction = evolution.derive.share * (1 if is_last else BEFORE_THE_LAST)
        return affordable_looks(share, spent, self._cost)

    def _count(self) -> None:
        """Count what has come since: results are only ever added."""
        history = self._history
        for (name, stage), result in islice(history.results.items(), self._counted, None):
            genome = history.genomes[name]
            if genome.derived is None:
                self._trained_rows[genome.generation] += result.steps * genome.genes.batch_size
                self._scorings[genome.generation, stage] += 1
        self._counted = len(history.results)

    def _scored(self, generation: int, name: str) -> Fraction:
        """What scoring one of its genomes at the end of a stage cost."""
        stages = self._state.stages_in(generation)
        stage = next(stage for stage in stages if stage.name == name)
        if not stage.is_scored:
            return Fraction(0)
        return self._cost if stage.eval_limit is None else self._sample_cost(stage.eval_limit)

    def _aims(self) -> Aims:
        config, started = self._state.config, self._history.started
        return Aims(
            objectives=config.objectives,
            constraints=constraints_of(config),
            axes=started.reference if started is not None else (),
            operators=config.evolution.derive.operators,
            rank=space_of(config).genes.get("rank"),
            first_group=float(self._group_costs[0]),
            further_group=float(self._group_costs[1]),
        )

    def _trained(self, generation: int) -> list[Finisher]:
        """Those who were trained to the end by then."""
        there = self._there()
        return [
            Finisher(genome, self._metrics(name), name in there, self._history.founder(name))
            for name in self._state.finished()
            if (genome := self._history.genomes[name]).derived is None
            and genome.generation <= generation
        ]

    def _looks(self, generation: int, aims: Aims) -> list[Look]:
        """What was tried in a generation's phase, in the order of proposal."""
        there, history = self._there(), self._history
        genomes = [*history.derived.get(generation, ())]
        failed = [one.genome for one in history.not_derived.values()]
        genomes += [genome for genome in failed if genome.generation == generation]
        looks = []
        for genome in sorted(genomes, key=lambda genome: _place_in(genome.id)):
            result = history.results.get((genome.id, self._state.last_stage))
            cost = aims.cost(genome.derived) if genome.derived is not None else 1
            metrics = result.metrics if result is not None else None
            looks.append(Look(genome, metrics, cost, genome.id in there))
        return looks

    def _there(self) -> set[str]:
        """Whose checkpoints are kept throughout a phase: never what only later rounds bring about,
        such as the front."""
        return self._state.succession.living(self._history, is_exhausted=False)

    def _metrics(self, genome: str) -> Metrics:
        return self._history.results[genome, self._state.last_stage].metrics

    def _genome(self, derivation: Derivation, generation: int, place: int) -> Genome:
        """The genome that is to be derived, as far as that is known."""
        first = self._history.genomes[derivation.sources[0]]
        genes = first.genes
        if derivation.rank is not None:
            genes = replace(genes, rank=derivation.rank)
        name = self._name(generation, place)
        return Genome(name, generation, genes, derivation.sources, derived=derivation)

    def _name(self, generation: int, place: int) -> str:
        """An id that depends on seed, generation and place alone, and on those that were given."""
        seed, attempt = self._state.config.experiment.seed, 0
        while True:
            tag = derive_seed(seed, "derived", generation, place, attempt) & 0xFFFF
            name = f"d{generation:02d}-{place:02d}-{tag:04x}"
            genome = self._history.genomes.get(name)
            if genome is None or genome.derived is not None:
                return name
            attempt += 1  # a genome of a population that was given happens to be called so


def _place_in(name: str) -> int:
    """The place in its generation's phase, which an id holds."""
    return int(name.split("-")[1])


def _look_cost(config: Config, facts: Facts) -> Fraction:
    """What scoring an adapter as the last stage does costs, in trained rows."""
    tokens, in_full = _tokens_per_attack(config), _scores_in_full(config, facts)
    return look_cost(config.model.task, facts.rows, tokens, scores_in_full=in_full)


def _scores_in_full(config: Config, facts: Facts) -> bool:
    """Whether adapters are scored in a higher precision than they are trained in."""
    # What is held in 16 bits is scored so, and on a GPU alone.
    in_half = facts.device.startswith("cuda") and holds_half(config.model.task, facts.backend)
    return facts.precision in ("bf16", "fp16") and not in_half


def _tokens_per_attack(config: Config) -> int:
    """How long answers are, at most, by which attacks are judged; 0 where rows are classified."""
    usual = "refusal" if config.model.task == "sft" else "flagged"
    attacks = [one.attacks for one in config.data.sources.values() if one.attacks is not None]
    answered = [one.max_new_tokens for one in attacks if (one.judge or usual) != "flagged"]
    return max(answered, default=0)
