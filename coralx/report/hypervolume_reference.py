"""What a run's hypervolume is a share of, as JSON and as a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from coralx.records.run_facts import Axis
from coralx.report.formatting import BYTES, figure
from coralx.search.indicators import MARGIN

SCALES = {
    "linear": "",
    "log": " on a log scale",
    "loss": " as 1 - exp(-loss)",
    "perplexity": " as 1 - 1/perplexity",
    "any": " as x/(1 + |x|)",
}


def reference_json(axes: Sequence[Axis]) -> dict[str, Any] | None:
    """The box in which hypervolume is measured: for each objective its `best` and `worst` figure
    (None: without end) and the scale between them, and how far beyond the worst the reference
    point lies, as a share. None for runs of versions that recorded no box."""
    if not axes:
        return None
    return {"margin": MARGIN, "axes": [_ends(axis) for axis in axes]}


def _ends(axis: Axis) -> dict[str, Any]:
    values = asdict(axis)
    low, high = values.pop("low"), values.pop("high")
    best, worst = (high, low) if axis.direction == "maximize" else (low, high)
    return {**values, "best": best, "worst": worst}


def reference_line(reference: Mapping[str, Any] | None) -> str:
    """A sentence on what the hypervolume is a share of."""
    if reference is None:
        return "Hypervolume is a share of the box spanned by the first genomes that finished."
    axes = ", ".join(_range(axis) for axis in reference["axes"])
    return (
        "Hypervolume is the share that the front dominates of a box fixed before training, from "
        f"the best value to a tenth beyond the worst: {axes}."
    )


def _range(axis: Mapping[str, Any]) -> str:
    metric, maximised = axis["metric"], axis["direction"] == "maximize"
    best = _end(axis["best"], metric, is_upper=maximised)
    worst = _end(axis["worst"], metric, is_upper=not maximised)
    return f"{metric} from {best} to {worst}{SCALES[axis['scale']]}"


def _end(value: float | None, metric: str, *, is_upper: bool) -> str:
    if value is None:
        return "infinity" if is_upper else "minus infinity"
    return figure(value, metric) if value and metric in BYTES else f"{value:,.0f}"
