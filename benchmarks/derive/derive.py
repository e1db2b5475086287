"""What derived genomes bring: with and without them, at equal time or over equal generations,
against one-shot baselines made of the run's own finishers.

    python benchmarks/derive/derive.py [tweets liar smollm2] [--seeds 1 2 3 4 5]
                                       [--minutes N | --generations N]
                                       [--data FOLDER] [--results TABLE.csv] [--work FOLDER]
                                       [--set KEY=VALUE ...] [--summary]

README.md says what is compared and how. Each search appends its rows to the table as soon as it is
done, and what the table holds is not run again; `--summary` only prints what it holds.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import math
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import chdir
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from one_shot import Candidate, baselines_of

from coralx.api import runs as api
from coralx.api.session import Outcome
from coralx.config import Config, load_config
from coralx.config.mode import resolve_mode
from coralx.search.pareto import hypervolume

ROOT = Path(__file__).parents[2]
TASKS = {
    "tweets": (ROOT / "configs" / "quickstart.yaml", 4.0),
    "liar": (Path(__file__).with_name("liar.yaml"), 8.0),
    "smollm2": (ROOT / "configs" / "smollm2-sentiment.yaml", 16.0),
}
"""The config of each task, and the minutes of a search."""

MORE_THAN_TIME_ALLOWS = 50
"""Generations of a search that its minutes end."""

ARMS = {"derived": (), "plain": ("evolution.derive.share=0",)}
BASELINES = ("plain + soup", "plain + truncation")

SMALLEST, LARGEST = 1e3, 1e7
"""Trainable parameters between which fronts are compared, on a log scale."""


SUMMED_UP = ("hypervolume", "best_auroc", "best_optimism", "chosen_auroc", "chosen_optimism")
"""Figures of a row that the summary shows."""


Key = tuple[str, int, str, float, int]
"""The first columns of a row: task, seed, arm, minutes, generations."""


@dataclass(frozen=True)
class Row:
    """What one arm brought. Figures are of the test split, unless they say otherwise."""

    task: str
    seed: int
    arm: str
    minutes: float
    """That the search was given; 0 where generations ended it."""
    generations: int
    """That the search was given; 0 where minutes ended it."""
    hypervolume: float
    """Of the front, 0 to 1, by AUROC (from 0.5) and parameters."""
    best_auroc: float
    """Of the member that is best on validation."""
    best_optimism: float
    """By how much its AUROC is higher on validation."""
    chosen_auroc: float
    """Of the member that the one-standard-error rule names; that of the best in the baselines."""
    chosen_optimism: float
    front: int
    derived_on_front: int
    operators: str
    """Which operators made the front's derived members, the whole chain of each."""
    looks: int
    """At validation, in all."""
    derivation_looks: int
    derivation_seconds: float
    genomes: int
    steps: int
    worker_seconds: float


def config_of(task: str, seed: int, data: Path, settings: Sequence[str]) -> Config:
    """The search of a task."""
    files = {"train": "train", "validation": "valid", "test": "test"}
    liar = [f"data.{key}={(data / 'liar' / name).resolve()}.tsv" for key, name in files.items()]
    given = [f"experiment.seed={seed}", "runtime.keep_checkpoints=all", *settings]
    config = load_config(TASKS[task][0], [*(liar if task == "liar" else ()), *given])
    return resolve_mode(config, None, None)


# -- figures -------------------------------------------------------------------------------------


def volume(front: Sequence[Candidate]) -> float:
    """The share of the box that the front dominates on the test split."""
    points = [(2.0 * (1.0 - c.test_auroc), _size(c)) for c in front]
    return hypervolume(np.asarray(points), np.ones(2)) if points else 0.0


def _size(candidate: Candidate) -> float:
    parameters = max(candidate.validation["trainable_parameters"] or 0.0, SMALLEST)
    return math.log(parameters / SMALLEST) / math.log(LARGEST / SMALLEST)


def front_of(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other dominates on validation, the best AUROC first."""
    by_skill = sorted(candidates, key=lambda c: (-(c.validation["auroc"] or 0.0), _size(c)))
    kept: list[Candidate] = []
    for candidate in by_skill:
        if not kept or _size(candidate) < _size(kept[-1]):
            kept.append(candidate)
    return kept


def _optimism(candidate: Candidate) -> float:
    return (candidate.validation["auroc"] or 0.0) - candidate.test_auroc


def members(report: dict[str, Any]) -> list[Candidate]:
    """The front of a report."""
    chains = {entry["genome"]: entry["derived"] for entry in report["lineage"]}
    return [
        Candidate(
            member["genome"],
            "+".join(_chain(member["genome"], chains)),
            member["validation"],
            member["test"]["auroc"]["value"],
        )
        for member in report["front"]
    ]


def _chain(genome: str, derivations: dict[str, Any]) -> Iterator[str]:
    """The operators that a genome went through, the first one first."""
    derived = derivations[genome]
    if derived is not None:
        yield from _chain(derived["from"][0], derivations)
        yield derived["operator"]


def row_of(key: Key, report: dict[str, Any]) -> Row:
    """What a search's own report says."""
    front = front_of(members(report))
    named = report["choice"]["genome"] if report["choice"] else None
    chosen = next((c for c in front if c.name == named), None)
    cost = report["efficiency"]
    stages = cost["stage_breakdown"].values()
    return _row(
        key,
        front,
        chosen,
        looks=cost["validation_looks"],
        derivation_looks=cost["validation_looks_by"]["derivation"],
        derivation_seconds=cost["beside_training"]["deriving"],
        genomes=cost["total_genomes"],
        steps=sum(stage["trained_steps"] for stage in stages),
        worker_seconds=round(cost["total_training_time"], 1),
    )


def _row(
    key: Key,
    front: Sequence[Candidate],
    chosen: Candidate | None,
    **counts: Any,
) -> Row:
    derived = Counter(candidate.origin for candidate in front if candidate.origin)
    nothing = Candidate("", "", {"auroc": 0.5}, 0.5)
    best = front[0] if front else nothing
    named = chosen or best
    return Row(
        *key,
        hypervolume=round(volume(front), 6),
        best_auroc=round(best.test_auroc, 6),
        best_optimism=round(_optimism(best), 6),
        chosen_auroc=round(named.test_auroc, 6),
        chosen_optimism=round(_optimism(named), 6),
        front=len(front),
        derived_on_front=derived.total(),
        operators="; ".join(f"{count} {name}" for name, count in derived.most_common()),
        **counts,
    )


# -- running -------------------------------------------------------------------------------------


def search(config: Config, name: str, work: Path) -> Outcome:
    """A new run of that name under `work`."""
    folder = work / "runs" / name
    shutil.rmtree(folder, ignore_errors=True)  # of a benchmark that was interrupted
    print(f"{datetime.datetime.now():%H:%M:%S} {name}", file=sys.stderr, flush=True)
    with chdir(work):
        return api.evolve(config, name)


def with_baselines(row: Row, outcome: Outcome) -> Iterator[Row]:
    """The rows of a search without derived genomes, and of what is made of its finishers."""
    yield row
    own = members(outcome.report)
    made = baselines_of(outcome)
    for arm, candidates, seconds in (
        (BASELINES[0], made.soup, made.soup_seconds),
        (BASELINES[1], made.truncations, made.truncation_seconds),
    ):
        yield _row(
            (row.task, row.seed, arm, row.minutes, row.generations),
            front_of([*own, *candidates]),
            None,
            looks=row.looks + len(candidates),
            derivation_looks=len(candidates),
            derivation_seconds=round(seconds, 3),
            genomes=row.genomes,
            steps=row.steps,
            worker_seconds=row.worker_seconds,
        )


def run(task: str, seed: int, arm: str, given: argparse.Namespace) -> Iterator[Row]:
    """One search, and where it is the one without derived genomes the baselines."""
    minutes, generations = budget_of(task, given)
    ended_by = [f"evolution.generations={generations or MORE_THAN_TIME_ALLOWS}"]
    ended_by += [] if generations else [f"budget.max_minutes={minutes}"]
    config = config_of(task, seed, given.data, [*ended_by, *ARMS[arm], *given.settings])
    outcome = search(config, f"{task}-{seed}-{arm}", given.work)
    row = row_of((task, seed, arm, minutes, generations), outcome.report)
    yield from with_baselines(row, outcome) if arm == "plain" else [row]
    shutil.rmtree(outcome.layout.root, ignore_errors=True)


def budget_of(task: str, given: argparse.Namespace) -> tuple[float, int]:
    """Minutes and generations of a search; one of them is 0."""
    minutes = 0.0 if given.generations else given.minutes or TASKS[task][1]
    return minutes, given.generations


# -- the table -----------------------------------------------------------------------------------


def read(path: Path) -> list[Row]:
    """The rows that a table holds."""
    if not path.is_file():
        return []
    kinds = {"str": str, "int": int, "float": float}
    types = {field.name: kinds[str(field.type)] for field in fields(Row)}
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return [Row(**{name: types[name](value) for name, value in row.items()}) for row in rows]


def add(path: Path, rows: Sequence[Row]) -> None:
    """Append rows to the table."""
    is_new = not path.is_file()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(map(asdict, rows))


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """What the table says, in Markdown: medians and ranges over seeds."""
    yield (
        "| task | arm | hypervolume | best AUROC | its optimism | chosen AUROC | its optimism | "
        "derived on front | looks | seeds |"
    )
    yield "| " + " | ".join(["---"] * 10) + " |"
    for task in TASKS:
        for arm in (*ARMS, *BASELINES):
            own = [row for row in rows if (row.task, row.arm) == (task, arm)]
            if not own:
                continue
            cells = [_spread([getattr(row, name) for row in own]) for name in SUMMED_UP]
            cells.append(f"{sum(r.derived_on_front for r in own)} of {sum(r.front for r in own)}")
            cells += [f"{median(row.looks for row in own):g}", str(len(own))]
            yield f"| {task} | {arm} | {' | '.join(cells)} |"
    yield ""
    yield from _operators(rows)


def _operators(rows: Sequence[Row]) -> Iterator[str]:
    """Which chains of operators made the derived members of the fronts."""
    for task in TASKS:
        made: Counter[str] = Counter()
        for row in rows:
            if (row.task, row.arm) == (task, "derived"):
                for part in filter(None, row.operators.split("; ")):
                    count, _, name = part.partition(" ")
                    made[name] += int(count)
        if made:
            yield f"{task}: " + ", ".join(f"{name} {count}" for name, count in made.most_common())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, print the summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", default=list(TASKS), metavar="|".join(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("--minutes", type=float, help="of each search; default: the task's own")
    ends.add_argument("--generations", type=int, default=0, help="of each search, in any time")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results.csv"))
    parser.add_argument("--work", type=Path, default=Path("derive-runs"), help="for run folders")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--summary", action="store_true", help="only print what the table holds")
    given = parser.parse_args(arguments)
    if unknown := set(given.tasks) - TASKS.keys():
        parser.error(f"no task named {unknown.pop()}; known: {', '.join(TASKS)}")
    given.results, given.work = given.results.resolve(), given.work.resolve()
    given.work.mkdir(parents=True, exist_ok=True)
    if not given.summary:
        for task, seed, arm in missing(given):
            add(given.results, list(run(task, seed, arm, given)))
    print(f"{datetime.date.today()}, {os.cpu_count()} cores\n")
    print("\n".join(summary(read(given.results))))


def missing(given: argparse.Namespace) -> Iterator[tuple[str, int, str]]:
    """The searches whose rows the table lacks, seed by seed, so that it is balanced at any time."""
    for seed in given.seeds:
        for task in given.tasks:
            budget = budget_of(task, given)
            known = {(r.task, r.seed, r.arm, r.minutes, r.generations) for r in read(given.results)}
            for arm in ARMS:
                if (task, seed, arm, *budget) not in known:
                    yield task, seed, arm


if __name__ == "__main__":
    main()
