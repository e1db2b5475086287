"""A tuning as stages for a config, and as JSON."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from coralx.api.quality import quality_of
from coralx.api.schedule_tuning import Choice, Tuning
from coralx.config import Config
from coralx.config.exact_numbers import written
from coralx.schedule.tuning_costs import Rung
from coralx.schedule.tuning_curves import LOSS, TRAINING


def stages_of(tuning: Tuning, choice: Choice, config: Config) -> list[dict[str, Any]]:
    """The choice as `training_stages` of the config, in plain values."""
    last = config.hyperband_config.training_stages[-1]
    stages, entered = [], tuning.population
    for place, rung in enumerate(choice.schedule.rungs):
        stage: dict[str, Any] = {
            "name": f"S{place}_cut",
            "epoch_budget": written(rung.share * last.epoch_budget),
            "data_percentage": written(last.data_percentage),
            "survival_rate": written(Fraction(rung.kept, entered)),
            "eval_limit": rung.rows,
        }
        if (promote_by := _promote_by(rung, config)) is not None:
            stage["promote_by"] = promote_by
        if place:  # as the curves were played: by the cut alone
            stage["stop_when"] = []
        stages.append(stage)
        entered = rung.kept
    end = {
        "name": last.name,
        "epoch_budget": written(last.epoch_budget),
        "data_percentage": written(last.data_percentage),
        "survival_rate": 1,
    }
    return [*stages, end]


def _promote_by(rung: Rung, config: Config) -> str | None:
    """What the stage ranks by, if that is not what it would anyway."""
    losses = {LOSS: "eval_loss", TRAINING: "train_loss"}
    ranked = losses.get(rung.figure) or quality_of(config).name
    return None if [o.metric for o in config.objectives] == [ranked] else ranked


def tuning_json(tuning: Tuning, config: Config) -> dict[str, Any]:
    """A tuning as `coralx simulate --json` prints it. Costs are in whole trainings, regrets in the
    metrics' units; of perplexity in that of its logarithm."""
    prices = tuning.prices
    return {
        "population_size": tuning.population,
        "tables": [
            {
                "name": table.name,
                "metric": table.metric,
                "configurations": len(table),
                "tolerance": table.tolerance,
                "remarks": list(table.remarks),
            }
            for table in tuning.tables
        ],
        "prices": {
            "training_rows": prices.training,
            "validation_rows": prices.validation,
            "evaluation": prices.evaluation,
            "overhead_rows": prices.overhead,
        },
        "basis": list(tuning.basis),
        "current": _choice_json(tuning, tuning.current),
        "proposal": {
            **_choice_json(tuning, tuning.proposal),
            "training_stages": stages_of(tuning, tuning.proposal, config),
        },
        "choices": [_choice_json(tuning, choice) for choice in tuning.choices],
    }


def _choice_json(tuning: Tuning, choice: Choice) -> dict[str, Any]:
    return {
        "within": None if choice.within is None else float(choice.within),
        "stages": [
            {
                "share": float(rung.share),
                "eval_limit": rung.rows,
                "going_on": rung.kept,
                "ranked_by": rung.figure,
            }
            for rung in choice.schedule.rungs
        ],
        "trainings": choice.cost,
        "cheaper": tuning.population / choice.cost,
        "regrets": [
            _regret_json(choice, place, table.name) for place, table in enumerate(tuning.tables)
        ],
    }


def _regret_json(choice: Choice, place: int, table: str) -> dict[str, Any]:
    regret = choice.regrets[place]
    known = (
        {
            "mean": regret.mean.mean,
            "low": regret.mean.low,
            "high": regret.mean.high,
            "nine_of_ten": regret.often,
            "behind_the_best_of_all": regret.behind,
        }
        if regret
        else dict.fromkeys(("mean", "low", "high", "nine_of_ten", "behind_the_best_of_all"))
    )
    return {
        "table": table,
        **known,
        "held_out": choice.held_out[place] if choice.held_out else None,
        "chosen_on_other_tables": choice.from_others[place] if choice.from_others else None,
    }
