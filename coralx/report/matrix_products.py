"""How much of a training step is matrix products, counted from parameters and tokens.

A forward pass multiplies each token by each weight of a linear layer: 2 floating-point operations
a weight and token. Backward, a frozen weight only passes the gradient on to its input: 2 more. What
is trained also gets a gradient of its own: 6 in all (Kaplan et al. 2020, "Scaling Laws for Neural
Language Models", section 2.1, for weights that are all trained). Left out are attention's products
of tokens with tokens, normalisation, and what gradient checkpointing computes twice; padding counts
for nothing: so the rate is that of useful operations (model FLOPs utilisation, Chowdhery et al.
2022, "PaLM", appendix B).
"""

from __future__ import annotations

from coralx.records.results import StageResult
from coralx.records.run_facts import Footprint
from coralx.storage.history import History

FROZEN = 4
"""Operations for each token and frozen weight, forward and backward."""

TRAINED = 6


def frozen_weights(footprint: Footprint) -> int:
    """Weights of the base by which every token is multiplied: its linear layers, and a language
    model's head."""
    layers = sum(inputs * outputs for _, inputs, outputs in footprint.linear)
    return layers + footprint.hidden_size * footprint.logits_per_token


def step_flops(footprint: Footprint, adapter_parameters: float, tokens: int) -> float:
    """Floating-point operations of training steps that read so many tokens."""
    return tokens * (FROZEN * frozen_weights(footprint) + TRAINED * adapter_parameters)


def trained_flops(history: History) -> float | None:
    """Those of all training of the search; None where the base's sizes or tokens are not known."""
    footprint = history.started.facts.footprint if history.started is not None else None
    results = [result for result in history.results.values() if result.trained_tokens]
    if footprint is None or not footprint.linear or not results:
        return None
    return sum(
        step_flops(footprint, _parameters(history, result), result.trained_tokens)
        for result in results
    )


def _parameters(history: History, result: StageResult) -> float:
    """Parameters that the stage trained; figures are of the adapter's final rank."""
    final = result.metrics.get("trainable_parameters") or 0.0
    rank = history.genomes[result.genome].genes.rank
    return final * (result.rank or rank) / rank
