"""Searches replayed on recorded learning curves: CoralX's against random search, successive
halving, and Optuna's TPE and NSGA-II with pruning.

    python benchmarks/replay/replay.py TABLE.csv

A method pays for all training up to the checkpoints that it looks at. Prints, in Markdown, the
regret of what each method would recommend at growing budgets, as means over seeds with 95 %
intervals.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import optuna
from curve_table import CORALX_GENES, FURTHER_GENES, Table, read_table
from methods import CORALX, Search, halving, single_objective, two_objectives
from scores import Floats, Scores, mean_table, paired_table, regrets, volumes
from tape import Tape

from coralx.errors import CoralXError

COLUMNS = f"""\
columns of TABLE (CSV with a header, a row for each checkpoint of each configuration):
  config        the configuration's name
  checkpoint    a whole number that grows along its curve; the last one counts as 100 %
  steps         where present, what is trained by then, in whole steps: the cost is counted in
                them; without, checkpoints count, as evenly spaced
  METRIC        a finite number (--metric)
  genes, where present: {", ".join(CORALX_GENES)}
                (numbers, ordered) and {", ".join(FURTHER_GENES)}
                (together one choice without an order), or those that --genes names;
                a gene that does not vary is left out
Size, the second objective, is lora_rank times hidden_size times layers, as far as present.
Where the table lacks combinations of genes, the nearest configuration answers for them.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the contest; the exit code."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", module="optuna")
    try:
        _contest(_parser().parse_args(arguments))
    except CoralXError as error:
        print(f"replay: {error.message}\n{error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    return 0


def _contest(options: argparse.Namespace) -> None:
    table = read_table(
        options.table,
        options.metric,
        direction=options.direction,
        genes=options.genes,
        where=dict(options.where),
    )
    rungs = halving(options.rungs)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    print(_description(table, options))
    contests: list[tuple[str, Mapping[str, Search], Callable[[Tape], list[float]]]] = [
        (
            f"Regret in {options.metric}; lower is better",
            single_objective(table, rungs),
            lambda tape: regrets(tape, options.budgets),
        )
    ]
    if len(set(table.parameters)) > 1:
        contests.append(
            (
                "Hypervolume of quality against size, as a share of the table's; higher is better",
                two_objectives(table, rungs),
                lambda tape: volumes(tape, options.budgets),
            )
        )
    results = {}
    for title, methods, score in contests:
        chosen = {name: search for name, search in methods.items() if _is_wanted(name, options)}
        results[title] = scores = play(table, chosen, seeds, max(options.budgets), score)
        print(f"\n### {title}\n\n{mean_table(scores, options.budgets)}")
        if options.against in scores and len(scores) > 1:
            print(f"\n{paired_table(scores, options.against, options.budgets)}")
    if options.out is not None:
        _write(options.out, results, seeds, options.budgets)


def play(
    table: Table,
    methods: Mapping[str, Search],
    seeds: Sequence[int],
    budget: float,
    score: Callable[[Tape], list[float]],
) -> dict[str, Floats]:
    """Every method under every seed, with a budget of so many full trainings."""
    scores = {}
    for name, search in methods.items():
        began = time.monotonic()
        rows = []
        for seed in seeds:
            tape = Tape(table, budget * table.full_training)
            search(tape, seed)
            rows.append(score(tape))
        scores[name] = np.asarray(rows)
        print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return scores


def _is_wanted(name: str, options: argparse.Namespace) -> bool:
    return not options.methods or any(part.lower() in name.lower() for part in options.methods)


def _description(table: Table, options: argparse.Namespace) -> str:
    genes = "; ".join(f"{gene.name} ({len(gene.values)})" for gene in table.genes)
    rungs = ", ".join(f"{100 * float(share):g} %" for share in options.rungs)
    lines = [
        f"{options.table.name}, {options.metric}: {len(table)} configurations, "
        f"{sum(map(len, table.curves))} checkpoints; genes {genes}.",
        "A configuration's last checkpoint counts as 100 % of its budget; a full training costs "
        f"{float(table.full_training):.2f} {table.unit} on average.",
        f"Half goes on at {rungs}. {options.seeds} seeds from {options.first_seed}; budgets in "
        "full trainings.",
    ]
    if not table.is_grid:
        lines.append(
            "The table lacks combinations of its genes: the nearest configuration answers for them."
        )
    return "\n".join(lines)


def _write(
    path: Path, results: Mapping[str, Scores], seeds: Sequence[int], budgets: Sequence[float]
) -> None:
    """Every single score, as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["score", "method", "seed", "budget", "value"])
        for title, scores in results.items():
            for name, values in scores.items():
                for seed, row in zip(seeds, values, strict=True):
                    for budget, value in zip(budgets, row, strict=True):
                        writer.writerow([title.split()[0], name, seed, budget, f"{value:.6g}"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="replay",
        description=__doc__,
        epilog=COLUMNS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", type=Path, metavar="TABLE")
    parser.add_argument("--metric", default="bleu", help="the column searched by (bleu)")
    parser.add_argument(
        "--direction", choices=("maximize", "minimize"), help="where the metric is not a known one"
    )
    parser.add_argument(
        "--genes", type=_names, default=(), metavar="A,B", help="gene columns (those known)"
    )
    parser.add_argument(
        "--where",
        type=_pair,
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="keep these rows only",
    )
    parser.add_argument("--seeds", type=_count, default=100, help="how many (100)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (0)")
    parser.add_argument(
        "--budgets",
        type=_numbers,
        default=(5.0, 10.0, 20.0, 40.0),
        metavar="A,B",
        help="in full trainings (5,10,20,40)",
    )
    parser.add_argument(
        "--rungs",
        type=_shares,
        default=(Fraction(1, 20), Fraction(1, 2)),
        metavar="A,B",
        help="per cent of the budget after which half goes on (5,50)",
    )
    parser.add_argument(
        "--methods", type=_names, default=(), metavar="A,B", help="those whose name has one of it"
    )
    parser.add_argument(
        "--against",
        default=CORALX[0].name,
        choices=[variant.name for variant in CORALX],
        help="the variant that the others are compared with, seed by seed (%(default)s)",
        metavar="NAME",
    )
    parser.add_argument("--out", type=Path, help="a CSV file for every single score")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _pair(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not COLUMN=VALUE")
    return column, value


def _count(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers") from None
    if not all(0 < number < float("inf") for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r}: numbers must be above 0")
    return numbers


def _shares(text: str) -> tuple[Fraction, ...]:
    numbers = _numbers(text)
    if list(numbers) != sorted(set(numbers)) or numbers[-1] >= 100:
        raise argparse.ArgumentTypeError(f"{text!r} must ascend, below 100")
    return tuple((Fraction(str(number)) / 100).limit_denominator(1000) for number in numbers)


if __name__ == "__main__":
    sys.exit(main())
