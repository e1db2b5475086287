"""What each strategy of the search brings: on and off, on two tasks, at equal steps.

    python benchmarks/ablation/ablation.py [--tasks tweets party] [--seeds 1 2 3] [--steps 600]
                                           [--only NAME ...] [--data ../shared/data]
                                           [--results TABLE.csv] [--jobs 2]

Tasks are the quickstart's, and another text classification under the quickstart's stages: was a
political statement of LIAR (Wang 2017) made by a democrat or a republican?

Every search has the same data, model, stages and number of optimizer steps (`budget.max_steps`,
which ends it wherever it stands); only one setting differs from the first row. Prints a table in
Markdown: hypervolume of the front and the best adapter's AUROC, both on the test split, median and
range over the seeds, by task. Outcomes are kept in `--results`, so that an interrupted benchmark
goes on and further rows can be added; delete the table to measure anew.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
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

CROSSOVER = ("evolution.checkpoint_crossover.mask=0.5", "evolution.checkpoint_crossover.merge=0.5")

VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),
    "inherit off": ("evolution.inherit=off",),
    "without resizing": ("evolution.resize_adapters=false",),
    "rank growth": ("hyperband_config.rank_growth=published",),
    "checkpoint crossover": CROSSOVER,
    "checkpoint crossover without resizing": ("evolution.resize_adapters=false", *CROSSOVER),
    "without derived genomes": ("evolution.derive.share=0",),
    "without priors": ("search_space.learning_rate={low: 1.0e-5, high: 5.0e-3, log: true}",),
    "population-based training": ("evolution.pbt_quantile=0.25",),
    "adaptive budgets": ("hyperband_config.adaptive_budgets=true",),
    "two brackets": ("hyperband_config.brackets=2",),
    "asynchronous promotion": ("hyperband_config.promotion=asynchronous",),
}

TASKS = ("tweets", "party")
PARTIES = ("democrat", "republican")
STATEMENT, PARTY = 2, 7
"""Columns of LIAR's tables."""

SMALLEST, LARGEST = 1e4, 3e6
"""Trainable parameters between which fronts are compared, on a log scale."""


def parties(data: Path, folder: Path) -> Path:
    """Statements of either party, as a table in `folder`: those of LIAR's training split."""
    table = folder / "party.csv"
    text = (data / "liar" / "train.tsv").read_text(encoding="utf-8")
    rows = csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "party"])
        writer.writerows([r[STATEMENT], r[PARTY]] for r in rows if r[PARTY] in PARTIES)
    return table


def data_settings(task: str, data: Path, folder: Path) -> tuple[str, ...]:
    """What a task changes in the quickstart's config: as many rows of each split, of other data."""
    if task == "tweets":
        return ()
    return (
        f"data.train={parties(data, folder)}",
        "data.label=party",
        f"data.labels=[{', '.join(PARTIES)}]",
        "data.validation_fraction=0.044",
        "data.test_fraction=0.073",
    )


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


@dataclass(frozen=True)
class Outcome:
    """What one search brought; figures on the test split."""

    task: str
    setting: str
    seed: int
    budget: int
    hypervolume: float
    best_auroc: float
    genomes: int
    steps: int


def run(
    task: str, name: str, seed: int, budget: int, data: tuple[str, ...], folder: Path
) -> Outcome:
    """One search on a task, whose `data` settings are given; its run folder under `folder`."""
    label = f"{task}-{name.replace(' ', '-')}-{seed}-{budget}"
    settings = (*COMMON, *data, f"experiment.seed={seed}", f"budget.max_steps={budget}")
    command = [sys.executable, "-m", "coralx", "evolve"]
    command += [str(ROOT / "configs" / "quickstart.yaml"), "--name", label, "--quiet"]
    for setting in (*settings, *VARIANTS[name]):
        command += ["--set", setting]
    print(f"{datetime.datetime.now():%H:%M:%S} {label}", file=sys.stderr, flush=True)
    # a search without a result exits with 3: that is a result here
    done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=False)
    path = folder / "runs" / label / "report.json"
    if done.returncode not in (0, 3) or not path.is_file():
        raise SystemExit(f"{label} ended with exit code {done.returncode}")
    report = json.loads(path.read_text(encoding="utf-8"))
    stages = report["efficiency"]["stage_breakdown"].values()
    volume, auroc = front_quality(report)
    genomes = report["efficiency"]["total_genomes"]
    steps = sum(stage["trained_steps"] for stage in stages)
    shutil.rmtree(folder / "runs" / label, ignore_errors=True)  # hundreds of checkpoints
    return Outcome(task, name, seed, budget, round(volume, 6), round(auroc, 6), genomes, steps)


def read(path: Path) -> list[Outcome]:
    """The outcomes that a table holds."""
    if not path.is_file():
        return []
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    types = {field.name: field.type for field in fields(Outcome)}
    kinds = {"str": str, "int": int, "float": float}
    return [Outcome(**{k: kinds[str(types[k])](v) for k, v in row.items()}) for row in rows]


def add(path: Path, outcome: Outcome) -> None:
    """Append an outcome to the table."""
    is_new = not path.is_file()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Outcome)], lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(asdict(outcome))


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def row(name: str, outcomes: Sequence[Outcome]) -> str:
    """One line of the table."""
    cells = [
        name,
        spread([outcome.hypervolume for outcome in outcomes]),
        spread([outcome.best_auroc for outcome in outcomes]),
        f"{median(outcome.genomes for outcome in outcomes):g}",
        f"{median(outcome.steps for outcome in outcomes):g}",
        str(len(outcomes)),
    ]
    return "| " + " | ".join(cells) + " |"


def table(outcomes: Sequence[Outcome], task: str, budget: int) -> list[str]:
    """What the outcomes on one task under one budget say, in Markdown."""
    lines = [
        f"| {task} | hypervolume (test) | best test AUROC | genomes | steps | seeds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in VARIANTS:
        key = (task, name, budget)
        found = [o for o in outcomes if (o.task, o.setting, o.budget) == key]
        if found:
            lines.append(row(name, found))
    return lines


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results.csv"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    known = {(o.task, o.setting, o.seed, o.budget) for o in read(chosen.results)}
    wanted = [
        (task, name, seed, chosen.steps)
        for seed in chosen.seeds  # seed by seed, so that an interrupted table is balanced
        for task in chosen.tasks
        for name in chosen.only
    ]
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(chosen.jobs) as pool:
        folder = Path(scratch)
        data = {task: data_settings(task, chosen.data, folder) for task in chosen.tasks}
        missing = [one for one in wanted if one not in known]
        searches = [pool.submit(run, *one, data[one[0]], folder) for one in missing]
        for search in as_completed(searches):
            add(chosen.results, search.result())
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    print(f"{datetime.date.today()}, {machine}; {chosen.steps} steps a search:")
    for task in chosen.tasks:
        print("\n" + "\n".join(table(read(chosen.results), task, chosen.steps)))


if __name__ == "__main__":
    main()
