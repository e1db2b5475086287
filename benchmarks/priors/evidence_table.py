"""Derives the table of coralx/config/evidence.py: at which learning rates LoRA trained best.

    python benchmarks/priors/evidence_table.py [--sweep RUNS.csv] [--curves CURVES.csv]

Prints the rows, and where the table that ships with CoralX says otherwise, what it says.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median

import numpy as np
import pandas as pd

from coralx.config.evidence import TABLE, Evidence

HERE = Path(__file__).parent
SWEEP = HERE.parents[2] / "shared" / "data" / "sft_sweep" / "runs.csv"
CURVES = HERE.parent / "fidelity" / "curves.csv"

Cells = Mapping[tuple[float, int], float]
"""A model's test loss by learning rate and rank; combinations that diverged are missing."""

WIDTHS = {2048: (0, 2300), 2880: (2300, 3500), 4096: (3500, 4600), 7168: (4600, math.inf)}
"""Groups of language models that are about as wide, by the width that stands for each."""

LORA_RECIPES = {
    768: [4e-4, 5e-4, 4e-4, 4e-4, 5e-4, 5e-4, 5e-4, 4e-4],
    1024: [3e-4, 3e-4, 3e-4, 2e-4, 3e-4, 4e-4, 4e-4, 3e-4],
    1536: [1.3e-4, 1e-4, 2e-4, 1e-4, 1e-4, 2.6e-4, 6e-5, 2e-4],
}
"""By width: the rates to which LoRA's authors tuned RoBERTa base, RoBERTa large and DeBERTa XXL on
CoLA, MNLI, MRPC, QNLI, QQP, RTE, SST-2 and STS-B (microsoft/LoRA, examples/NLU, MIT)."""


def sweep_of(path: Path) -> tuple[dict[str, Cells], dict[str, int]]:
    """The recorded sweep: each model's losses, and how wide it is."""
    table = pd.read_csv(path)
    cells: dict[str, dict[tuple[float, int], float]] = {}
    for row in table.itertuples():
        of_model = cells.setdefault(str(row.base_model), {})
        of_model[float(str(row.learning_rate)), int(str(row.lora_rank))] = float(str(row.test_nll))
    widths = table.groupby("base_model")["hidden_size"].first()
    return dict(cells), {str(name): int(width) for name, width in widths.items()}


def best_rate(cells: Cells) -> float:
    """Where a model's loss is least over learning rates, each at its best rank: the vertex of the
    parabola through the best and its neighbours, or the best itself at an end of the grid."""
    losses: dict[float, float] = {}
    for (rate, _), loss in cells.items():
        losses[rate] = min(loss, losses.get(rate, math.inf))
    rates = sorted(losses)
    x, y = [math.log10(rate) for rate in rates], [losses[rate] for rate in rates]
    best = y.index(min(y))
    if not 0 < best < len(x) - 1:
        return rates[best]
    near = slice(best - 1, best + 2)
    square, linear, _ = np.polyfit(x[near], y[near], 2)
    return float(10 ** (-linear / (2 * square)))


def decoders(cells: Mapping[str, Cells], widths: Mapping[str, int]) -> list[Evidence]:
    """The median of the models' best rates, of each group and of all."""
    best = {model: best_rate(losses) for model, losses in cells.items()}
    rows = []
    for width, (low, high) in WIDTHS.items():
        group = [rate for model, rate in best.items() if low <= widths[model] < high]
        rows.append(_row("decoder", width, median(group), f"{len(group)} language models"))
    rows.append(_row("decoder", None, median(best.values()), f"{len(best)} language models"))
    return rows


def encoders(curves: Path) -> list[Evidence]:
    """MiniLM's best quarter of configurations on each recorded task, and the published recipes."""
    table = pd.read_csv(curves)
    ended = table[table["point"] == 100]
    logs: list[float] = []
    for _, task in ended.groupby("task"):
        quarter = task.nlargest(len(task) // 4, "test_auroc")
        logs += [math.log10(rate) for rate in quarter["learning_rate"]]
    rows = [_row("encoder", 384, 10 ** mean(logs), f"{len(ended)} trainings of MiniLM")]
    rows += [
        _row("encoder", width, 10 ** mean(map(math.log10, rates)), f"{len(rates)} recipes")
        for width, rates in LORA_RECIPES.items()
    ]
    middle = median(row.learning_rate for row in rows)
    return [*rows, _row("encoder", None, middle, "their median")]


def _row(kind: str, width: int | None, rate: float, source: str) -> Evidence:
    return Evidence("encoder" if kind == "encoder" else "decoder", width, rounded(rate), source)


def rounded(rate: float) -> float:
    """To two digits: more would be pretence."""
    return float(f"{rate:.2g}")


def main(arguments: Sequence[str]) -> int:
    """Print the derived rows; 1 where the table that ships differs from them."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--sweep", type=Path, default=SWEEP)
    parser.add_argument("--curves", type=Path, default=CURVES)
    given = parser.parse_args(arguments)
    shipped = {(row.kind, row.width): row.learning_rate for row in TABLE}
    differs = False
    for row in [*encoders(given.curves), *decoders(*sweep_of(given.sweep))]:
        has = shipped.get((row.kind, row.width))
        note = "" if has == row.learning_rate else f"   the table has {has}"
        differs = differs or bool(note)
        print(f"{row.kind:8} {row.width or 'any':>5}  {row.learning_rate:.2g}  {row.source}{note}")
    return int(differs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
