"""Adapters derived from others without training, in float64 against s B A itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.errors import NotDerivable
from coralx.records.derivations import Derivation
from coralx.search.module_groups import module_groups
from coralx.training.checkpoint_crossover import weighted_sum
from coralx.training.derivations import (
    check_sources,
    compressed,
    derive,
    function_lost,
    scaled,
    truncated,
    without,
)
from coralx.training.derived_adapter import least_worth
from coralx.training.resize import Update

SIZES = {"k": (16, 20), "q": (12, 12), "v": (8, 30)}
"""Outputs and inputs of each module."""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)  # for matrices as small as these, more take longer


def adapter(seed: int, scaling: float = 1.0, **ranks: int) -> Update:
    torch.manual_seed(seed)
    weights = {"head.weight": torch.randn(2, 3, dtype=torch.float64)}
    for stem, rank in ranks.items():
        outputs, inputs = SIZES[stem]
        weights[f"{stem}.lora_A.weight"] = torch.randn(rank, inputs, dtype=torch.float64)
        weights[f"{stem}.lora_B.weight"] = torch.randn(outputs, rank, dtype=torch.float64)
    return Update(weights, scaling, max(ranks.values()))


def function(update: Update, stem: str) -> torch.Tensor:
    """s B A, zero where the module is not adapted."""
    down = update.weights.get(f"{stem}.lora_A.weight")
    if down is None:
        return torch.zeros(SIZES[stem], dtype=torch.float64)
    return update.scaling * update.weights[f"{stem}.lora_B.weight"] @ down


def best(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] * values[:rank] @ v[:rank]


def parameters(update: Update) -> int:
    return sum(t.numel() for name, t in update.weights.items() if ".lora_" in name)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.floats(0.25, 8.0), st.integers(0, 99))
def test_each_module_is_cut_to_its_best_approximation(rank: int, scale: float, seed: int) -> None:
    source = adapter(seed, scale, q=8, k=3, v=6)
    cut = truncated(source, rank)
    assert cut.ranks == {stem: min(own, rank) for stem, own in source.ranks.items()}
    assert (cut.rank, cut.scaling) == (min(8, rank), scale)
    for stem in SIZES:
        assert torch.allclose(function(cut, stem), best(function(source, stem), rank))
    assert torch.equal(cut.weights["head.weight"], source.weights["head.weight"])


@settings(max_examples=15, deadline=None)
@given(st.floats(0.02, 1.0), st.integers(0, 99))
def test_the_directions_that_carry_most_for_their_size_are_kept(share: float, seed: int) -> None:
    source = adapter(seed, 2.0, q=8, k=8, v=8)
    try:
        kept = compressed(source, share)
    except NotDerivable:
        assert share * parameters(source) < 24 + 1e-9  # a direction of the smallest module
        return
    assert parameters(kept) <= share * parameters(source) + 1e-9
    worth = {
        (stem, place): float(value) ** 2 / sum(SIZES[stem])
        for stem in SIZES
        for place, value in enumerate(torch.linalg.svdvals(function(source, stem))[:8])
    }
    ranks = {stem: kept.ranks.get(stem, 0) for stem in SIZES}
    for stem, rank in ranks.items():
        assert torch.allclose(function(kept, stem), best(function(source, stem), rank), atol=1e-9)
    chosen = [worth[stem, place] for stem in SIZES for place in range(ranks[stem])]
    left = share * parameters(source) - parameters(kept)
    for (stem, place), value in worth.items():
        # What was not chosen carries less than all that was, or did not fit any more.
        if place >= ranks[stem] and value > min(chosen):
            assert sum(SIZES[stem]) > left


def test_a_share_too_small_for_any_direction_is_refused() -> None:
    with pytest.raises(NotDerivable, match=r"not one singular direction fits into 0.01"):
        compressed(adapter(0, q=2, k=2, v=2), 0.01)


def test_scaling_moves_all_updates_and_no_head() -> None:
    source = adapter(1, 0.5, q=4, v=2)
    twice = scaled(source, 2.0)
    for stem in "qv":
        assert torch.equal(function(twice, stem), 2.0 * function(source, stem))
    assert torch.equal(twice.weights["head.weight"], source.weights["head.weight"])
    assert twice.scaling == source.scaling


def test_dropped_modules_are_gone() -> None:
    rest = without(adapter(1, q=8, k=4, v=2), {"q"})
    assert rest.ranks == {"k": 4, "v": 2}
    assert rest.rank == 4


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 20), st.integers(0, 99))
def test_a_soup_is_the_best_approximation_of_the_weighted_mean(rank: int, seed: int) -> None:
    sources = [
        adapter(seed, 2.0, q=4, k=4),
        adapter(seed + 1, 0.5, q=6, v=3),
        adapter(seed + 2, 1.5, q=2, k=1, v=5),
    ]
    weights = (0.5, 0.3, 0.2)
    names = ("one", "two", "three")
    soup = derive(Derivation("soup", names, rank=rank, weights=weights), sources)
    assert soup.rank <= rank
    for stem in SIZES:
        parts = [w * function(s, stem) for w, s in zip(weights, sources, strict=True)]
        mean = torch.stack(parts).sum(dim=0)
        assert torch.allclose(function(soup, stem), best(mean, rank), atol=1e-9)
    heads = [w * s.weights["head.weight"] for w, s in zip(weights, sources, strict=True)]
    assert torch.allclose(soup.weights["head.weight"], torch.stack(heads).sum(dim=0))


def test_the_function_that_is_lost_is_told_as_for_children() -> None:
    """Against the matrices themselves: the distance over the norm of what was cut."""
    one, other = adapter(1, 2.0, q=8, k=3, v=6), adapter(2, 0.5, q=4, k=8)
    mean = weighted_sum([one, other], (0.25, 0.75))
    made = (
        (Derivation("truncate", ("a",), rank=2), [one], one, truncated(one, 2)),
        (Derivation("compress", ("a",), share=0.5), [one], one, compressed(one, 0.5)),
        (Derivation("drop", ("a",), count=1), [one], one, without(one, ["k"])),
        (
            Derivation("soup", ("a", "b"), rank=3, weights=(0.25, 0.75)),
            [one, other],
            mean,
            truncated(mean, 3),
        ),
    )
    for derivation, sources, whole, result in made:
        lost = sum(float((function(whole, m) - function(result, m)).square().sum()) for m in SIZES)
        size = sum(float(function(whole, m).square().sum()) for m in SIZES)
        expected = (lost / size) ** 0.5
        assert 0.1 < expected < 1.0
        assert function_lost(derivation, sources, result) == pytest.approx(expected)
    nothing = Derivation("truncate", ("a",), rank=8)
    assert function_lost(nothing, [one], truncated(one, 8)) == 0.0
    assert function_lost(Derivation("scale", ("a",), factor=0.5), [one], scaled(one, 0.5)) == 0.0


def test_compositions_are_operators_on_derived_adapters() -> None:
    source = adapter(3, 2.0, q=8, k=8, v=8)
    part = derive(Derivation("compress", ("a",), share=0.3), [source])
    half = derive(Derivation("scale", ("b",), factor=0.5), [part])
    cut = derive(Derivation("truncate", ("c",), rank=1), [half])
    for stem in SIZES:
        wanted = best(0.5 * function(part, stem), 1)
        assert torch.allclose(function(cut, stem), wanted, atol=1e-9)


def test_sources_that_no_operator_fits_are_refused_with_the_reason() -> None:
    dora = adapter(0, q=2)
    dora = replace(dora, weights={**dora.weights, "q.lora_magnitude_vector": torch.ones(12)})
    with pytest.raises(NotDerivable, match="DoRA"):
        check_sources([adapter(0, q=2), dora])
    head = Update({"head.weight": torch.ones(2)}, 1.0, 1)
    with pytest.raises(NotDerivable, match="adapts no module of the base"):
        check_sources([head])
    with pytest.raises(NotDerivable, match="has no rank"):
        derive(Derivation("truncate", ("a",)), [adapter(0, q=2)])


# -- groups of modules -----------------------------------------------------------------------------


def test_groups_are_dropped_one_after_the_other_by_the_loss_without_them() -> None:
    worth = {"a.0.q": 3.0, "a.0.v": 1.0, "a.1.q": 2.0, "a.1.v": 0.5, "a.2.q": 4.0, "a.2.v": -1.0}
    groups = module_groups(worth)
    assert list(groups) == ["layer 0", "layer 1", "layer 2", "q", "v"]

    asked: list[Collection[str]] = []

    def loss(off: Collection[str]) -> float:
        asked.append(off)
        return sum(worth[stem] for stem in off)

    assert least_worth(groups, 1, loss) == ["v"]
    assert len(asked) == 1 + 5
    assert least_worth(groups, 3, loss) == ["v", "layer 1", "layer 0"]
    assert len(asked) == 6 + 6 + 1 + 2  # again only those that lead
    with pytest.raises(NotDerivable, match="no more than 3 groups of modules"):
        least_worth(groups, 4, loss)
