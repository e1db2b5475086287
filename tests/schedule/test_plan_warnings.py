"""Warnings about a schedule before it is paid."""

from __future__ import annotations

from typing import Any

import pytest

from coralx.schedule.plan_warnings import idle_keys, plan_warnings
from tests.support.factories import simulated_config


@pytest.mark.parametrize(
    ("evolution", "schedule", "named"),
    [
        ({"generations": 1}, {"adaptive_budgets": True}, "hyperband_config.adaptive_budgets"),
        ({"generations": 1, "elite_fraction": 0.5}, {}, "evolution.elite_fraction"),
        (
            {"generations": 1, "checkpoint_crossover": {"mask": 0.5}},
            {},
            "evolution.checkpoint_crossover",
        ),
        ({"pbt_quantile": 0.1}, {}, "fewer than one is replaced"),
    ],
)
def test_a_key_that_changes_nothing_is_named(
    evolution: dict[str, Any], schedule: dict[str, Any], named: str
) -> None:
    config = simulated_config(
        evolution={"population_size": 8, **evolution}, hyperband_config=schedule
    )
    (found,) = idle_keys(config, config.known_rows)
    assert named in found


def test_nothing_is_said_against_keys_that_act() -> None:
    evolution = {
        "population_size": 20,
        "generations": 3,
        "resize_adapters": True,
        "elite_fraction": 0.25,
        "checkpoint_crossover": {"mask": 0.5},
        "pbt_quantile": 0.25,
    }
    schedule = {"adaptive_budgets": True}
    assert idle_keys(simulated_config(evolution=evolution, hyperband_config=schedule), 0) == []


def test_full_training_is_told_of_a_meagre_front_only() -> None:
    config = simulated_config(
        evolution={"population_size": 2, "pbt_quantile": 0.1},
        hyperband_config={"enable_hyperband": False},
    )
    (few,) = plan_warnings(config, singly=False)
    assert "too few for a front" in few
