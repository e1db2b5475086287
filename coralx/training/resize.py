"""A LoRA update taken over by an adapter of another rank, scaling or set of modules.

An adapter adds s B A to a frozen matrix, with A of shape (rank, in), B of shape (out, rank), and
s = alpha / rank (Hu et al. 2021) or alpha / sqrt(rank) (rsLoRA, Kalajdzievski 2023).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

Weights = Mapping[str, torch.Tensor]

A, B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Update:
    """A saved adapter."""

    weights: Weights
    scaling: float
    """The factor s that goes with them, the same in every module."""
    rank: int
    """As its configuration names it: the highest of its modules."""

    @property
    def stems(self) -> list[str]:
        """The names of the adapted modules, sorted."""
        return sorted(_stems(self.weights))

    @property
    def ranks(self) -> dict[str, int]:
        """Each module's rank, by its name."""
        return {stem: len(self.weights[stem + A]) for stem in self.stems}


@dataclass(frozen=True)
class Transfer:
    """A parent's update as a child holds it."""

    weights: dict[str, torch.Tensor]
    factor: float
    """What B was multiplied by where the rank stayed or grew."""
    error: float
    """The Frobenius norm of what the update lost, by truncation and with modules that the child
    does not adapt, over that of the parent's update (0: nothing)."""
    dropped: tuple[str, ...]
    """The stems of modules that only the parent adapts."""
    added: tuple[str, ...]
    """The stems of modules that only the child adapts."""


def scaling(config: Mapping[str, Any]) -> float:
    """The factor s of an adapter_config.json."""
    alpha, rank = float(config["lora_alpha"]), int(config["r"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def transfer(
    parent: Weights, parent_scaling: float, child: Weights, child_scaling: float
) -> Transfer:
    """Put a parent's update into a child's freshly made weights, the function unchanged if it can.

    Grown, A keeps the child's new rows and B gets columns of zeros. Shrunk, B A is replaced by its
    best approximation of the lower rank, the truncated SVD (Eckart and Young 1936). Modules that
    the parent lacks stay as they are in the child, with zero output.
    """
    factor = parent_scaling / child_scaling
    weights = dict(child)
    kept = lost = 0.0  # squared norms of the parent's update
    for name in parent:
        if not name.endswith(A):
            # B is handled with its A; heads and magnitudes are taken over as they are.
            if name in child and not name.endswith(B):
                weights[name] = parent[name]
            continue
        stem = name.removesuffix(A)
        down, up = parent[name], parent[stem + B]
        norm = squared_norm(up, down)
        if name not in child:
            lost += norm
            continue
        weights[name], weights[stem + B], discarded = _resized(down, up * factor, child[name])
        lost += discarded / factor**2
        kept += norm - discarded / factor**2
    parent_stems, child_stems = _stems(parent), _stems(child)
    total = kept + lost
    return Transfer(
        weights=weights,
        factor=factor,
        error=math.sqrt(lost / total) if total > 0 else 0.0,
        dropped=tuple(sorted(parent_stems - child_stems)),
        added=tuple(sorted(child_stems - parent_stems)),
    )


def _resized(
    down: torch.Tensor, up: torch.Tensor, fresh: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A and B at the rank of `fresh`, a child's A, and the squared norm of what is lost."""
    discarded = 0.0
    if len(fresh) < len(down):
        down, up, discarded = shrunk(down, up, len(fresh))
    # What was shrunk may still lack rows, where B A has less rank than asked for.
    return *grown(down, up, fresh), discarded


def _stems(weights: Weights) -> set[str]:
    """The names of the adapted modules."""
    return {name.removesuffix(A) for name in weights if name.endswith(A)}


def grown(
    down: torch.Tensor, up: torch.Tensor, fresh: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A and B at the rank of `fresh`, whose further rows A takes; B's further columns are zero."""
    rank, more = len(down), len(fresh) - len(down)
    padding = up.new_zeros(len(up), more)
    return torch.cat([down, fresh[rank:].to(down)]), torch.cat([up, padding], dim=1)


def shrunk(
    down: torch.Tensor, up: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A and B of a lower `rank` with the best approximation of B A, and the squared Frobenius norm
    of what is lost: the sum of the squares of the discarded singular values. Where B A has no more
    rows or columns than `rank`, as many as it has.

    B A is never formed: its SVD follows from those of two thin QR factorisations.
    """
    left, upper = torch.linalg.qr(up.double())
    right, lower = torch.linalg.qr(down.double().T)
    u, values, v = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    root = values[:rank].sqrt()
    small_up = (left @ u[:, :rank]) * root
    small_down = (root[:, None] * v[:rank]) @ right.T
    lost = float(values[rank:].square().sum())
    return small_down.to(down.dtype), small_up.to(up.dtype), lost


def singular_values(down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Those of B A, the largest first, without forming it."""
    upper, lower = (torch.linalg.qr(part.double(), mode="r").R for part in (up, down.T))
    values: torch.Tensor = torch.linalg.svdvals(upper @ lower.T)
    return values


def squared_norm(up: torch.Tensor, down: torch.Tensor) -> float:
    """The squared Frobenius norm of B A, without forming it: trace((B^T B) (A A^T))."""
    return float(((up.double().T @ up.double()) * (down.double() @ down.double().T)).sum())
