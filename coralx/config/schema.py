"""The config as a whole: its sections, and the checks that concern more than one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from coralx.config.base_kind import kind_of_base
from coralx.config.conditions import (
    check_constraint,
    parse_constraint,
    parse_rule,
    refuse_contradictions,
)
from coralx.config.data import METRIC_DATA, Data, key_of
from coralx.config.evidence import learning_rate_prior
from coralx.config.evolution import Evolution, Objective, full_weights
from coralx.config.experiment import Experiment, Model
from coralx.config.gene_forms import IntChoices
from coralx.config.hyperband import (
    HyperbandConfig,
    TrainingStage,
    ranked_as_in,
    with_defaults,
)
from coralx.config.metric_catalogue import (
    CAUSAL,
    CLASSIFICATION,
    QUALITY,
    Direction,
    default_objectives,
    is_function,
    metric_entry,
    require_offered,
    split_metric_name,
)
from coralx.config.runtime import Budget, Runtime, Training
from coralx.config.search_space import SearchSpace
from coralx.config.section import Section

Constraint = Annotated[str, BeforeValidator(check_constraint)]
"""What must hold of a genome, `metric op number`; op is one of < <= > >=."""


class Config(Section):
    """A whole config. Every section has a default, and so has nearly every key.

    Pydantic checks fields in their order, so a validator of one sees those above it in `info.data`;
    one that was refused is missing there.
    """

    experiment: Experiment = Experiment()
    model: Model = Model()
    data: Data = Data()
    search_space: SearchSpace = SearchSpace()
    evolution: Evolution = Evolution()
    objectives: Annotated[tuple[Objective, ...], Field(min_length=1, max_length=100)] = Field(
        default_factory=lambda data: tuple(
            Objective(metric=metric) for metric in default_objectives(data["model"].task)
        ),
        description="What the search optimises; a cut inside a front keeps the best on the first. "
        "Default: `auroc` (sft: `eval_loss`) and `trainable_parameters`.",
    )
    constraints: Annotated[tuple[Constraint, ...], Field(max_length=100)] = Field(
        default=(),
        description="What must hold of a genome, each `metric op number` with < <= > >=. One that "
        "misses any ranks behind all that meet them; of two that miss, the nearer is better.",
    )
    hyperband_config: HyperbandConfig = HyperbandConfig()
    training: Training = Training()
    runtime: Runtime = Runtime()
    budget: Budget = Budget()

    @model_validator(mode="before")
    @classmethod
    def _objectives_constraints_stand_with_the_others(cls, data: Any) -> Any:
        """An objective's `constraint: ">= 0.8"` is short for one of `constraints`."""
        objectives = data.get("objectives") if isinstance(data, dict) else None
        if not isinstance(objectives, list | tuple):
            return data
        plain_objectives, moved = [], list[str]()
        for objective in objectives:
            bound = objective.get("constraint") if isinstance(objective, dict) else None
            # Any known metric shows whether the bound can be read; one that cannot stays in its
            # place, and `Objective` reports it.
            if isinstance(bound, str) and _is_constraint(f"eval_loss {bound}"):
                constraint = f"{objective.get('metric')} {bound}"
                if _is_constraint(constraint):  # else `Objective` reports the metric
                    moved.append(constraint)
                objective = {k: v for k, v in objective.items() if k != "constraint"}
            plain_objectives.append(objective)
        constraints = data.get("constraints", [])
        if moved and isinstance(constraints, list | tuple):
            constraints = [*constraints, *moved]
        return {**data, "objectives": plain_objectives, "constraints": constraints}

    @field_validator("data", mode="after")
    @classmethod
    def _is_read_by_the_task(cls, data: Data, info: ValidationInfo) -> Data:
        """Keys that the task would ignore are refused."""
        if "model" not in info.data:
            return data
        task, defaults = info.data["model"].task, Data()
        readers = {
            "prompt": ("label-tokens",),
            "chat": CAUSAL,
            "labels": CLASSIFICATION,
            "group": CLASSIFICATION,
            "clean_holdout": CLASSIFICATION,
        }
        for key, tasks in readers.items():
            for source in data.sources.values():
                if task not in tasks and getattr(source, key) != getattr(defaults, key):
                    raise ValueError(f"`{key}` is for {' and '.join(tasks)}; model.task is {task}")
        for name, source in data.sources.items():
            if source.attacks is not None:
                source.attacks.require_fit(task, key_of(name, "attacks"))
        return data

    @field_validator("search_space", mode="after")
    @classmethod
    def _left_out_has_a_prior(cls, space: SearchSpace, info: ValidationInfo) -> SearchSpace:
        """A gene that is left out gets its prior from the evidence. It is written out like any
        other default, so that a run keeps it. The validation's context may name the `folder` of the
        config's file, below which a local base may lie."""
        if "learning_rate" in space.model_fields_set or "model" not in info.data:
            return space
        folders = [Path(), *([info.context["folder"]] if info.context else [])]
        prior = learning_rate_prior(kind_of_base(info.data["model"], folders))
        default = space.learning_rate.model_copy(update=prior)
        values = {**dict(space), "learning_rate": default}
        # Still not among the fields that were set: a resumed run then goes on with its own.
        return SearchSpace.model_construct(_fields_set=space.model_fields_set, **values)

    @field_validator("objectives", mode="after")
    @classmethod
    def _are_distinct_and_offered(
        cls, objectives: tuple[Objective, ...], info: ValidationInfo
    ) -> tuple[Objective, ...]:
        names = [objective.metric for objective in objectives]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]!r} is listed twice")
        if all(objective.weight == 0 for objective in objectives):
            raise ValueError("every `weight` is 0: set one above 0, or leave all of them out")
        if "model" in info.data:
            require_offered(info.data["model"].task, names)
        return objectives

    @field_validator("constraints", mode="after")
    @classmethod
    def _can_be_met(cls, constraints: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        refuse_contradictions(constraints)
        if "model" in info.data:
            names = [parse_constraint(text).metric for text in constraints]
            require_offered(info.data["model"].task, names)
        return constraints

    @field_validator("hyperband_config", mode="after")
    @classmethod
    def _stages_are_complete(
        cls, hyperband: HyperbandConfig, info: ValidationInfo
    ) -> HyperbandConfig:
        """Stop rules, `eval_limit` and what a preset ranks by written out; every metric is one that
        the task offers."""
        if "model" not in info.data:
            return hyperband
        task, stages = info.data["model"].task, hyperband.training_stages
        if hyperband.preset is not None and "objectives" in info.data:
            stages = ranked_as_in(hyperband.preset, stages, _only_skill(info.data["objectives"]))
        stages = with_defaults(stages, task)
        for stage in stages:
            try:
                require_offered(task, _metrics_of(stage))
            except ValueError as error:
                raise ValueError(f"stage {stage.name!r}: {error}") from None
        return hyperband.model_copy(update={"training_stages": stages})

    @model_validator(mode="after")
    def _metrics_have_what_they_need(self) -> Config:
        """Raise ValueError for a metric of a task that is not there, or without its data."""
        sources = self.data.sources
        for name in self.named_metrics:
            metric, task = split_metric_name(name)
            if task and not self.data.tasks:
                raise ValueError(f"{name!r} names a task, but `data.tasks` is not set")
            if task and task not in sources:
                known = ", ".join(sources)
                raise ValueError(f"{name!r} names no task of `data.tasks`, which has {known}")
            needs = metric_entry(metric).needs
            judged = [sources[task]] if task else sources.values()
            # For a figure of all tasks together, one task that can be judged is enough.
            if needs and all(getattr(source, needs) is None for source in judged):
                where = key_of(task, needs)
                raise ValueError(f"the metric {name!r} needs `{where}`: {METRIC_DATA[needs]}")
        return self

    @model_validator(mode="after")
    def _own_metrics_have_a_direction(self) -> Config:
        listed = {objective.metric for objective in self.objectives}
        for stage in self.hyperband_config.training_stages:
            by = stage.promote_by
            if by is not None and metric_entry(by).direction is None and by not in listed:
                raise ValueError(
                    f"stage {stage.name!r} promotes by {by!r}, but only an entry of `objectives` "
                    "can say whether more of it is better: list it there"
                )
        return self

    @property
    def named_metrics(self) -> tuple[str, ...]:
        """Every metric that it names anywhere, each once."""
        names = [objective.metric for objective in self.objectives]
        names += [parse_constraint(text).metric for text in self.constraints]
        for stage in self.hyperband_config.training_stages:
            names += _metrics_of(stage)
        return tuple(dict.fromkeys(names))

    @property
    def weights(self) -> dict[str, float] | None:
        """The weight of each objective in the report's weighted sum, by metric; None: no sum."""
        return full_weights({objective.metric: objective.weight for objective in self.objectives})

    def direction_of(self, metric: str) -> Direction:
        """Which side of a metric is better: what an objective sets, else the natural one."""
        for objective in self.objectives:
            if objective.metric == metric and objective.direction is not None:
                return objective.direction
        return metric_entry(metric).direction or "minimize"

    @property
    def batch_sizes(self) -> Sequence[int]:
        """How many rows a step a genome of the space may have, the fewest first."""
        gene = self.search_space.batch_size
        if gene is None:
            return (self.training.batch_size,)
        if isinstance(gene, IntChoices):
            return sorted(gene.choices)
        return range(gene.low, gene.high + 1)

    @property
    def known_rows(self) -> int:
        """Training rows as far as the config says how many there are, which is what simulations go
        by; 0 where neither `data.steps_per_epoch` nor `data.limit` is set."""
        steps = self.data.steps_per_epoch
        return self.data.known_rows if steps is None else steps * self.training.batch_size

    @property
    def longest_text(self) -> int:
        """The most tokens that the base reads at once: a row, or a prompt with its answer."""
        attacks = [s.attacks for s in self.data.sources.values() if s.attacks is not None]
        answers = [a.max_new_tokens for a in attacks if a.file is not None]
        return self.model.max_length + max(answers, default=0)

    @property
    def functions(self) -> tuple[str, ...]:
        """The user's own functions that it names: metrics and judges, each once."""
        judges = [s.attacks.judge for s in self.data.sources.values() if s.attacks is not None]
        names = [split_metric_name(name)[0] for name in self.named_metrics]
        named = [name for name in (*names, *judges) if name is not None and is_function(name)]
        return tuple(dict.fromkeys(named))

    @model_validator(mode="after")
    def _schedules_agree(self) -> Config:
        """Ways of scheduling that exclude each other are refused."""
        schedule, evolution = self.hyperband_config, self.evolution
        problems = []
        if schedule.brackets > evolution.population_size:
            problems.append(
                f"`hyperband_config.brackets` is {schedule.brackets}, but "
                f"`evolution.population_size` is {evolution.population_size}: each bracket needs "
                "a genome at least"
            )
        if schedule.promotion == "asynchronous" and evolution.pbt_quantile:
            problems.append(
                "`evolution.pbt_quantile` replaces genomes at a stage's end, but under "
                "`hyperband_config.promotion: asynchronous` a stage has none: leave out one of the "
                "two"
            )
        if schedule.promotion == "asynchronous" and evolution.patience is not None:
            problems.append(
                "`evolution.patience` counts completed generations, but they overlap under "
                "`hyperband_config.promotion: asynchronous`: leave out one of the two"
            )
        if schedule.rungs == "adaptive" and evolution.pbt_quantile:
            problems.append(
                "`evolution.pbt_quantile` replaces the poorest that go on from a stage, but with "
                "`hyperband_config.rungs: adaptive` the control group must stay: leave out one of "
                "the two"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _is_constraint(text: str) -> bool:
    try:
        parse_constraint(text)
    except ValueError:
        return False
    return True


def _only_skill(objectives: Sequence[Objective]) -> str | None:
    """The one objective that is a figure of quality; None where there are several."""
    skills = [o.metric for o in objectives if metric_entry(o.metric).source in QUALITY]
    return skills[0] if len(skills) == 1 else None


def _metrics_of(stage: TrainingStage) -> list[str]:
    """Every metric that a stage names."""
    rules = [parse_rule(rule).metric for rule in stage.stop_when or ()]
    promote_by = [stage.promote_by] if stage.promote_by else []
    return [*rules, *stage.proxy_metrics, *promote_by]
