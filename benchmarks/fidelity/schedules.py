"""What schedules cost and lose on recorded curves: the tables of README.md's last part.

    python benchmarks/fidelity/schedules.py [--lora-curves ../shared/data/lora_curves/fr-en.csv]

Prints Markdown. Plays the grid of `coralx simulate --tune-schedule`, which prints the cheapest
schedules for one config; here are the comparisons behind the presets.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from analyse import table

from coralx.api.curve_files import read_curves
from coralx.api.quality import parse_quality
from coralx.config.hyperband import preset_stages
from coralx.config.presets import BY_LOSS, PRESETS, Preset
from coralx.rng import generator
from coralx.schedule.cohort_regret import Floats, all_cohorts, best_first, estimate
from coralx.schedule.stages import stages_of
from coralx.schedule.tuning import ROWS, SHARES, TOLERANCES, Grid, judged, search
from coralx.schedule.tuning_costs import Prices, Rung, Schedule
from coralx.schedule.tuning_curves import LOSS, METRIC, TRAINING, CurveTable, common_shares

HERE = Path(__file__).parent
CURVES = HERE / "curves.csv"
PRICES = Prices(training=4800, validation=512)
"""2,400 rows, twice: the tweets of `make bench`."""

POPULATION = 8


def ignore(share: float) -> None:
    """Nobody waits."""


def by_figure(tables: Sequence[CurveTable]) -> str:
    """The cheapest schedules where stages may rank by one figure or another."""
    unscored = [replace(own, signals={METRIC: own.signals[TRAINING]}) for own in tables]
    rows = []
    for name, found, sizes, figures in (
        ("AUROC", tables, ROWS, (METRIC,)),
        ("validation loss", tables, ROWS, (LOSS,)),
        ("training loss, nothing scored", unscored, (0,), (METRIC,)),
        ("any of them, 64 rows at least", tables, ROWS, (METRIC, LOSS, TRAINING)),
    ):
        rows += [[name, *cells] for cells in _frontier(found, sizes, figures, POPULATION)]
    header = ["ranks by", "within", "schedule", "trainings", *(t.name for t in tables), "held out"]
    return table(header, rows)


def by_population(tables: Sequence[CurveTable]) -> str:
    """The cheapest schedules of generations of 8 and 12, and how far they end behind the best of
    all configurations."""
    rows = [
        [str(population), *cells]
        for population in (8, 12)
        for cells in _frontier(tables, ROWS, (METRIC, LOSS, TRAINING), population, behind=True)
    ]
    columns = [f"{t.name}, behind the best of all" for t in tables]
    return table(["genomes", "within", "schedule", "trainings", *columns, "held out"], rows)


def _frontier(
    tables: Sequence[CurveTable],
    sizes: tuple[int, ...],
    figures: tuple[str, ...],
    population: int,
    *,
    behind: bool = False,
) -> list[list[str]]:
    grid = Grid(tuple(common_shares(tables, SHARES)), sizes, figures, population)
    found = search(tables, grid, PRICES, generator(0, "tuning"), progress=ignore)
    rows = []
    for within in map(float, TOLERANCES):
        schedule = found.schedules[found.cheapest(within)]
        regrets = [judged(schedule, t, population, generator(0, "judging")) for t in tables]
        cells = [
            f"{1e3 * (regret.behind if behind else regret.mean.mean):.1f}"
            for regret in regrets
            if regret is not None
        ]
        lost = zip(tables, found.held_out(within), strict=True)
        held_out = " / ".join(f"{1e3 * t.tolerance * multiple:.1f}" for t, multiple in lost)
        cost = _cost(schedule, population)
        rows.append([f"{3 * within:g}", shown(schedule), *cost, *cells, held_out])
    return rows


def by_depth(tables: Sequence[CurveTable]) -> str:
    """What the cheapest schedules cost with one, two and three stages before the last one, on a
    coarse grid."""
    shares = tuple(map(Fraction, ("1/20", "1/10", "1/5", "1/2")))
    rows = []
    for figure in (METRIC, LOSS):
        for deepest in (1, 2, 3):
            grid = Grid(shares, (64, 256), (figure,), POPULATION, deepest)
            found = search(tables, grid, PRICES, generator(0, "tuning"), progress=ignore)
            cheapest = [found.costs[found.cheapest(float(within))] for within in TOLERANCES]
            cells = [f"{cost / PRICES.whole:.2f}" for cost in cheapest]
            rows.append([figure, str(deepest), *cells])
    return table(["ranks by", "stages", *(f"within {float(3 * w):g}" for w in TOLERANCES)], rows)


def shown(schedule: Schedule) -> str:
    """`10 %: 3 (128, loss), 50 %: 1 (256)`."""
    return ", ".join(
        f"{float(100 * rung.share):.3g} %: {rung.kept} ({rung.rows}"
        f"{'' if rung.figure == METRIC else f', {rung.figure}'})"
        for rung in schedule.rungs
    )


def _cost(schedule: Schedule, population: int) -> list[str]:
    return [f"{PRICES.cost(schedule, population) / PRICES.whole:.2f}"]


def schedule_of(preset: Preset) -> Schedule:
    """A preset as a generation of eight goes through it."""
    stages, figures = stages_of(preset_stages(preset)), [by for *_, by in PRESETS[preset]]
    rungs, entered = [], POPULATION
    for stage, by in zip(stages[:-1], figures, strict=False):
        share = stage.planned_steps(1) / stages[-1].planned_steps(1)
        entered = stage.quota(entered)
        rows = stage.eval_limit or (512 if entered < POPULATION else 0)
        rungs.append(Rung(share, rows, entered, LOSS if by == BY_LOSS else METRIC))
    return Schedule(tuple(rungs))


def presets(tables: Sequence[CurveTable]) -> str:
    """What each preset costs and loses, in the tables' units."""
    rows = []
    for preset in PRESETS:
        schedule = schedule_of(preset)
        regrets = [judged(schedule, t, POPULATION, generator(0, "judging")) for t in tables]
        cells = [
            f"{r.mean.mean:.4f} ({r.mean.low:.4f} to {r.mean.high:.4f})" if r else "not known"
            for r in regrets
        ]
        rows.append([preset, shown(schedule), *_cost(schedule, POPULATION), *cells])
    return table(["preset", "schedule", "trainings", *(t.name for t in tables)], rows)


def by_objectives(tables: Sequence[CurveTable]) -> str:
    """Regret of a cut by AUROC, and by AUROC and size as two objectives; AUROC of 512 rows."""
    size = _sizes()
    members = all_cohorts(len(size), POPULATION)
    rows = []
    for share, keep in ((Fraction(1, 10), 4), (Fraction(1, 10), 2), (Fraction(1, 5), 4)):
        for own in tables:
            figure = own.at(share, METRIC, 512)[0][members]
            full = own.full[members]
            cells = []
            for ranks in (figure, figure - 10 * _fronts(figure, size[members])):
                kept = np.take_along_axis(full, best_first(ranks)[:, :keep], axis=1)
                lost = estimate(full.max(axis=1) - kept.max(axis=1), members, len(size))
                cells.append(f"{1e3 * lost.mean:.1f}")
            rows.append([f"{float(100 * share):g} %, {keep} of {POPULATION}", own.name, *cells])
    return table(["cut", "curves", "by AUROC", "by AUROC and size"], rows)


def _sizes() -> Floats:
    """Of each configuration's adapter, in proportion; the same on both tasks."""
    with CURVES.open(encoding="utf-8", newline="") as file:
        rows: Mapping[int, Mapping[str, str]] = {
            int(row["config"]): row for row in csv.DictReader(file)
        }
    modules = {"all-linear": 6}
    return np.array(
        [
            float(row["lora_rank"])
            * modules.get(row["target_modules"], row["target_modules"].count("+") + 1)
            for _, row in sorted(rows.items())
        ]
    )


def _fronts(figure: Floats, size: Floats) -> Floats:
    """The non-dominated rank of each member, 0 for the first front."""
    ranks = np.full(figure.shape, -1.0)
    better = (figure[:, :, None] >= figure[:, None, :]) & (size[:, :, None] <= size[:, None, :])
    better &= (figure[:, :, None] > figure[:, None, :]) | (size[:, :, None] < size[:, None, :])
    level = 0
    while (ranks < 0).any():
        left = ranks < 0
        dominated = (better & left[:, :, None]).any(axis=1)
        ranks[left & ~dominated] = level
        level += 1
    return ranks


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lora-curves", type=Path)
    further = parser.parse_args().lora_curves
    tables = read_curves(CURVES, [parse_quality("auroc")], None)
    print(f"### Rungs by figure, regrets in thousandths of AUROC\n\n{by_figure(tables)}\n")
    print(f"### Generations of 8 and 12\n\n{by_population(tables)}\n")
    print(f"### How many stages, in trainings\n\n{by_depth(tables)}\n")
    print(f"### One figure or two objectives\n\n{by_objectives(tables)}\n")
    if further is not None:
        metrics = [parse_quality("bleu"), parse_quality("perplexity")]
        tables += read_curves(further, metrics, None)
    print(f"### Presets\n\n{presets(tables)}")


if __name__ == "__main__":
    main()
