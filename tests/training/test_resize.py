"""Weights taken over by an adapter of another rank, scaling or set of modules."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.training.resize import grown, scaling, shrunk, squared_norm, transfer

RANKS = st.integers(1, 12)
SCALINGS = st.floats(0.25, 8.0)


def update(weights: dict[str, torch.Tensor], stem: str, factor: float) -> torch.Tensor:
    return factor * weights[f"{stem}.lora_B.weight"] @ weights[f"{stem}.lora_A.weight"]


def adapter(rank: int, stems: str, seed: int, *, zero: bool = False) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    found = {}
    for stem in stems:
        found[f"{stem}.lora_A.weight"] = torch.randn(rank, 20, dtype=torch.float64)
        made = torch.randn(16, rank, dtype=torch.float64)
        found[f"{stem}.lora_B.weight"] = torch.zeros_like(made) if zero else made
    return found


@settings(max_examples=60, deadline=None)
@given(RANKS, RANKS, SCALINGS, SCALINGS, st.integers(0, 99))
def test_a_grown_update_is_the_same_function(
    rank: int, more: int, before: float, after: float, seed: int
) -> None:
    parent = adapter(rank, "q", seed)
    child = adapter(rank + more, "q", seed + 1, zero=True)
    found = transfer(parent, before, child, after)
    whole = update(parent, "q", before)
    assert torch.allclose(update(found.weights, "q", after), whole, rtol=1e-12, atol=1e-12)
    assert found.error == 0.0
    # new rows are the child's own, so that new columns of B receive gradient at once
    down = found.weights["q.lora_A.weight"]
    assert torch.equal(down[rank:], child["q.lora_A.weight"][rank:])
    assert not found.weights["q.lora_B.weight"][:, rank:].any()


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), SCALINGS, SCALINGS, st.integers(0, 99))
def test_a_shrunk_update_is_the_best_of_its_rank(
    rank: int, before: float, after: float, seed: int
) -> None:
    parent = adapter(rank, "q", seed)
    child = adapter(rank - 1, "q", seed + 1, zero=True)
    found = transfer(parent, before, child, after)
    whole = update(parent, "q", before)
    values = torch.linalg.svdvals(whole)
    lost = torch.linalg.matrix_norm(update(found.weights, "q", after) - whole)
    assert float(lost) == pytest.approx(float(values[rank - 1 :].norm()), rel=1e-9)
    assert found.error == pytest.approx(float(values[rank - 1 :].norm() / values.norm()), rel=1e-9)


def test_one_scaling_to_another_costs_nothing_at_equal_rank() -> None:
    parent = adapter(4, "qv", 0)
    found = transfer(parent, 2.0, adapter(4, "qv", 1, zero=True), 0.5)
    assert found.factor == 4.0
    for stem in "qv":
        assert torch.equal(found.weights[f"{stem}.lora_A.weight"], parent[f"{stem}.lora_A.weight"])
        assert torch.allclose(update(found.weights, stem, 0.5), update(parent, stem, 2.0))


def test_modules_that_only_one_of_the_two_adapts_are_named_and_their_share_is_counted() -> None:
    parent, child = adapter(4, "qkv", 0), adapter(4, "qvo", 1, zero=True)
    found = transfer(parent, 1.0, child, 1.0)
    assert (found.dropped, found.added) == (("k",), ("o",))
    assert set(found.weights) == set(child)
    assert not update(found.weights, "o", 1.0).any()
    norms = {stem: float(update(parent, stem, 1.0).square().sum()) for stem in "qkv"}
    assert found.error == pytest.approx(math.sqrt(norms["k"] / sum(norms.values())), rel=1e-12)


def test_an_untrained_parent_loses_nothing() -> None:
    found = transfer(adapter(8, "q", 0, zero=True), 1.0, adapter(2, "q", 1, zero=True), 1.0)
    assert found.error == 0.0
    assert torch.isfinite(found.weights["q.lora_A.weight"]).all()


def test_other_tensors_come_along_where_the_child_has_them() -> None:
    parent = {**adapter(4, "q", 0), "head.weight": torch.ones(2), "q.gone": torch.ones(3)}
    child = {**adapter(4, "q", 1, zero=True), "head.weight": torch.zeros(2)}
    found = transfer(parent, 1.0, child, 1.0).weights
    assert torch.equal(found["head.weight"], torch.ones(2))
    assert "q.gone" not in found


def test_the_parts_keep_their_dtype_and_norm() -> None:
    torch.manual_seed(0)
    down, up = torch.randn(6, 30), torch.randn(10, 6)
    small_down, small_up, lost = shrunk(down, up, 3)
    assert small_down.dtype == small_up.dtype == torch.float32
    assert small_down.shape == (3, 30)
    assert small_up.shape == (10, 3)
    kept = squared_norm(small_up, small_down)
    assert kept + lost == pytest.approx(float((up @ down).square().sum()), rel=1e-5)
    assert grown(down, up, torch.zeros(9, 30))[1].shape == (10, 9)


def test_scalings_are_read_as_peft_uses_them() -> None:
    assert scaling({"lora_alpha": 32, "r": 16}) == 2.0
    assert scaling({"lora_alpha": 32, "r": 16, "use_rslora": True}) == 8.0
