"""The box of a run's hypervolume: settled before training, and no trade-off within it is unseen."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.config import Config
from coralx.config.metric_catalogue import CATALOGUE
from coralx.engine.hypervolume_reference import reference_of
from coralx.records.results import Metrics
from coralx.records.run_facts import Axis, Footprint
from coralx.report.hypervolume_reference import reference_json, reference_line
from coralx.search.hypervolume_box import distances, unit_box
from coralx.search.indicators import relative_hypervolume
from tests.support.factories import (
    make_config,
    make_facts,
)

AXES = (
    Axis("auroc", "maximize", "linear", 0.0, 1.0),
    Axis("trainable_parameters", "minimize", "log", 1e4, 1e6),
    Axis("perplexity", "minimize", "perplexity", 1.0, None),
    Axis("my:score", "maximize", "any", None, None),
)
GRIDS: dict[str, Sequence[float]] = {
    "auroc": [0.0, 0.3, 0.5, 0.8, 0.81, 0.95, 1.0],
    "trainable_parameters": [1e4, 2e4, 9e4, 1e5, 5e5, 1e6],
    "perplexity": [1.0, 1.1, 3.0, 20.0, 500.0, 1e5],
    "my:score": [-100.0, -1.0, 0.0, 0.1, 0.5, 40.0, 1e3],
}
members = st.fixed_dictionaries({name: st.sampled_from(grid) for name, grid in GRIDS.items()})
wild = st.fixed_dictionaries({name: st.none() | st.floats(-1e300, 1e300) for name in GRIDS})


def volume(figures: Sequence[Metrics], axes: Sequence[Axis] = AXES) -> float:
    return relative_hypervolume(distances(figures, axes), unit_box(axes))


def is_covered(figures: Metrics, others: Sequence[Metrics]) -> bool:
    """Whether one of the others is as good in everything."""
    signs = {axis.metric: 1 if axis.direction == "minimize" else -1 for axis in AXES}
    return any(all(s * other[m] <= s * figures[m] for m, s in signs.items()) for other in others)


@given(st.lists(members, min_size=1, max_size=8), members)
@settings(deadline=None)
def test_whoever_is_not_dominated_adds_to_the_volume_and_nobody_else(
    known: list[Metrics], new: Metrics
) -> None:
    before, after = volume(known), volume([*known, new])
    if is_covered(new, known):
        assert after == pytest.approx(before, rel=1e-12)
    else:
        assert after > before


@given(st.lists(members | wild, min_size=1, max_size=8), wild)
@settings(deadline=None)
def test_no_figure_makes_the_volume_fall_exceed_one_or_undefined(
    known: list[Metrics], new: Metrics
) -> None:
    before, after = volume(known), volume([*known, new])
    assert 0.0 <= before <= after * (1 + 1e-12)
    assert after <= 1.0 + 1e-12


def test_figures_stand_where_they_should() -> None:
    best: Metrics = {"auroc": 1.0, "trainable_parameters": 1e4, "perplexity": 1.0}
    assert volume([best], AXES[:3]) == 1.0
    assert volume([{**best, "trainable_parameters": 5e3}], AXES[:3]) == 1.0  # no better than best
    assert volume([{**best, "auroc": 0.0}], AXES[:3]) == pytest.approx(0.1 / 1.1)
    assert volume([{**best, "auroc": None}], AXES[:3]) == pytest.approx(0.1 / 1.1)
    assert volume([{**best, "trainable_parameters": 1e9}], AXES[:3]) == 0.0  # outside
    middle, double, loss = distances(
        [
            {"trainable_parameters": 1e5, "perplexity": 4.0},
            {"trainable_parameters": 2e5, "perplexity": 2.0},
            {"trainable_parameters": 1e4, "perplexity": math.exp(0.3)},
        ],
        AXES[1:3],
    )
    assert middle == pytest.approx([0.5, 0.75], abs=1e-4)
    assert double == pytest.approx([0.5 + math.log10(2) / 2, 0.5], abs=1e-4)
    assert loss[1] == pytest.approx(
        distances([{"eval_loss": 0.3}], [Axis("eval_loss", "minimize", "loss", 0.0, None)])[0, 0]
    )
    assert distances([{"my:score": 0.0}], AXES[3:])[0, 0] == 0.5


# -- what the box is made of ---------------------------------------------------------------------


def axes_of(config: Config, **facts: Any) -> dict[str, Axis]:
    return {axis.metric: axis for axis in reference_of(config, replace(make_facts(), **facts))}


def test_every_metric_has_an_axis_whichever_way_it_goes() -> None:
    for name, metric in CATALOGUE.items():
        for direction in ("maximize", "minimize"):
            extent = metric.extent
            axis = Axis(name, direction, extent.scale, extent.low, extent.high)
            values = [v for v in (0.001, 0.5, 0.9, 1.0, 1.5) if extent.high != 1.0 or v <= 1.0]
            if extent.low == 1.0:
                values = [1.0, 1.5, 20.0, 1e4]
            found = distances([{name: value} for value in values], [axis])[:, 0]
            order = found if direction == "minimize" else found[::-1]
            assert np.all(np.diff(order) > 0), name
            assert np.all((found >= 0) & (found <= 1)), name


def test_sizes_lie_between_the_smallest_and_the_largest_adapter_of_the_space() -> None:
    config = make_config(
        objectives=[{"metric": m} for m in ("auroc", "trainable_parameters", "adapter_bytes")],
        search_space={
            "rank": {"choices": [2, 8, 64]},
            "target_modules": {"choices": [["q_proj"], "all-linear"]},
        },
    )
    base = Footprint(
        base_parameters=10**6,
        base_bytes=4 * 10**6,
        hidden_size=8,
        intermediate_size=16,
        layers=1,
        linear=(("layer.q_proj", 8, 8), ("layer.up_proj", 8, 16)),
        head_parameters=18,
    )
    found = axes_of(config, backend="peft", footprint=base)
    smallest, largest = 2 * 16 + 18, 64 * (16 + 24) + 18
    assert found["trainable_parameters"] == Axis(
        "trainable_parameters", "minimize", "log", smallest, largest
    )
    assert found["adapter_bytes"].low == 2 * smallest
    assert found["adapter_bytes"].high == 4 * largest
    assert found["auroc"] == Axis("auroc", "maximize", "linear", 0.0, 1.0)
    unknown = axes_of(config, backend="peft")["trainable_parameters"]
    assert (unknown.low, unknown.high) == (0.0, 2.0**44)
    one_size = {"rank": {"choices": [4]}, "target_modules": {"choices": [["q_proj"]]}}
    single = make_config(search_space=one_size)
    size = axes_of(single, backend="peft", footprint=base)["trainable_parameters"]
    assert size.low is not None
    assert size.high == 2 * size.low


def test_the_report_says_what_the_share_is_of() -> None:
    found = reference_json((*AXES, Axis("memory", "minimize", "log", 0.0, 2.0**44)))
    assert found is not None
    assert found["axes"][0]["best"] == 1.0
    assert found["axes"][2]["worst"] is None
    line = reference_line(json.loads(json.dumps(found)))
    for words in (
        "auroc from 1 to 0,",
        "trainable_parameters from 10,000 to 1,000,000 on a log scale",
        "perplexity from 1 to infinity as 1 - 1/perplexity",
        "my:score from infinity to minus infinity as x/(1 + |x|)",
        "memory from 0 to 16,384.00 GiB on a log scale",
    ):
        assert words in line
    assert reference_json(()) is None
    assert "first genomes that finished" in reference_line(None)
