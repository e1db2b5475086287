"""What baselines are called in front of people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coralx.config import Config

RANDOM_HEAD = "random head"
"""A sequence classifier's head is new: before training it is drawn at random, so the untuned model
guesses, however good its base is."""


def untuned_head(config: Config) -> str | None:
    """What the untuned model's head is, if it is none of the base's own."""
    return RANDOM_HEAD if config.model.task == "sequence-classification" else None


def baseline_title(name: str, report: Mapping[str, Any], between: str = " ") -> str:
    """A baseline's name, and what it is where the name does not say."""
    head = report.get("untuned_head")
    return f"{name}{between}({head})" if name == "untuned" and head else name


def untuned_base(report: Mapping[str, Any]) -> str:
    """The untuned model, in a sentence."""
    head = report.get("untuned_head")
    return f"the untuned base (with a {head})" if head else "the untuned base"
