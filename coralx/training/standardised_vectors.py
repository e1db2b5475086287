"""The vectors that a head reads, standardised, and its first layer's weights for those.

A penalty on weights depends on the vectors' scale: where they vary little, the weights that tell
them apart must be large, and would be penalised away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from coralx.training.detached_head import Vectors

CONSTANT = 1e-6
"""A component that spreads by no more than this share of its size, or of the largest spread, is a
constant: it varies by rounding alone."""


class Standardisation:
    """Brings vectors to mean 0 and spread 1 in every component, and a linear layer that reads them
    to the weights and the bias with which it returns the same for those. A layer without a bias
    cannot make up for the mean, so there the mean stays; without a `layer` nothing changes."""

    def __init__(self, layer: torch.nn.Linear | None, train: Sequence[Vectors]) -> None:
        self._layer = layer
        mean, spread = _moments(train)
        if layer is None:
            spread = torch.ones_like(spread)
        if layer is None or layer.bias is None:
            mean = torch.zeros_like(mean)
        self._mean, self._spread = mean, spread

    def of(self, vectors: Vectors) -> Vectors:
        """The vectors, standardised."""
        values = vectors.values.double().sub_(self._mean).div_(self._spread)
        return replace(vectors, values=values.float())

    @torch.no_grad()
    def enter(self) -> None:
        """Have the layer return for standardised vectors what it returned for the vectors."""
        if self._layer is not None:
            weight = self._layer.weight.double()
            self._shift_bias(weight @ self._mean)
            self._layer.weight.copy_(weight * self._spread)

    @torch.no_grad()
    def leave(self) -> None:
        """Have the layer return for the vectors what it returned for standardised ones."""
        if self._layer is not None:
            weight = self._layer.weight.double() / self._spread
            self._shift_bias(-weight @ self._mean)
            self._layer.weight.copy_(weight)

    def _shift_bias(self, change: torch.Tensor) -> None:
        if self._layer is not None and self._layer.bias is not None:
            self._layer.bias.copy_(self._layer.bias.double() + change)


def _moments(train: Sequence[Vectors]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each component over all rows, shape (width,), float64; the
    latter is the largest for constant ones."""
    rows = sum(len(vectors.labels) for vectors in train)
    sums = [vectors.values.sum(dim=0, dtype=torch.float64) for vectors in train]
    mean = torch.stack(sums).sum(dim=0) / rows
    squares = [(vectors.values - mean).square().sum(dim=0) for vectors in train]
    spread = (torch.stack(squares).sum(dim=0) / rows).sqrt()
    largest = spread.max()
    is_constant = spread <= CONSTANT * torch.maximum(mean.abs(), largest)
    return mean, torch.where(is_constant, largest if largest > 0 else 1.0, spread)
