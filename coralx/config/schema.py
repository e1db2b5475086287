"""The shape of a config file: every section, with every default written here."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from coralx.config.conditions import (
    check_constraint,
    parse_constraint,
    parse_rule,
    refuse_contradictions,
)
from coralx.config.data import NEEDED, Data, key_of
from coralx.config.evolution import Evolution, Objective, full_weights
from coralx.config.hyperband import HyperbandConfig, TrainingStage, with_defaults
from coralx.config.metric_catalogue import (
    CAUSAL,
    CLASSIFICATION,
    Direction,
    Task,
    default_objectives,
    described,
    is_function,
    of_task,
    offered_metrics,
)
from coralx.config.runtime import Budget, Runtime, Training
from coralx.config.search_space import IntChoices, SearchSpace
from coralx.config.section import Name, Section

Constraint = Annotated[str, BeforeValidator(check_constraint)]
"""What must hold of a genome, `metric op number`; op is one of < <= > >=."""


class Experiment(Section):
    """The run's name and the seed of every draw."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = Field(
        default="run", description="Names the run and its folder under `runs/`. `latest` is taken."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=42, description="Seeds every random draw of the run."
    )

    @field_validator("name", mode="after")
    @classmethod
    def _is_no_keyword(cls, name: str) -> str:
        if name == "latest":
            raise ValueError("`latest` means the newest run, so no run can be called so")
        return name


class Model(Section):
    """The base model, and what it is asked to do."""

    base: Name | None = Field(
        default=None,
        description="The base model: a hub id, a local folder, `builtin:minilm` or "
        "`builtin:smollm2`. Only a simulation does without.",
    )
    task: Task = Field(
        default="sequence-classification",
        description="A classification head on the base, the label words of a causal language "
        "model, or supervised fine-tuning of one.",
    )
    max_length: Annotated[int, Field(ge=4, le=1 << 24)] = Field(
        default=128,
        description="Tokens read of a row, special tokens included. At most what the base reads "
        "(RoBERTa and its kin: two fewer than `max_position_embeddings`).",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run the Python files that come with the base, on this machine with your "
        "rights. Without it none is run.",
    )


class Config(Section):
    """A whole config; every section and key has a default."""

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
        kept, found = [], list[str]()
        for objective in objectives:
            bound = objective.get("constraint") if isinstance(objective, dict) else None
            if isinstance(bound, str) and _is_constraint(f"eval_loss {bound}"):
                whole = f"{objective.get('metric')} {bound}"
                if _is_constraint(whole):  # else what is wrong with the metric is told there
                    found.append(whole)
                objective = {k: v for k, v in objective.items() if k != "constraint"}
            kept.append(objective)
        listed = data.get("constraints", [])
        if found and isinstance(listed, list | tuple):
            listed = [*listed, *found]
        return {**data, "objectives": kept, "constraints": listed}

    @field_validator("data", mode="after")
    @classmethod
    def _is_read_by_the_task(cls, data: Data, info: ValidationInfo) -> Data:
        """Keys that would be ignored are refused."""
        if "model" not in info.data:
            return data
        task, unset = info.data["model"].task, Data()
        readers = {
            "prompt": ("label-tokens",),
            "chat": CAUSAL,
            "labels": CLASSIFICATION,
            "group": CLASSIFICATION,
            "clean_holdout": CLASSIFICATION,
        }
        for key, tasks in readers.items():
            for source in data.sources.values():
                if task not in tasks and getattr(source, key) != getattr(unset, key):
                    raise ValueError(f"`{key}` is for {' and '.join(tasks)}; model.task is {task}")
        for name, source in data.sources.items():
            if source.attacks is not None:
                source.attacks.require_fit(task, key_of(name, "attacks"))
        return data

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
            raise ValueError("every `weight` is 0: give one more than 0, or leave them all out")
        if "model" in info.data:  # else it was refused, and its task is not known
            offered_metrics(info.data["model"].task, names)
        return objectives

    @field_validator("constraints", mode="after")
    @classmethod
    def _can_be_met(cls, constraints: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        refuse_contradictions(constraints)
        if "model" in info.data:
            names = [parse_constraint(text).metric for text in constraints]
            offered_metrics(info.data["model"].task, names)
        return constraints

    @field_validator("hyperband_config", mode="after")
    @classmethod
    def _stages_are_complete(
        cls, hyperband: HyperbandConfig, info: ValidationInfo
    ) -> HyperbandConfig:
        """Stop rules and `eval_limit` written out; every metric is one that the task offers."""
        if "model" not in info.data:
            return hyperband
        task = info.data["model"].task
        stages = with_defaults(hyperband.training_stages, task)
        for stage in stages:
            try:
                offered_metrics(task, _metrics_of(stage))
            except ValueError as error:
                raise ValueError(f"stage {stage.name!r}: {error}") from None
        return hyperband.model_copy(update={"training_stages": stages})

    @model_validator(mode="after")
    def _metrics_have_what_they_need(self) -> Config:
        """Raise ValueError for a metric of a task that is not there, or without its data."""
        sources = self.data.sources
        for name in self.named_metrics:
            metric, task = of_task(name)
            if task and task not in (self.data.tasks or {}):
                known = f"; there are {', '.join(sources)}" if self.data.tasks else ": it is empty"
                raise ValueError(f"{name!r} is of no task in `data.tasks`{known}")
            needs = described(metric).needs
            judged = [sources[task]] if task else sources.values()
            if needs and all(getattr(source, needs) is None for source in judged):
                where = key_of(task, needs)
                raise ValueError(f"the metric {name!r} needs `{where}`: {NEEDED[needs]}")
        return self

    @model_validator(mode="after")
    def _own_metrics_have_a_direction(self) -> Config:
        listed = {objective.metric for objective in self.objectives}
        for stage in self.hyperband_config.training_stages:
            by = stage.promote_by
            if by is not None and described(by).direction is None and by not in listed:
                raise ValueError(
                    f"stage {stage.name!r} promotes by {by!r}, of which only an entry of "
                    "`objectives` can say whether more is better: list it there"
                )
        return self

    @property
    def named_metrics(self) -> tuple[str, ...]:
        """Every metric that it names anywhere, each once."""
        names = [
            *(objective.metric for objective in self.objectives),
            *(parse_constraint(text).metric for text in self.constraints),
            *(
                name
                for stage in self.hyperband_config.training_stages
                for name in _metrics_of(stage)
            ),
        ]
        return tuple(dict.fromkeys(names))

    @property
    def weights(self) -> dict[str, float] | None:
        """What each objective counts in the report's weighted sum; None if there is to be none."""
        return full_weights({objective.metric: objective.weight for objective in self.objectives})

    def direction_of(self, metric: str) -> Direction:
        """Which side of a metric is better: as an objective says, else its natural one."""
        for objective in self.objectives:
            if objective.metric == metric and objective.direction is not None:
                return objective.direction
        return described(metric).direction or "minimize"

    @property
    def batch_sizes(self) -> tuple[int, int]:
        """The fewest and the most rows a step that a genome of the space may have."""
        gene = self.search_space.batch_size
        if gene is None:
            return self.training.batch_size, self.training.batch_size
        sizes = gene.choices if isinstance(gene, IntChoices) else (gene.low, gene.high)
        return min(sizes), max(sizes)

    @property
    def known_rows(self) -> int:
        """Training rows as far as the config tells, which is what simulations go by; 0 where
        neither `data.steps_per_epoch` nor `data.limit` does."""
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
        names = [of_task(name)[0] for name in self.named_metrics]
        found = [name for name in (*names, *judges) if name is not None and is_function(name)]
        return tuple(dict.fromkeys(found))

    @model_validator(mode="after")
    def _schedules_agree(self) -> Config:
        """Ways of scheduling that exclude each other are refused."""
        schedule, evolution = self.hyperband_config, self.evolution
        problems = []
        if schedule.brackets > evolution.population_size:
            problems.append(
                f"`hyperband_config.brackets` is {schedule.brackets}, but "
                f"`evolution.population_size` is {evolution.population_size}: each bracket needs "
                "a genome"
            )
        if schedule.promotion == "asynchronous" and evolution.pbt_quantile:
            problems.append(
                "`evolution.pbt_quantile` replaces genomes at a stage's end, which "
                "`hyperband_config.promotion: asynchronous` does not have: leave out one of the two"
            )
        if schedule.promotion == "asynchronous" and evolution.patience is not None:
            problems.append(
                "`evolution.patience` counts generations, which overlap under "
                "`hyperband_config.promotion: asynchronous`: leave out one of the two"
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


def _metrics_of(stage: TrainingStage) -> list[str]:
    """Every metric that a stage names."""
    rules = [parse_rule(rule).metric for rule in stage.stop_when or ()]
    promote_by = [stage.promote_by] if stage.promote_by else []
    return [*rules, *stage.proxy_metrics, *promote_by]
