"""Two parents' LoRA updates made one: each module from either of them, or a weighted mean.

An update is s B A for every module; see `training.resize`. A blend has the better parent's scaling,
and in each module whatever rank it needs: `resize.transfer` fits it into a child.
"""

from __future__ import annotations

from collections.abc import Collection
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
    stems = sorted(_stems(better) | _stems(other))
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
    """share x the better parent's update + (1 - share) x the other's, and the same of heads.

    B A is never formed: the sum is that of B's columns side by side times A's rows one below the
    other, of a rank as high as both together. Raises ValueError for DoRA, whose magnitudes make
    the function no sum of updates.
    """
    if any("lora_magnitude" in name for name in (*better.weights, *other.weights)):
        raise ValueError("updates with DoRA have no weighted mean")
    parts = ((better, share), (other, (1.0 - share) * other.scaling / better.scaling))
    weights = dict[str, torch.Tensor]()
    for stem in sorted(_stems(better) | _stems(other)):
        # A parent that does not adapt the module adds nothing to the sum.
        holders = [(update.weights, times) for update, times in parts if stem + A in update.weights]
        weights[stem + A] = torch.cat([held[stem + A] for held, _ in holders])
        weights[stem + B] = torch.cat([held[stem + B] * times for held, times in holders], dim=1)
    for name, tensor in better.weights.items():
        if _stem(name) is None:
            weights[name] = share * tensor + (1.0 - share) * other.weights[name]
    return replace(better, weights=weights)


def _rescaled(name: str, tensor: torch.Tensor, times: float) -> torch.Tensor:
    """B takes up the ratio of two scalings."""
    return tensor * times if name.endswith(B) else tensor


def _stem(name: str) -> str | None:
    """The adapted module that a tensor belongs to; None for the head's."""
    stem, separator, _ = name.rpartition(".lora_")
    return stem if separator else None


def _stems(update: Update) -> set[str]:
    return {name.removesuffix(A) for name in update.weights if name.endswith(A)}
