"""The section `hyperband_config`: stages of growing budget, and how genomes go through them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from coralx.config.conditions import check_rule
from coralx.config.exact_numbers import Exact, exact, written
from coralx.config.metric_catalogue import TaskKind
from coralx.config.presets import BY_LOSS, BY_SKILL, PRESETS, Preset
from coralx.config.section import Count, MetricName, Section, Size
from coralx.text import counted

Some = Field(max_length=100)
"""How long a list may be."""

LEAST_SHARE = 0.000001
Rule = Annotated[str, BeforeValidator(check_rule)]
RankGrowth = Literal["off", "by-stage", "published"]

SANITY_RULES = ("gradient_norm > 50.0", "loss_slope > 0")
"""The default stop rules of the first stage. Norms of trainings that go well depend on the base:
below 1 with a head on MiniLM, around 5 for the loss of a few tokens through SmolLM2, and 16 to 49
with a head on SmolLM2. What is ill and stays below shows in an explosion of the loss."""

QUALITY_RULES: dict[TaskKind, tuple[str, ...]] = {
    "sequence-classification": ("auroc < 0.55",),
    "label-tokens": ("auroc < 0.55",),
    "sft": (),
}
"""The default stop rules of the stages between the first and the last, by task."""

EARLY_EVAL_LIMIT = 512
"""Validation rows that stages before the last one look at, unless they say otherwise."""


class TrainingStage(Section):
    """One rung of the schedule."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = Field(
        description="Names the stage in logs, reports and `coralx stage`."
    )
    epoch_budget: Annotated[Exact, Field(ge=LEAST_SHARE, le=1_000_000)] = Field(
        description="Passes over the stage's own share of the data, as the genome's total."
    )
    data_percentage: Annotated[Exact, Field(ge=LEAST_SHARE, le=100)] = Field(
        description="The share of the training rows, in per cent: the first of one order."
    )
    survival_rate: Annotated[Exact, Field(ge=LEAST_SHARE, le=1)] = Field(
        description="The share of the genomes that entered which go on, rounded down, at least "
        "one; all where the stage ends before eight steps with the smallest batch. The last "
        "stage's decides nothing."
    )
    stop_when: Annotated[tuple[Rule, ...], Some] | None = Field(
        default=None,
        description="Stop rules at the stage's end, each `metric op number`. Unset: gradient norm "
        "and loss slope in the first stage, `auroc < 0.55` in the middle ones.",
    )
    stop_within: Annotated[tuple[Literal["explosion", "unreachable"], ...], Some] = Field(
        default=("explosion",),
        description="What ends a genome inside the stage: an explosion of its loss, or a curve "
        "that cannot reach the losses of those that went on in earlier generations.",
    )
    proxy_metrics: Annotated[tuple[MetricName, ...], Some] = Field(
        default=(),
        description="Metrics to compute beside objectives, constraints and rules: memory, "
        "latency_ms, your own. The rest is computed anyway.",
    )
    promote_by: MetricName | None = Field(
        default=None, description="Rank by this one metric instead of the objectives."
    )
    eval_limit: Count | None = Field(
        default=None,
        description="Validation rows to score. Unset: 512. The last stage scores the whole split "
        "and takes no limit.",
    )
    rank_multiplier: Size = Field(
        default=1,
        description="With `rank_growth: by-stage`: how many times the rank grows on entering, up "
        "to its gene.",
    )


def preset_stages(preset: Preset) -> tuple[TrainingStage, ...]:
    """The stages that a preset stands for. `promote_by` is left out, as what the first objective is
    only the whole config knows; see `ranked_as_in`."""
    return tuple(
        TrainingStage(
            name=name,
            epoch_budget=exact(epochs),
            data_percentage=exact(percentage),
            survival_rate=exact(rate),
            eval_limit=limit,
        )
        for name, epochs, percentage, rate, limit, _ in PRESETS[preset]
    )


def ranked_as_in(
    preset: Preset, stages: Sequence[TrainingStage], skill: MetricName | None
) -> tuple[TrainingStage, ...]:
    """The preset's stages with what they rank by, where one figure, `skill`, is all that training
    changes among the objectives. None: there are several, and stages rank by all objectives."""
    figures = [by for *_, by in PRESETS[preset]]
    ranks = {None: None, BY_LOSS: BY_LOSS, BY_SKILL: skill}
    return tuple(
        stage.model_copy(update={"promote_by": ranks[figure] if skill else None})
        for stage, figure in zip(stages, figures, strict=True)
    )


def with_defaults(stages: Sequence[TrainingStage], task: TaskKind) -> tuple[TrainingStage, ...]:
    """Stop rules and `eval_limit` written out: they depend on the task and on a stage's place."""
    filled = []
    for place, stage in enumerate(stages):
        is_last = place == len(stages) - 1
        update: dict[str, Any] = {}
        if stage.stop_when is None and is_last:  # nobody is cut there
            update["stop_when"] = ()
        elif stage.stop_when is None:
            update["stop_when"] = SANITY_RULES if place == 0 else QUALITY_RULES[task]
        if stage.eval_limit is None and not is_last:
            update["eval_limit"] = EARLY_EVAL_LIMIT
        filled.append(stage.model_copy(update=update))
    return tuple(filled)


class HyperbandConfig(Section):
    """The schedule: stages of growing budget."""

    enable_hyperband: bool = Field(
        default=True,
        description="Without it every genome trains to the end, at one rank (`--mode full`).",
    )
    brackets: Count = Field(
        default=1,
        description="Brackets of successive halving that share a generation. Each begins one stage "
        "later than the one before, so its genomes are spared the earlier cuts.",
    )
    promotion: Literal["synchronous", "asynchronous"] = Field(
        default="synchronous",
        description="asynchronous: a genome goes on as soon as it is among the best that the stage "
        "has seen, so that no worker waits.",
    )
    adaptive_budgets: bool = Field(
        default=False,
        description="Move what later generations spend from early to late stages as the "
        "population converges.",
    )
    rungs: Literal["fixed", "adaptive"] = Field(
        default="fixed",
        description="adaptive: how hard stages cut follows how well they have ranked so far, at "
        "equal cost; a control group goes through them all to tell. See docs/search.md.",
    )
    rank_growth: RankGrowth = Field(
        default="off",
        description="Genomes start below their rank and grow. by-stage: by `rank_multiplier`. "
        "published: on entering the third stage a rank under 16 doubles, alpha stays.",
    )
    preset: Preset | None = Field(
        default=None,
        exclude=True,  # a run's config has the stages themselves
        description="Stages by name, in place of `training_stages`: seeds (the default, the "
        "published schedule), careful or fast, which come from recorded curves. `coralx validate` "
        "shows what they stand for.",
    )
    training_stages: Annotated[tuple[TrainingStage, ...], Field(min_length=1, max_length=100)] = (
        Field(
            default_factory=lambda data: preset_stages(data.get("preset") or "seeds"),
            description="The stages in order; epoch_budget x data_percentage must not fall. "
            "Default: those of `preset`.",
        )
    )

    @model_validator(mode="before")
    @classmethod
    def _preset_or_stages(cls, data: Any) -> Any:
        """The two say the same thing in two ways, so only one of them may be there."""
        if not isinstance(data, dict):
            return data
        if data.get("training_stages") is None:
            return {key: value for key, value in data.items() if key != "training_stages"}
        if data.get("preset") is not None:
            raise ValueError(
                "`preset` and `training_stages` are both set, and a preset is a set of stages: "
                "leave out one of the two (--set hyperband_config.training_stages=null drops the "
                "stages of a file)"
            )
        return data

    @property
    def cuts_adapt(self) -> bool:
        """Whether stages cut by how well they have ranked."""
        return self.enable_hyperband and self.rungs == "adaptive"

    @model_validator(mode="after")
    def _brackets_agree(self) -> HyperbandConfig:
        if self.brackets > len(self.training_stages):
            raise ValueError(
                f"`brackets` is {self.brackets}, but the schedule has "
                f"{counted(len(self.training_stages), 'stage')}: "
                "each bracket begins one stage later than the one before"
            )
        if self.adaptive_budgets and self.brackets > 1:
            raise ValueError(
                f"`adaptive_budgets` works with one bracket, but `brackets` is {self.brackets}: "
                "leave out one of the two"
            )
        if self.adaptive_budgets and self.promotion == "asynchronous":
            raise ValueError(
                "`adaptive_budgets` gives each generation budgets of its own, but under "
                "`promotion: asynchronous` stages compare genomes of all generations: leave out "
                "one of the two"
            )
        return self

    @model_validator(mode="after")
    def _rungs_can_adapt(self) -> HyperbandConfig:
        if self.rungs == "fixed":
            return self
        if self.promotion == "asynchronous":
            raise ValueError(
                "`rungs: adaptive` sets survival rates from generation to generation, but under "
                "`promotion: asynchronous` generations overlap: leave out one of the two"
            )
        if self.brackets > 1:
            raise ValueError(
                "`rungs: adaptive` and `brackets` are two ways to hedge against cuts that come too "
                f"early, but `brackets` is {self.brackets}: leave out one of the two"
            )
        if self.adaptive_budgets:
            raise ValueError(
                "`rungs: adaptive` and `adaptive_budgets` would both set survival rates: leave out "
                "one of the two"
            )
        return self

    @model_validator(mode="after")
    def _survivors_are_comparable(self) -> HyperbandConfig:
        comparing = [s.name for s in self.training_stages if "unreachable" in s.stop_within]
        if comparing and self.adaptive_budgets:
            raise ValueError(
                f"stage {comparing[0]!r} has `unreachable` in its stop_within, which compares "
                "genomes of all generations, but `adaptive_budgets` gives each generation budgets "
                "of its own: leave out one of the two"
            )
        if self.training_stages[-1].name in comparing:
            raise ValueError(
                f"the last stage ({comparing[-1]!r}) cuts no one, so it has no survivors to reach; "
                "remove `unreachable` from its stop_within"
            )
        return self

    @model_validator(mode="after")
    def _budgets_never_fall(self) -> HyperbandConfig:
        names = [stage.name for stage in self.training_stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two stages share the name {twice[0]!r}")
        for before, stage in pairwise(self.training_stages):
            earlier = before.epoch_budget * before.data_percentage / 100
            epochs = stage.epoch_budget * stage.data_percentage / 100
            if epochs < earlier:
                raise ValueError(
                    f"stage {stage.name!r} trains up to {written(epochs)} epochs of the whole "
                    f"data, less than the {written(earlier)} of {before.name!r} before it; "
                    "epoch_budget x data_percentage must not fall from stage to stage"
                )
        if self.training_stages[-1].eval_limit is not None:
            raise ValueError(
                f"the last stage ({self.training_stages[-1].name!r}) is scored on the whole "
                "validation split; remove its eval_limit"
            )
        return self

    @model_validator(mode="after")
    def _rank_grows_one_way(self) -> HyperbandConfig:
        first, *later = self.training_stages
        growing = [stage.name for stage in later if stage.rank_multiplier > 1]
        if first.rank_multiplier > 1:
            raise ValueError(
                f"the first stage ({first.name!r}) begins at the starting rank, so its "
                "rank_multiplier must be 1"
            )
        if growing and self.rank_growth != "by-stage":
            raise ValueError(
                f"stage {growing[0]!r} has a rank_multiplier, but rank_growth is "
                f"{self.rank_growth}; set `rank_growth: by-stage`, or remove the multiplier"
            )
        if self.rank_growth == "by-stage" and not growing:
            raise ValueError(
                "rank_growth is by-stage, but no stage has a rank_multiplier above 1: nothing "
                "would grow"
            )
        if self.rank_growth == "published" and len(self.training_stages) < 3:
            raise ValueError(
                "rank_growth is published, which grows on entering the third stage, but the "
                f"schedule has {counted(len(self.training_stages), 'stage')}"
            )
        return self
