"""What it brings that every child tries another learning rate: replayed, in minutes.

    python benchmarks/experience/breeding.py [--table runs.csv] [--seeds 4]

Searches with CoralX's own founders, breeding and survival, every genome trained to the end, as runs
of revision 3 breed and as those of revision 4 do. Regret is how far the best loss found lies above
the best that there is, in per cent of it. Made-up tasks are those of `saved_trainings.py`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from saved_trainings import PRIORS, TABLE, search
from surfaces import Surface, between, made_up_pair, space

from coralx.config.evolution import Evolution

SIZES = (6, 8, 16)
GENERATIONS = (2, 3, 5)
REVISIONS = (3, 4)


def regrets(
    surface: Surface, prior: float | None, size: int, seed: int, revision: int
) -> list[float]:
    """In per cent, after each of GENERATIONS."""
    evolution = Evolution(population_size=size, generations=max(GENERATIONS))
    trained = search(
        surface, space(prior), max(GENERATIONS), seed, evolution=evolution, revision=revision
    )
    losses = [math.inf if one.loss is None else one.loss for one in trained]
    return [100 * (min(losses[: size * count]) / surface.best - 1) for count in GENERATIONS]


def row(surfaces: Sequence[tuple[int, Surface]], prior: float | None, size: int) -> str:
    """Mean regret before and after, and what it changed with a 95 % interval."""
    before, after = (
        np.asarray([regrets(one, prior, size, seed, revision) for seed, one in surfaces])
        for revision in REVISIONS
    )
    change = after - before
    error = 1.96 * change.std(axis=0, ddof=1) / math.sqrt(len(change))
    columns = zip(before.mean(0), after.mean(0), change.mean(0), error, strict=True)
    return " | ".join(f"{a:.2f} to {b:.2f} ({c:+.2f} ± {e:.2f})" for a, b, c, e in columns)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--seeds", type=int, default=4, help="a model of the sweep")
    chosen = parser.parse_args()
    seeds = range(chosen.seeds)
    cases = {
        "made up": [
            (seed, made_up_pair("same base", np.random.default_rng([3, seed]))[1])
            for seed in range(30 * chosen.seeds)
        ]
    }
    if chosen.table.is_file():
        models = between(chosen.table)
        cases["sweep"] = [(100 * s + k, one) for k, one in enumerate(models) for s in seeds]
    print("| tasks | prior | population |", *(f"{g} generations |" for g in GENERATIONS))
    print("| --- | --- | --- |", *("--- |" for _ in GENERATIONS))
    for title, surfaces in cases.items():
        for prior in PRIORS:
            for size in SIZES:
                print(f"| {title} | {prior or 'none'} | {size} | {row(surfaces, prior, size)} |")


if __name__ == "__main__":
    main()
