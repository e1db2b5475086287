"""Whose training exploded, or was stopped on signs that it was about to."""

from __future__ import annotations

from coralx.config.conditions import parse_rule
from coralx.records.verdicts import Stop
from coralx.storage.history import History

SIGNS_OF_DIVERGENCE = ("gradient_norm", "loss_slope")
"""What a stop rule reads of a training that is about to diverge."""


def exploded(history: History) -> set[str]:
    """The genomes whose training ruined their weights, and those `stopped_as_ill`."""
    return stopped_as_ill(history) | {
        result.genome
        for result in history.results.values()
        if result.divergence is not None and result.divergence.ruins_weights
    }


def stopped_as_ill(history: History) -> set[str]:
    """The genomes that a rule on signs of divergence stopped."""
    ill = set()
    for decision in history.decisions.values():
        for verdict in decision.verdicts:
            # Without a value it was no rule that stopped it.
            if not isinstance(verdict, Stop) or verdict.value is None:
                continue
            if parse_rule(verdict.rule).metric in SIGNS_OF_DIVERGENCE:
                ill.add(verdict.genome)
    return ill
