"""Quality over time as an SVG, a line a contestant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl
from curves import Curve

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "coralx"  # equal figures are equal files


def line_of(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Times, and the median over seeds of the test AUROC of the best on validation by then; from
    where on every seed has a finished adapter."""
    times = {each.time for curve in curves for each in curve.finished}
    times.add(max(curve.end for curve in curves))
    line = []
    for time in sorted(times):
        best = [each for curve in curves if (each := curve.best(time)) is not None]
        if len(best) == len(curves):
            line.append((time, median(each.test for each in best)))
    return line


def draw(curves: Sequence[Curve], workload: str, path: Path) -> None:
    """A line a contestant, over naive trainings on a log scale."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5))
    for name in dict.fromkeys(curve.contestant for curve in curves):
        line = line_of([curve for curve in curves if curve.contestant == name])
        if line:
            axes.step(*zip(*line, strict=True), where="post", marker=".", label=name)
    axes.set(
        xscale="log",
        xlabel="time in naive trainings",
        ylabel="test AUROC of the best on validation",
        title=workload,
    )
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
