"""Two parents' updates made one, in float64 against B A itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.training.checkpoint_crossover import SHARES, blend, mask, merge
from coralx.training.resize import Update, transfer

RANKS = st.integers(1, 9)
SCALINGS = st.floats(0.25, 8.0)
SEEDS = st.integers(0, 99)
OUT, IN = 16, 20


def parent(rank: int, scaling: float, seed: int, stems: str = "qkv") -> Update:
    torch.manual_seed(seed)
    weights = {"head.weight": torch.randn(2, 3, dtype=torch.float64)}
    for stem in stems:
        weights[f"{stem}.lora_A.weight"] = torch.randn(rank, IN, dtype=torch.float64)
        weights[f"{stem}.lora_B.weight"] = torch.randn(OUT, rank, dtype=torch.float64)
    return Update(weights, scaling, rank)


def child(rank: int, stems: str = "qkv") -> dict[str, torch.Tensor]:
    fresh = dict(parent(rank, 1.0, 1000, stems).weights)
    return {k: torch.zeros_like(v) if ".lora_B" in k else v for k, v in fresh.items()}


def function(update: Update, stem: str) -> torch.Tensor:
    """s B A, zero where the module is not adapted."""
    down = update.weights.get(f"{stem}.lora_A.weight")
    if down is None:
        return torch.zeros(OUT, IN, dtype=torch.float64)
    return update.scaling * update.weights[f"{stem}.lora_B.weight"] @ down


def fitted(update: Update, rank: int, scaling: float, stems: str = "qkv") -> tuple[Update, float]:
    """As a child of that rank and scaling holds it, and the share that is lost."""
    found = transfer(update.weights, update.scaling, child(rank, stems), scaling)
    return Update(found.weights, scaling, rank), found.error


def close(first: torch.Tensor, second: torch.Tensor) -> bool:
    return bool(torch.allclose(first, second, rtol=1e-10, atol=1e-10))


@settings(max_examples=50, deadline=None)
@given(RANKS, SCALINGS, SEEDS, st.sets(st.sampled_from("qkv")))
def test_a_mask_of_a_parent_with_itself_is_the_parent(
    rank: int, scaling: float, seed: int, chosen: set[str]
) -> None:
    one = parent(rank, scaling, seed)
    found = mask(one, one, chosen)
    assert found.scaling == one.scaling
    assert found.weights.keys() == one.weights.keys()
    assert all(torch.equal(found.weights[name], one.weights[name]) for name in one.weights)


@settings(max_examples=50, deadline=None)
@given(RANKS, RANKS, SCALINGS, SCALINGS, SEEDS, st.sets(st.sampled_from("qkvo")))
def test_a_mask_takes_each_module_whole_from_one_parent_and_the_head_from_the_better(
    rank: int, other_rank: int, scaling: float, other_scaling: float, seed: int, chosen: set[str]
) -> None:
    better = parent(rank, scaling, seed, "qkv")
    other = parent(other_rank, other_scaling, seed + 1, "kvo")
    found = mask(better, other, chosen)
    for stem in "qkvo":
        assert close(function(found, stem), function(other if stem in chosen else better, stem))
    assert torch.equal(found.weights["head.weight"], better.weights["head.weight"])
    taken, error = fitted(found, 9, 0.7, "qkvo")
    assert error == 0.0
    assert all(close(function(taken, stem), function(found, stem)) for stem in "qkvo")


@settings(max_examples=50, deadline=None)
@given(RANKS, RANKS, SCALINGS, SCALINGS, st.floats(0.0, 1.0), SEEDS)
def test_a_merge_at_the_stacked_rank_is_the_linear_combination(
    rank: int, other_rank: int, scaling: float, other_scaling: float, share: float, seed: int
) -> None:
    better = parent(rank, scaling, seed, "qkv")
    other = parent(other_rank, other_scaling, seed + 1, "kvo")
    found = merge(better, other, share)
    taken, error = fitted(found, rank + other_rank, 3.0, "qkvo")
    assert error == 0.0
    for stem in "qkvo":
        exact = share * function(better, stem) + (1 - share) * function(other, stem)
        assert close(function(found, stem), exact)
        assert close(function(taken, stem), exact)
    heads = [update.weights["head.weight"] for update in (better, other)]
    assert close(found.weights["head.weight"], share * heads[0] + (1 - share) * heads[1])


@settings(max_examples=30, deadline=None)
@given(RANKS, RANKS, SCALINGS, SCALINGS, SEEDS)
def test_a_merge_with_all_weight_on_one_parent_is_that_parent(
    rank: int, other_rank: int, scaling: float, other_scaling: float, seed: int
) -> None:
    pair = parent(rank, scaling, seed), parent(other_rank, other_scaling, seed + 1)
    for share, wanted in ((1.0, pair[0]), (0.0, pair[1])):
        taken, error = fitted(merge(*pair, share), wanted.rank, 2.0)
        assert error < 1e-7  # what is discarded is zero but for rounding
        assert all(close(function(taken, stem), function(wanted, stem)) for stem in "qkv")


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), SCALINGS, SCALINGS, st.floats(0.3, 0.7), SEEDS)
def test_a_truncated_merge_loses_the_discarded_singular_values(
    rank: int, other_rank: int, scaling: float, other_scaling: float, share: float, seed: int
) -> None:
    better = parent(rank, scaling, seed, "q")
    other = parent(other_rank, other_scaling, seed + 1, "q")
    exact = share * function(better, "q") + (1 - share) * function(other, "q")
    keeps = min(rank, other_rank)
    taken, error = fitted(merge(better, other, share), keeps, 1.3, "q")
    values = torch.linalg.svdvals(exact)
    lost = float(torch.linalg.matrix_norm(function(taken, "q") - exact))
    assert lost == pytest.approx(float(values[keeps:].norm()), rel=1e-8)
    assert error == pytest.approx(float(values[keeps:].norm() / values.norm()), rel=1e-8)


def test_a_child_of_higher_rank_than_its_modules_are_wide_takes_a_merge_too() -> None:
    better, other = parent(15, 1.0, 0, "q"), parent(15, 2.0, 1, "q")
    taken, error = fitted(merge(better, other, 0.5), 18, 1.0, "q")  # 15 + 15 > 18 > 16
    assert taken.weights["q.lora_A.weight"].shape == (18, IN)
    assert error == 0.0
    exact = 0.5 * function(better, "q") + 0.5 * function(other, "q")
    assert close(function(taken, "q"), exact)


def test_magnitudes_of_dora_go_with_their_module_and_are_never_averaged() -> None:
    def with_magnitudes(update: Update, value: float) -> Update:
        magnitudes = {f"{s}.lora_magnitude_vector": torch.full((OUT,), value) for s in "qkv"}
        return replace(update, weights={**update.weights, **magnitudes})

    better = with_magnitudes(parent(4, 1.0, 0), 1.0)
    other = with_magnitudes(parent(4, 2.0, 1), 2.0)
    found = mask(better, other, {"k"})
    values = {stem: float(found.weights[f"{stem}.lora_magnitude_vector"][0]) for stem in "qkv"}
    assert values == {"q": 1.0, "k": 2.0, "v": 1.0}
    with pytest.raises(ValueError, match="DoRA"):
        merge(better, other, 0.5)


def test_draws_are_the_generators_and_shares_say_what_the_better_parent_gave() -> None:
    stems = "abcdefgh"
    better, other = parent(2, 1.0, 0, stems), parent(3, 1.0, 1, stems)
    masks, weights = [], []
    for seed in range(200):
        found, share = blend("mask", better, other, np.random.default_rng(seed))
        again, _ = blend("mask", better, other, np.random.default_rng(seed))
        own = [s for s in stems if len(found.weights[f"{s}.lora_A.weight"]) == 2]
        assert share == pytest.approx(len(own) / len(stems))
        assert all(torch.equal(found.weights[n], again.weights[n]) for n in found.weights)
        masks.append(share)
        weights.append(blend("merge", better, other, np.random.default_rng(seed))[1])
    assert np.mean(masks) == pytest.approx(0.5, abs=0.05)
    assert SHARES[0] <= min(weights) < 0.35 < 0.65 < max(weights) <= SHARES[1]
