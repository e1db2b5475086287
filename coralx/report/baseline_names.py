"""What baselines are called in front of people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coralx.config import Config
from coralx.records.run_facts import Facts

RANDOM_HEAD = "random head"
"""A sequence classifier's head is new: before training it is drawn at random, so the untuned model
guesses, however good its base is."""


def untuned_head(config: Config, facts: Facts | None = None) -> str | None:
    """What the untuned model's head is, if it is none of the base's own. `facts` know whether the
    base came with a head for as many classes; without a real base, none did."""
    footprint = facts.footprint if facts else None
    is_own = footprint is not None and not footprint.head_parameters
    return RANDOM_HEAD if config.model.task == "sequence-classification" and not is_own else None


def baseline_title(name: str, report: Mapping[str, Any], between: str = " ") -> str:
    """A baseline's name, and what it is where the name does not say."""
    head = report.get("untuned_head")
    if name == "trained_head":
        return f"trained head{between}(frozen base)"
    if name == "prior_center":
        return "prior's centre"
    return f"{name}{between}({head})" if name == "untuned" and head else name


def untuned_base(report: Mapping[str, Any]) -> str:
    """The untuned model, in a sentence."""
    head = report.get("untuned_head")
    return f"the untuned base (with a {head})" if head else "the untuned base"
