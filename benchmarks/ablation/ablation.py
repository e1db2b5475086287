"""What each strategy of the search brings: on and off, on the quickstart's task, at equal steps.

    python benchmarks/ablation/ablation.py [--seeds 1 2 3] [--steps 900] [--only NAME ...]
                                           [--results FOLDER] [--jobs 2]

Every search has the same data, model, stages and number of optimizer steps (`budget.max_steps`,
which ends it wherever it stands); only one setting differs from the first row. Prints a table in
Markdown: hypervolume of the front and the best adapter's AUROC, both on the test split, median and
range over the seeds. Reports are kept under `--results`, so that an interrupted benchmark goes on
and further rows can be added.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from coralx.search.pareto import hypervolume

ROOT = Path(__file__).parents[2]
COMMON = (
    "data.limit=320",
    "evolution.generations=12",
    "training.precision=bf16",
    "runtime.workers=1",
    "runtime.threads_per_worker=1",
)
"""Half of the quickstart's rows, so that the budget holds several generations."""

VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),
    "inherit off": ("evolution.inherit=off",),
    "inherit across ranks and modules": ("evolution.resize_adapters=true",),
    "rank growth": ("hyperband_config.rank_growth=published",),
    "checkpoint crossover": (
        "evolution.checkpoint_crossover.mask=0.5",
        "evolution.checkpoint_crossover.merge=0.5",
    ),
    "population-based training": ("evolution.pbt_quantile=0.25",),
    "adaptive budgets": ("hyperband_config.adaptive_budgets=true",),
    "two brackets": ("hyperband_config.brackets=2",),
    "asynchronous promotion": ("hyperband_config.promotion=asynchronous",),
}

SMALLEST, LARGEST = 1e4, 3e6
"""Trainable parameters between which fronts are compared, on a log scale."""


def front_quality(report: dict[str, Any]) -> tuple[float, float]:
    """The front's hypervolume, 0 to 1, by test AUROC (0.5 to 1) and parameters, and the test AUROC
    of the adapter that is best on validation."""
    points = []
    for member in report["front"]:
        parameters = member["validation"]["trainable_parameters"]
        size = math.log(parameters / SMALLEST) / math.log(LARGEST / SMALLEST)
        points.append((2.0 * (1.0 - member["test"]["auroc"]["value"]), size))
    if not points:
        return 0.0, 0.5
    best = max(report["front"], key=lambda member: member["validation"]["auroc"])
    return hypervolume(np.asarray(points), np.ones(2)), best["test"]["auroc"]["value"]


def run(name: str, seed: int, steps: int, results: Path) -> dict[str, Any]:
    """One search's report, made unless it lies under `results` already."""
    label = f"{name.replace(' ', '-')}-{seed}"
    stored = results / f"{label}-{steps}.json"
    if not stored.is_file():
        settings = (*COMMON, f"experiment.seed={seed}", f"budget.max_steps={steps}")
        command = [sys.executable, "-m", "coralx", "evolve"]
        command += [str(ROOT / "configs" / "quickstart.yaml"), "--name", label, "--quiet"]
        for setting in (*settings, *VARIANTS[name]):
            command += ["--set", setting]
        print(f"{datetime.datetime.now():%H:%M:%S} {label}", file=sys.stderr, flush=True)
        # a search that its budget ends is done; one without a result exits with 3
        done = subprocess.run(command, cwd=results, stdout=subprocess.DEVNULL, check=False)
        report = results / "runs" / label / "report.json"
        if done.returncode not in (0, 3) or not report.is_file():
            raise SystemExit(f"{label} ended with exit code {done.returncode}")
        stored.write_text(report.read_text(encoding="utf-8"), encoding="utf-8")
    found: dict[str, Any] = json.loads(stored.read_text(encoding="utf-8"))
    return found


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def row(name: str, reports: Sequence[dict[str, Any]]) -> str:
    """One line of the table."""
    volumes, aurocs = zip(*(front_quality(report) for report in reports), strict=True)
    trained = [
        sum(stage["trained_steps"] for stage in report["efficiency"]["stage_breakdown"].values())
        for report in reports
    ]
    genomes = median(report["efficiency"]["total_genomes"] for report in reports)
    cells = [name, spread(volumes), spread(aurocs), f"{genomes:g}", f"{median(trained):g}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--results", type=Path, default=ROOT / "runs" / "ablation")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    results: Path = chosen.results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(chosen.jobs) as pool:
        reports = {
            (name, seed): pool.submit(run, name, seed, chosen.steps, results)
            for seed in chosen.seeds
            for name in chosen.only
        }
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    print(f"{datetime.date.today()}, {machine}; {chosen.steps} steps, seeds {chosen.seeds}:\n")
    print("| setting | hypervolume (test) | best test AUROC | genomes | steps |")
    print("| --- | --- | --- | --- | --- |")
    for name in chosen.only:
        print(row(name, [reports[name, seed].result() for seed in chosen.seeds]))


if __name__ == "__main__":
    main()
