"""Quality over time as an SVG, a line a contestant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl
from curves import Curve

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "coralx"  # equal figures are equal files

POINTS = 200


def draw(curves: Sequence[Curve], workload: str, path: Path) -> None:
    """Median over seeds of the test AUROC of the best on validation, over naive trainings on a log
    scale; a line begins where every seed has a finished adapter."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5))
    latest = max((curve.end for curve in curves), default=1.0)
    times = [latest * 10 ** (3.0 * (n / POINTS - 1.0)) for n in range(POINTS + 1)]
    for name in dict.fromkeys(curve.contestant for curve in curves):
        own = [curve for curve in curves if curve.contestant == name]
        line = []
        for time in times:
            best = [each for curve in own if (each := curve.best(time)) is not None]
            if len(best) == len(own) and time <= max(curve.end for curve in own):
                line.append((time, median(each.test for each in best)))
        if line:
            axes.step(*zip(*line, strict=True), where="post", label=name)
    axes.set(
        xscale="log",
        xlabel="time in naive trainings",
        ylabel="test AUROC of the best on validation",
        title=workload,
    )
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)
