"""The short form of the replays on recorded trainings: `make bench-replay` and `bench-priors` have
the long ones."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from workloads import ROOT

sys.path[:0] = [str(ROOT / "benchmarks" / name) for name in ("replay", "priors")]

import optuna  # noqa: E402
import trainings_until  # noqa: E402
from curve_table import read_table  # noqa: E402
from evidence_table import sweep_of  # noqa: E402
from methods import halving, single_objective, two_objectives  # noqa: E402
from replay import play  # noqa: E402
from scores import mean_table, regrets, volumes  # noqa: E402
from tape import Tape  # noqa: E402

BUDGETS = (5.0, 10.0, 20.0)
RUNGS = (Fraction(1, 20), Fraction(1, 2))


def tables(data: Path, seeds: int) -> Iterator[str]:
    """Regret and hypervolume on recorded curves, and trainings to a good learning rate."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", module="optuna")
    curves = read_table(data / "lora_curves" / "fr-en.csv", "bleu")
    rungs, most = halving(RUNGS), max(BUDGETS)

    def regret(tape: Tape) -> list[float]:
        return regrets(tape, BUDGETS)

    def volume(tape: Tape) -> list[float]:
        return volumes(tape, BUDGETS)

    yield f"\n### Regret in BLEU, budgets in full trainings (`lora_curves`, {seeds} seeds)\n"
    played = play(curves, single_objective(curves, rungs), range(seeds), most, regret)
    yield mean_table(played, BUDGETS)
    title = "Hypervolume of quality and size, as a share of the table's"
    yield f"\n### {title} (`lora_curves`, {seeds} seeds)\n"
    played = play(curves, two_objectives(curves, rungs), range(seeds), most, volume)
    yield mean_table(played, BUDGETS)
    cells, widths = sweep_of(data / "sft_sweep" / "runs.csv")
    several = range(trainings_until.FIRST_SEED, trainings_until.FIRST_SEED + seeds)
    title = "Trainings until one is within 0.5 % · 1 % of the best"
    yield f"\n### {title} (`sft_sweep`, {seeds} seeds)\n"
    yield trainings_until.table(trainings_until.replay(cells, widths, several, holds_default=True))
