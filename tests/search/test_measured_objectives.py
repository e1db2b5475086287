"""What is measured: the spread beside it, and what counts as equal within it."""

from __future__ import annotations

import time
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralx.config.evolution import Objective
from coralx.config.metric_catalogue import CATALOGUE, SPREAD
from coralx.records.results import Metrics
from coralx.search.pareto import as_minimised, ranks

LATENCY = Objective(metric="latency_ms")
SKILL = Objective(metric="auroc")
MIB = 1 << 20


def measured(value: float | None, spread: float | None) -> Metrics:
    return {"latency_ms": value, "latency_ms" + SPREAD: spread, "auroc": 0.5}


def points(*rows: tuple[float | None, float | None]) -> list[float | None]:
    """The latencies of genomes that were measured so, as the search compares them."""
    found = as_minimised([measured(*row) for row in rows], [SKILL, LATENCY])
    assert found[:, 0].tolist() == [-0.5] * len(rows)
    return [None if np.isnan(value) else value for value in found[:, 1].tolist()]


# -- ties ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(10.0, 1.0), (10.5, 1.0)], [10.25, 10.25]),
        ([(10.0, 1.0), (11.0, 1.0)], [10.5, 10.5]),  # just within
        ([(10.0, 1.0), (11.5, 1.0)], [10.0, 11.5]),
        ([(10.0, 0.0), (10.5, 1.0)], [10.25, 10.25]),  # one of the two spreads is enough
        ([(10.0, 1.0), (10.9, 1.0), (11.8, 1.0)], [10.9, 10.9, 10.9]),  # a chain
        ([(11.8, 1.0), (20.0, 1.0), (10.0, 1.0), (10.9, 1.0)], [10.9, 20.0, 10.9, 10.9]),
        ([(10.0, 1.0), (None, None), (10.5, 1.0)], [10.25, None, 10.25]),
        ([(None, 1.0), (10.5, 1.0)], [None, 10.5]),
        ([(None, 1.0), (None, 1.0)], [None, None]),
        ([(10.0, 1.0), (10.5, None)], [10.25, 10.25]),
        ([(10.0, None), (10.5, None)], [10.0, 10.5]),
        ([(10.0, 0.0), (10.0, 0.0), (10.5, 0.0)], [10.0, 10.0, 10.5]),
        ([(10.0, 5.0)], [10.0]),
        ([], []),
    ],
)
def test_measurements_within_their_spread_are_equal(
    rows: list[tuple[float | None, float | None]], expected: list[float | None]
) -> None:
    assert points(*rows) == pytest.approx(expected)


def test_without_a_spread_values_are_taken_as_they_are() -> None:
    figures: list[Metrics] = [{"auroc": 0.5, "latency_ms": 3.0}, {"auroc": 0.5000001}]
    found = as_minimised(figures, [SKILL, LATENCY])
    assert found[:, 0].tolist() == [-0.5, -0.5000001]
    assert found[0, 1] == 3.0
    assert np.isnan(found[1, 1])


def test_a_measurement_to_be_maximised_is_turned_before_it_is_tied() -> None:
    slow = Objective(metric="latency_ms", direction="maximize")
    found = as_minimised([measured(1.0, 1.0), measured(2.0, 0.0), measured(9.0, 0.0)], [slow])
    assert found[:, 0].tolist() == [-1.5, -1.5, -9.0]


def test_a_genome_that_is_faster_within_the_spread_dominates_nobody() -> None:
    figures = [measured(10.0, 1.0), measured(10.5, 1.0), measured(12.0, 1.0)]
    assert ranks(as_minimised(figures, [SKILL, LATENCY])).tolist() == [0, 0, 1]


# Quarters are exact, and so are means of a few of them but for the last place.
genomes = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(0, 200).map(lambda n: n / 4)),
        st.one_of(st.none(), st.integers(0, 12).map(lambda n: n / 4)),
    ),
    max_size=12,
)


@given(genomes)
def test_no_two_within_a_spread_remain_different_and_no_order_is_inverted(
    rows: list[tuple[float | None, float | None]],
) -> None:
    found = points(*rows)
    for one, other in combinations(range(len(rows)), 2):
        (a, reach), (b, other_reach) = rows[one], rows[other]
        x, y = found[one], found[other]
        assert (a is None) == (x is None)
        if a is None or b is None or x is None or y is None:
            continue
        if abs(a - b) <= max(reach or 0.0, other_reach or 0.0):
            assert x == y
        if a < b:
            assert x <= y


@given(genomes, st.randoms())
def test_the_order_of_genomes_decides_nothing(
    rows: list[tuple[float | None, float | None]], random: object
) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    again = points(*(rows[place] for place in order))
    found = points(*rows)
    assert again == pytest.approx([found[place] for place in order])


# -- measuring -----------------------------------------------------------------------------------


def test_latency_is_the_median_time_of_the_work_with_its_spread() -> None:
    torch = pytest.importorskip("torch")
    from coralx.training import cost_metrics as measuring

    calls = 0

    def work() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.2 if calls <= measuring.LATENCY_WARM_UP else 0.004)

    found = measuring.latency(work, torch.device("cpu"))
    assert calls == measuring.LATENCY_WARM_UP + measuring.LATENCY_REPEATS
    assert found.keys() == {"latency_ms", "latency_ms" + SPREAD}
    assert 4 <= found["latency_ms"] < 100  # the warm-up is not in it
    assert found["latency_ms" + SPREAD] >= 0


def holding(mib: int) -> None:
    """Take so much memory, and hold it for a while."""
    block = np.ones(mib * MIB, dtype=np.uint8)
    time.sleep(0.05)
    del block


def test_memory_is_what_the_work_holds_and_no_more() -> None:
    torch = pytest.importorskip("torch")
    from coralx.training import cost_metrics as measuring

    cpu = torch.device("cpu")
    small, large, again = (measuring.memory(partial(holding, mib), cpu) for mib in (1, 64, 1))
    for found in (small, large, again):
        assert found.keys() == {"memory", "memory" + SPREAD}
        assert found["memory" + SPREAD] >= 0
    assert 48 * MIB <= large["memory"] <= 96 * MIB
    assert 0 <= small["memory"] <= 16 * MIB
    assert 0 <= again["memory"] <= 16 * MIB  # nothing of the larger one is charged to it


class FakeAllocator:
    """Stands where torch's allocator on CUDA would."""

    def __init__(self, patch: pytest.MonkeyPatch, torch: Any) -> None:
        self.allocated = self.peak = 0
        for name in ("synchronize", "empty_cache"):
            patch.setattr(torch.cuda, name, lambda: None)
        patch.setattr(torch.cuda, "memory_allocated", lambda: self.allocated)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda: self.peak)
        patch.setattr(torch.cuda, "reset_peak_memory_stats", self.reset)

    def reset(self) -> None:
        self.peak = self.allocated

    def hold(self, size: int) -> None:
        self.allocated += size
        self.peak = max(self.peak, self.allocated)


def test_memory_on_cuda_does_not_depend_on_what_ran_before(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from coralx.training import cost_metrics as measuring

    allocator = FakeAllocator(monkeypatch, torch)

    def work() -> None:
        allocator.hold(300)
        allocator.hold(-300)

    model = torch.nn.ModuleDict(
        {
            "base": torch.nn.Linear(4, 2, bias=False, dtype=torch.float16),  # 16 bytes
            "genome-a": torch.nn.Linear(3, 1, bias=False),  # 12 bytes
            "default": torch.nn.Linear(9, 9),  # the template, which is no genome's
        }
    )
    model.register_buffer("scales", torch.zeros(5, dtype=torch.uint8))
    held = measuring.held_bytes(model, "default")
    assert held == 16 + 12 + 5
    found = []
    for left_behind in (0, 10_000, 25_000):  # buffers of earlier genomes, an optimizer's moments
        allocator.hold(left_behind)
        found.append(measuring.memory(work, torch.device("cuda"), held))
    assert found == [{"memory": held + 300.0, "memory" + SPREAD: 0.0}] * 3


def test_an_error_in_the_work_ends_the_measurement() -> None:
    torch = pytest.importorskip("torch")
    import threading

    from coralx.system import process_memory as resident
    from coralx.training import cost_metrics as measuring

    def work() -> None:
        raise RuntimeError("no more")

    before = threading.active_count()
    for measure in (measuring.memory, measuring.latency):
        with pytest.raises(RuntimeError, match="no more"):
            measure(work, torch.device("cpu"))
    for watched in (resident.peak_growth, resident._watched):
        with pytest.raises(RuntimeError, match="no more"):
            watched(work)
    assert threading.active_count() == before


def test_what_is_measured_is_known_to_have_a_spread() -> None:
    measured_names = {n for n, m in CATALOGUE.items() if m.source == "measurement"}
    assert measured_names == {"memory", "latency_ms"}
    assert not any(name.endswith(SPREAD) for name in CATALOGUE)
