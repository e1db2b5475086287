"""Which early signal loses least by a stage's cuts: the tables of README.md, from the CSV files.

    python benchmarks/fidelity/analyse.py

Prints Markdown. Reads `curves.csv` and `samples.csv` beside this file, and trains nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from regret import fixed, random_regret
from scipy.stats import spearmanr
from signals import SIGNALS, Curve, read_curves, signals_of

from coralx.schedule.cohort_regret import (
    Estimate,
    Floats,
    Members,
    all_cohorts,
    estimate,
    regrets,
)

HERE = Path(__file__).parent
COHORT = 8
STAGES = (5.0, 20.0)
KEEPS = (4, 2)
CUTS = [(point, keep) for point in STAGES for keep in KEEPS]
BASELINE = "AUROC"
COLLAPSED = 0.52
"""A full result below this is no better than chance."""
LOT = "drawn by lot"

Curves = Mapping[str, Sequence[Curve]]
Full = Callable[[Curve], float]


@lru_cache
def cohorts(configurations: int) -> Members:
    """All cohorts, made once."""
    return all_cohorts(configurations, COHORT)


def on_test(curve: Curve) -> float:
    """The full result on rows that no signal has seen."""
    return curve.full


def on_validation(curve: Curve) -> float:
    """The full result on the signals' own rows."""
    return curve.at(100.0, "auroc")


def without_collapses(curves: Curves) -> Curves:
    """The configurations that learnt something on every task."""
    failed = {curve.config for task in curves.values() for curve in task if curve.full < COLLAPSED}
    return {task: [c for c in found if c.config not in failed] for task, found in curves.items()}


def losses(curves: Curves, full: Full) -> dict[tuple[str, str, float, int], Floats]:
    """Regret of every cohort by (signal, task, point, configurations kept)."""
    found: dict[tuple[str, str, float, int], Floats] = {}
    for task, members_of_task in curves.items():
        truth = np.asarray([full(curve) for curve in members_of_task])
        members = cohorts(len(truth))
        for point in STAGES:
            for name, signal in signals_of(list(members_of_task), point).items():
                values = signal(members)
                for keep in KEEPS:
                    found[name, task, point, keep] = regrets(values, truth, members, keep)
            for keep in KEEPS:
                found[LOT, task, point, keep] = random_regret(truth, members, keep)
    return found


def show(value: Estimate) -> str:
    """A figure and its interval in thousandths of AUROC."""
    return f"{1e3 * value.mean:.1f} ({1e3 * value.low:.1f} to {1e3 * value.high:.1f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cut_names() -> list[str]:
    """The tables' columns: where a stage ends, and how much of it goes on."""
    return [f"{point:g} %, keep 1/{COHORT // keep}" for point, keep in CUTS]


def regret_table(curves: Curves, full: Full, *, against: str | None = None) -> str:
    """Mean regret over cohorts and tasks; with `against`, its difference from that signal's."""
    found = losses(curves, full)
    configurations = len(next(iter(curves.values())))
    members = cohorts(configurations)
    names = list(dict.fromkeys(name for name, *_ in found))
    rows = []
    for name in names:
        if name == against:
            continue
        cells = []
        for point, keep in CUTS:
            values = np.mean([found[name, task, point, keep] for task in curves], axis=0)
            if against:
                values = values - np.mean(
                    [found[against, task, point, keep] for task in curves], axis=0
                )
            cells.append(show(estimate(values, members, configurations)))
        rows.append([name, *cells])
    return table(["signal", *cut_names()], rows)


def task_table(curves: Curves) -> str:
    """Mean regret on each task, and the rank correlation with the full result."""
    found = losses(curves, on_test)
    names = list(dict.fromkeys(name for name, *_ in found))
    rows = []
    for name in names:
        cells = [
            " / ".join(f"{1e3 * found[name, task, point, keep].mean():.1f}" for task in curves)
            for point, keep in CUTS
        ]
        cells += [
            " / ".join(_correlation(name, curves[task], point) for task in curves)
            for point in STAGES
        ]
        rows.append([name, *cells])
    return table(["signal", *cut_names(), *(f"Spearman {p:g} %" for p in STAGES)], rows)


def _correlation(name: str, curves: Sequence[Curve], point: float) -> str:
    if name not in SIGNALS:
        return "-"
    signal = [SIGNALS[name](curve, point) for curve in curves]
    found = spearmanr(signal, [curve.full for curve in curves], nan_policy="omit")
    return f"{found.statistic:.2f}"


Sample = tuple[str, float, int, int]
"""Task, point, rows and draw."""


def read_samples(path: Path, split: str) -> dict[Sample, dict[str, dict[int, float]]]:
    """AUROC and loss by configuration, for every sample of a split's rows."""
    found: dict[Sample, dict[str, dict[int, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] != split:
                continue
            sample = row["task"], float(row["point"]), int(row["rows"]), int(row["draw"])
            figures = found.setdefault(sample, {"auroc": {}, "eval_loss": {}})
            for name, by_config in figures.items():
                by_config[int(row["config"])] = float(row[name])
    return found


def sample_tables(curves: Curves, path: Path) -> tuple[str, str]:
    """Mean regret over draws and tasks by the number of validation rows, and its difference from
    AUROC's on all rows."""
    samples = read_samples(path, "validation")
    configurations = len(next(iter(curves.values())))
    members = cohorts(configurations)
    sizes = sorted({rows for _, _, rows, _ in samples})
    found = {
        (label, size): list(_by_cut(curves, samples, figure, size, members))
        for label, figure in (("AUROC", "auroc"), ("loss", "eval_loss"))
        for size in sizes
    }
    all_rows = found["AUROC", sizes[-1]]
    plain, less = [], []
    for (label, size), cuts in found.items():
        plain.append(
            [label, str(size), *(show(estimate(c, members, configurations)) for c in cuts)]
        )
        differences = [mine - theirs for mine, theirs in zip(cuts, all_rows, strict=True)]
        shown = [show(estimate(value, members, configurations)) for value in differences]
        less.append([label, str(size), *shown])
    header = ["signal", "rows", *cut_names()]
    return table(header, plain), table(header, less)


def _by_cut(
    curves: Curves,
    samples: Mapping[Sample, Mapping[str, Mapping[int, float]]],
    figure: str,
    size: int,
    members: Members,
) -> Iterator[Floats]:
    """Regret of every cohort, averaged over draws and tasks, for each cut."""
    sign = 1.0 if figure == "auroc" else -1.0
    for point, keep in CUTS:
        drawn = []
        for (task, place, rows, _), figures in samples.items():
            if (place, rows) == (point, size):
                by_config = figures[figure]
                values = np.asarray([sign * by_config.get(c.config, np.nan) for c in curves[task]])
                truth = np.asarray([curve.full for curve in curves[task]])
                drawn.append(regrets(fixed(values)(members), truth, members, keep))
        yield np.mean(drawn, axis=0)


def truth_table(curves: Curves, path: Path) -> str:
    """How far the full results lie apart, and how well two halves of the test split agree."""
    samples = read_samples(path, "test")
    rows = []
    for task, members in curves.items():
        full = sorted((curve.full for curve in members), reverse=True)
        halves = {draw: f["auroc"] for (name, _, _, draw), f in samples.items() if name == task}
        order = sorted(halves[0])
        agreed = [
            spearmanr(
                [halves[draw][c] for c in order], [halves[draw + 1][c] for c in order]
            ).statistic
            for draw in sorted(halves)[::2]
        ]
        shown = [f"{value:.3f}" for value in (full[0], full[1], float(np.median(full)), full[-1])]
        rows.append([task, str(len(full)), *shown, f"{np.mean(agreed):.2f}"])
    header = ["task", "configurations", "best", "second", "median", "worst"]
    return table([*header, "Spearman of the test split's halves"], rows)


def main() -> None:
    """Print every table."""
    curves = read_curves(HERE / "curves.csv")
    print("## Full results\n")
    print(truth_table(curves, HERE / "samples.csv"))
    print("\n## Regret, thousandths of AUROC, mean of both tasks\n")
    print(regret_table(curves, on_test))
    print(f"\n## The same, less that of {BASELINE} at the point\n")
    print(regret_table(curves, on_test, against=BASELINE))
    print("\n## The same without the configurations that collapsed\n")
    print(regret_table(without_collapses(curves), on_test, against=BASELINE))
    print(f"\n## By task: {' / '.join(curves)}\n")
    print(task_table(curves))
    plain, less = sample_tables(curves, HERE / "samples.csv")
    print(f"\n## Regret by the number of validation rows\n\n{plain}")
    print(f"\n## The same, less that of AUROC on all rows\n\n{less}")
    print(f"\n## Check: full result on validation, less {BASELINE} at the point\n")
    print(regret_table(curves, on_validation, against=BASELINE))


if __name__ == "__main__":
    main()
