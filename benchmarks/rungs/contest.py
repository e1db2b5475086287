"""Do early figures help, or do they mislead? CoralX with fixed rungs, with adaptive ones and
without any, against random search and successive halving, on families of learning curves.

    python benchmarks/rungs/contest.py [--families crossing,reversed] [--seeds 100]

Every seed draws a table of its own from each synthetic family; recorded tables are the same for all
seeds. Regret is how far the full result of what a method would recommend lies behind the table's
best, in standard deviations of full results on synthetic tables and in the metric's unit on
recorded ones. Prints Markdown.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "replay"))

from curve_table import Table, read_table
from evolution import NEVER_ENDING, config_for, evolve
from families import FAMILIES, Family, table_of
from methods import Rungs, Search, halving
from rivals import random_search, successive_halving
from scores import Floats, regrets
from tape import Tape
from verdicts import ADAPTIVE, FIXED, RANDOM, Contest, method_table, verdict_table

from coralx.errors import CoralXError, UsageError

BUDGETS = (5.0, 10.0, 20.0, 40.0)
"""In full trainings."""

HALVING = halving((Fraction(1, 20), Fraction(1, 2)))
"""Half goes on at 5 % and at 50 %: the rungs of benchmarks/replay."""

PUBLISHED: Rungs = (
    (Fraction(1, 40), Fraction(1)),
    (Fraction(1, 10), Fraction(1, 2)),
    (Fraction(1, 2), Fraction(1, 4)),
    (Fraction(1), Fraction(1, 10)),
)
"""CoralX's default schedule, with its points at 5, 20, 100 and 200 % of an epoch."""

UNCUT: Rungs = ((Fraction(1), Fraction(1)),)
COHORT = 8
RIVALS: Mapping[str, Search] = {
    RANDOM: random_search,
    f"successive halving, cohorts of {COHORT}": partial(
        successive_halving, rungs=HALVING, cohort=COHORT
    ),
}
ADAPT = {"hyperband_config": {"rungs": "adaptive"}}
CORALX: Mapping[str, tuple[Rungs, Mapping[str, Any]]] = {
    FIXED: (HALVING, {}),
    ADAPTIVE: (HALVING, ADAPT),
    "CoralX published": (PUBLISHED, {}),
    "CoralX published adaptive": (PUBLISHED, ADAPT),
    "CoralX without cuts": (UNCUT, {}),
}


@dataclass(frozen=True)
class Recorded:
    """A table of recorded curves. `ranks_truly` as in `families.Family`."""

    name: str
    path: Path
    metric: str
    where: tuple[tuple[str, str], ...] = ()
    ranks_truly: bool = False
    is_held_out: bool = False


ROOT = Path(__file__).parents[2]
LORA = ROOT.parent / "shared" / "data" / "lora_curves" / "fr-en.csv"
FIDELITY = ROOT / "benchmarks" / "fidelity" / "curves.csv"
RECORDED = (
    Recorded("lora_curves, BLEU", LORA, "bleu", ranks_truly=True),
    Recorded("lora_curves, perplexity", LORA, "perplexity", ranks_truly=True),
    Recorded("fidelity, tweets", FIDELITY, "auroc", (("task", "tweets"),)),
    Recorded("fidelity, LIAR", FIDELITY, "auroc", (("task", "liar"),)),
)
Source = Family | Recorded


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the contest; the exit code."""
    try:
        _contest(_parser().parse_args(arguments))
    except CoralXError as error:
        print(f"contest: {error.message}\n{error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    return 0


def _contest(options: argparse.Namespace) -> None:
    sources = [source for source in _present() if _is_wanted(source, options)]
    if not sources:
        raise UsageError("no family is left", "Look at --families and --part, or use --list.")
    if options.list:
        print("\n".join(f"{_part(source):9}  {source.name}" for source in sources))
        return
    names = [name for name in methods() if _is_named(name, options.methods)]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    contests = []
    with ProcessPoolExecutor(options.processes) as pool:
        for source in sources:
            began = time.monotonic()
            one = partial(play, source, names, generations=options.generations)
            rows = list(pool.map(one, seeds, chunksize=2))
            scores = {name: np.asarray([row[name] for row in rows]) for name in names}
            contests.append(Contest(source.name, _part(source), source.ranks_truly, scores))
            print(f"{source.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(f"{len(seeds)} seeds from {seeds[0]}; budgets in full trainings.\n")
    print(verdict_table(contests, BUDGETS))
    for contest in contests:
        print(f"\n### {contest.name}\n\n{method_table(contest, BUDGETS)}")
    if options.out is not None:
        _write(options.out, contests)


def methods() -> list[str]:
    """Who takes part, by name."""
    return [*RIVALS, *CORALX]


def play(
    source: Source, names: Sequence[str], seed: int, generations: int = NEVER_ENDING
) -> dict[str, list[float]]:
    """Regret at each budget by method, under one seed; NaN at budgets for all of the table, where
    nothing is left to choose. CoralX is told to end after so many `generations`, if the budget
    lasts so long."""
    length = {"evolution": {"generations": generations}}
    table = _table(source, seed)
    budgets = [budget for budget in BUDGETS if budget < len(table)]
    beyond = [math.nan] * (len(BUDGETS) - len(budgets))
    found = {}
    for name in names:
        tape = Tape(table, budgets[-1] * table.full_training)
        if name in RIVALS:
            RIVALS[name](tape, seed)
        else:
            rungs, sections = CORALX[name]
            evolve(tape, config_for(table, rungs, **length, **sections), seed)
        found[name] = [*regrets(tape, budgets), *beyond]
    return found


def _table(source: Source, seed: int) -> Table:
    return _read(source) if isinstance(source, Recorded) else table_of(source, seed)


@cache
def _read(source: Recorded) -> Table:
    return read_table(source.path, source.metric, where=dict(source.where))


def _present() -> list[Source]:
    """Every family, and those recorded tables that this machine has."""
    absent = [source.name for source in RECORDED if not source.path.exists()]
    if absent:
        print(f"left out, as their tables are not here: {', '.join(absent)}", file=sys.stderr)
    return [*FAMILIES, *(source for source in RECORDED if source.path.exists())]


def _part(source: Source) -> str:
    if isinstance(source, Recorded):
        return "recorded"
    return "held out" if source.is_held_out else "tuning"


def _is_wanted(source: Source, options: argparse.Namespace) -> bool:
    return options.part in (None, _part(source)) and _is_named(source.name, options.families)


def _is_named(name: str, parts: Sequence[str]) -> bool:
    return not parts or any(part.lower() in name.lower() for part in parts)


def _write(path: Path, contests: Sequence[Contest]) -> None:
    """Mean and standard error of every method's regret, as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["part", "family", "method", "budget", "seeds", "regret", "error"])
        for contest in contests:
            for name, values in contest.scores.items():
                for budget, column in zip(BUDGETS, values.T, strict=True):
                    mean, error = column.mean(), _error(column)
                    row = (contest.part, contest.name, name, f"{budget:g}", len(column))
                    writer.writerow([*row, f"{mean:.6g}", f"{error:.3g}"])


def _error(column: Floats) -> float:
    return float(column.std(ddof=1) / len(column) ** 0.5) if len(column) > 1 else float("nan")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="contest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option in ("--families", "--methods"):
        parser.add_argument(
            option, type=_names, default=(), metavar="A,B", help="those whose name has one of it"
        )
    parser.add_argument("--part", choices=("tuning", "held out", "recorded"), help="only these")
    parser.add_argument("--seeds", type=_count, default=100, help="how many (100)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (0)")
    parser.add_argument(
        "--generations",
        type=_count,
        default=NEVER_ENDING,
        help="after which CoralX is to end (the budget ends it)",
    )
    parser.add_argument(
        "--processes", type=_count, default=os.cpu_count(), help="at a time (cores)"
    )
    parser.add_argument("--list", action="store_true", help="name the families, and no more")
    parser.add_argument("--out", type=Path, help="a CSV file for means and their errors")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
