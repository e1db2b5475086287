"""The schedule: stages of growing budget."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from coralx.config.metrics import Task
from coralx.config.rules import check_rule
from coralx.config.section import Count, Exact, MetricName, Section, Size
from coralx.wording import counted

Some = Field(max_length=100)
LEAST_SHARE = Decimal("0.000001")
Rule = Annotated[str, BeforeValidator(check_rule)]
RankGrowth = Literal["off", "by-stage", "published"]

SANITY_RULES: dict[Task, tuple[str, ...]] = {
    "sequence-classification": ("gradient_norm > 5.0", "loss_slope > 0"),
    # A few tokens' loss through a whole language model: healthy norms lie around 5 (SmolLM2).
    "label-tokens": ("gradient_norm > 50.0", "loss_slope > 0"),
    "sft": ("gradient_norm > 50.0", "loss_slope > 0"),
}
QUALITY_RULES: dict[Task, tuple[str, ...]] = {
    "sequence-classification": ("auroc < 0.55",),
    "label-tokens": ("auroc < 0.55",),
    "sft": (),
}
EARLY_EVAL_LIMIT = 512
"""Validation rows that stages before the last one look at, unless they say otherwise."""


class TrainingStage(Section):
    """One rung. `eval_limit` rows of validation are scored, 512 where it is unset.
    `stop_within`: what ends a genome before the stage does, beside numbers that are not finite: an
    `explosion` of its training loss; a learning curve for which the losses of those that went on
    in earlier generations are `unreachable`.

    The last stage is always scored on the whole split: its `eval_limit` is refused. One before it
    that ends after fewer than eight steps is not scored, and everyone goes on from it.
    On entering the stage a genome's rank grows `rank_multiplier` times, up to its gene
    (`rank_growth: by-stage`).
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    epoch_budget: Annotated[Exact, Field(ge=LEAST_SHARE, le=1_000_000)]
    data_percentage: Annotated[Exact, Field(ge=LEAST_SHARE, le=100)]
    survival_rate: Annotated[Exact, Field(ge=LEAST_SHARE, le=1)]
    stop_when: Annotated[tuple[Rule, ...], Some] | None = None
    stop_within: Annotated[tuple[Literal["explosion", "unreachable"], ...], Some] = ("explosion",)
    proxy_metrics: Annotated[tuple[MetricName, ...], Some] = ()
    promote_by: MetricName | None = None
    eval_limit: Count | None = None
    rank_multiplier: Size = 1


def _published_stages() -> tuple[TrainingStage, ...]:
    table = (
        ("S0_sanity", "0.05", "5", "1.0"),
        ("S1_shakeout", "0.3", "20", "0.5"),
        ("S2_serious", "1.0", "100", "0.25"),
        ("S3_finisher", "2.0", "100", "0.1"),
    )
    return tuple(
        TrainingStage(
            name=name,
            epoch_budget=Decimal(epochs),
            data_percentage=Decimal(percentage),
            survival_rate=Decimal(rate),
        )
        for name, epochs, percentage, rate in table
    )


def with_defaults(stages: Sequence[TrainingStage], task: Task) -> tuple[TrainingStage, ...]:
    """Stop rules and `eval_limit` written out: they depend on the task and on a stage's place."""
    filled = []
    for place, stage in enumerate(stages):
        last = place == len(stages) - 1
        rules = () if last else SANITY_RULES[task] if place == 0 else QUALITY_RULES[task]
        update: dict[str, Any] = {}
        if stage.stop_when is None:
            update["stop_when"] = rules
        if stage.eval_limit is None and not last:
            update["eval_limit"] = EARLY_EVAL_LIMIT
        filled.append(stage.model_copy(update=update))
    return tuple(filled)


class HyperbandConfig(Section):
    """The schedule; without `enable_hyperband` everyone trains to the end, at one rank.

    `brackets` of successive halving share a generation: each begins one stage later than the one
    before, so that its genomes are spared the earlier cuts. `promotion: asynchronous` promotes as
    soon as a genome is among the best that the stage has seen so far, so that no worker waits.
    `adaptive_budgets` moves what later generations spend from early to late stages as the
    population converges. `rank_growth`: genomes start below their rank and grow with the stages,
    their function unchanged; `by-stage` as the stages' `rank_multiplier` say, `published`: on
    entering the third stage a rank under 16 doubles and alpha stays.
    """

    enable_hyperband: bool = True
    brackets: Count = 1
    promotion: Literal["synchronous", "asynchronous"] = "synchronous"
    adaptive_budgets: bool = False
    rank_growth: RankGrowth = "off"
    training_stages: Annotated[tuple[TrainingStage, ...], Field(min_length=1, max_length=100)] = (
        Field(default_factory=_published_stages)
    )

    @model_validator(mode="after")
    def _brackets_agree(self) -> HyperbandConfig:
        if self.brackets > len(self.training_stages):
            raise ValueError(
                f"`brackets` is {self.brackets}, but the schedule has "
                f"{counted(len(self.training_stages), 'stage')}: "
                "each bracket begins one stage later than the one before"
            )
        if self.adaptive_budgets and self.brackets > 1:
            raise ValueError("`adaptive_budgets` is for one bracket; `brackets` must be 1")
        if self.adaptive_budgets and self.promotion == "asynchronous":
            raise ValueError(
                "`adaptive_budgets` is for synchronous promotion: asynchronous stages compare "
                "genomes of all generations, which must have had equal budgets"
            )
        return self

    @model_validator(mode="after")
    def _survivors_are_comparable(self) -> HyperbandConfig:
        comparing = [s.name for s in self.training_stages if "unreachable" in s.stop_within]
        if comparing and self.adaptive_budgets:
            raise ValueError(
                f"stage {comparing[0]!r} stops within for `unreachable`, which compares genomes of "
                "all generations, while `adaptive_budgets` gives each its own: leave out one of "
                "the two"
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
        previous = None
        for stage in self.training_stages:
            share = stage.epoch_budget * stage.data_percentage
            if previous is not None and share < previous[1]:
                raise ValueError(
                    f"stage {stage.name!r} trains up to {share / 100:f} epochs of the whole data, "
                    f"less than {previous[1] / 100:f} of {previous[0]!r} before it; "
                    "epoch_budget x data_percentage must not fall from stage to stage"
                )
            previous = (stage.name, share)
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
