"""Two parents' LoRA updates made one: each module from either of them, or a weighted mean.

An update is s B A for every module; see `training.resize`. A blend has the better parent's scaling,
and in each module whatever rank it needs: `resize.transfer` fits it into a child.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from coralx.training.resize import A, B, Update

SHARES = (0.3, 0.7)
"""Between these a merge draws the better parent's weight."""


def blend(
    kind: Literal["mask", "merge"], better: Update, other: Update, rng: np.random.Generator
) -> tuple[Update, float]:
    """Both parents in one, and the better one's share: its weight in a merge, drawn from `SHARES`,
    or its part of the modules in a mask, each drawn with probability a half."""
    if kind == "merge":
        share = float(rng.uniform(*SHARES))
        return merge(better, other, share), share
    stems = sorted({*better.stems, *other.stems})
    from_other = {stem for stem in stems if rng.random() < 0.5}
    return mask(better, other, from_other), 1.0 - len(from_other) / max(1, len(stems))


def mask(better: Update, other: Update, from_other: Collection[str]) -> Update:
    """The modules `from_other` as the other parent has them, all else (also the head) as the better
    one does. A module that its parent does not adapt is left out: its update is zero."""
    weights = {
        name: tensor
        for name, tensor in better.weights.items()
        if _stem(name) not in from_other or _stem(name) is None
    }
    for name, tensor in other.weights.items():
        if _stem(name) in from_other:
            weights[name] = _rescaled(name, tensor, other.scaling / better.scaling)
    return replace(better, weights=weights)


def merge(better: Update, other: Update, share: float) -> Update:
    """share x the better parent's update + (1 - share) x the other's; see `weighted_sum`. Raises
    ValueError for DoRA, whose magnitudes make the function no sum of updates.
    """
    if has_magnitudes(better) or has_magnitudes(other):
        raise ValueError("updates with DoRA have no weighted mean")
    return weighted_sum((better, other), (share, 1.0 - share))


def weighted_sum(updates: Sequence[Update], shares: Sequence[float]) -> Update:
    """The sum of each update times its share, and the same of heads, with the first one's scaling.

    B A is never formed: the sum is that of B's columns side by side times A's rows one below the
    other, in each module of a rank as high as that of all updates together.
    """
    first = updates[0]
    times = [
        # Not of the first, whose scaling need not be expressed in itself.
        share if update is first else share * update.scaling / first.scaling
        for update, share in zip(updates, shares, strict=True)
    ]
    parts = list(zip(updates, times, strict=True))
    weights = dict[str, torch.Tensor]()
    for stem in sorted({stem for update in updates for stem in update.stems}):
        # An update that does not adapt the module adds nothing to the sum.
        holders = [(update.weights, times) for update, times in parts if stem + A in update.weights]
        weights[stem + A] = torch.cat([held[stem + A] for held, _ in holders])
        weights[stem + B] = torch.cat([held[stem + B] * times for held, times in holders], dim=1)
    for name, tensor in first.weights.items():
        if _stem(name) is None:
            total = shares[0] * tensor
            for update, share in zip(updates[1:], shares[1:], strict=True):
                total = total + share * update.weights[name]
            weights[name] = total
    return replace(first, weights=weights)


def has_magnitudes(update: Update) -> bool:
    """Whether it is of DoRA."""
    return any("lora_magnitude" in name for name in update.weights)


def _rescaled(name: str, tensor: torch.Tensor, times: float) -> torch.Tensor:
    """B takes up the ratio of two scalings."""
    return tensor * times if name.endswith(B) else tensor


def _stem(name: str) -> str | None:
    """The adapted module that a tensor belongs to; None for the head's."""
    stem, separator, _ = name.rpartition(".lora_")
    return stem if separator else None
