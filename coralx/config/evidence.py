"""Where LoRA trained best: the evidence from which genes that a config leaves out get their priors.

The table is derived by `benchmarks/priors/evidence_table.py`. It knows of learning rates alone: of
dropout and alpha too little was recorded, and what rank to take is what a search over quality and
size is to find out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from coralx.config.base_kind import BaseKind, Kind

SPREAD = 0.8
"""Decades around a rate of the table, by whose trial (`benchmarks/priors`) a rate that is wrong by
a decade costs a search little. The models of a row lie within 0.3 decades; other data, batches and
lengths of training move the best rate further."""

WIDE_SPREAD = 1.0
"""The same where not even the kind of the base is known."""


@dataclass(frozen=True)
class Evidence:
    """The learning rate at which adapters of bases of one kind and width trained best."""

    kind: Kind
    width: int | None
    """Hidden size; None: of any width."""
    learning_rate: float
    source: str


MINILM = "34 recorded trainings of MiniLM on two tasks (benchmarks/fidelity)"
RECIPES = "the recipes tuned by LoRA's authors on GLUE (microsoft/LoRA, examples/NLU)"
SWEEP = "a sweep over {} language models (tinker-cookbook, sft_sweep)"

TABLE = (
    Evidence("encoder", 384, 1e-3, MINILM),
    Evidence("encoder", 768, 4.5e-4, RECIPES),
    Evidence("encoder", 1024, 3.1e-4, RECIPES),
    Evidence("encoder", 1536, 1.3e-4, RECIPES),
    Evidence("encoder", None, 3.8e-4, f"{MINILM}, and {RECIPES}"),
    Evidence("decoder", 2048, 5.6e-4, SWEEP.format(8)),
    Evidence("decoder", 2880, 6e-4, SWEEP.format(6)),
    Evidence("decoder", 4096, 4.1e-4, SWEEP.format(10)),
    Evidence("decoder", 7168, 2.7e-4, SWEEP.format(11)),
    Evidence("decoder", None, 3.4e-4, SWEEP.format(35)),
)


def learning_rate_prior(base: BaseKind, table: Sequence[Evidence] = TABLE) -> dict[str, Any]:
    """Prior, spread and source for a base: the row of its kind, between two widths on a line over
    the logarithms of both, beyond the last of them as there. Where the kind is not known, the
    middle of both kinds, spread widely."""
    rows = [row for row in table if row.kind == base.kind and row.width is not None]
    if base.kind is None:
        anywhere = [row for row in table if row.width is None]
        rate = math.exp(fmean(math.log(row.learning_rate) for row in anywhere))
        sources = "; ".join(row.source for row in anywhere)
        return _prior(rate, WIDE_SPREAD, f"a base of unknown kind: {sources}")
    if base.width is None or not rows:
        (row,) = [row for row in table if row.kind == base.kind and row.width is None]
        return _prior(row.learning_rate, SPREAD, f"{base.kind} of unknown width: {row.source}")
    rate, near = _between(rows, base.width)
    sources = " and ".join(dict.fromkeys(row.source for row in near))
    return _prior(rate, SPREAD, f"{base.kind}, {base.width:,} wide: {sources}")


def _between(rows: Sequence[Evidence], width: int) -> tuple[float, list[Evidence]]:
    """The rate at a width, and the rows that it follows from."""
    ordered = sorted(rows, key=lambda row: row.width or 0)
    below = [row for row in ordered if (row.width or 0) <= width][-1:]
    above = [row for row in ordered if (row.width or 0) >= width][:1]
    near = below + above
    first, last = near[0], near[-1]
    if first.width == last.width or first.width is None or last.width is None:
        return first.learning_rate, near[:1]
    share = math.log(width / first.width) / math.log(last.width / first.width)
    return first.learning_rate * (last.learning_rate / first.learning_rate) ** share, near


def _prior(rate: float, spread: float, source: str) -> dict[str, Any]:
    """As the keys of a gene. Two digits of the rate: more would be pretence."""
    return {"prior": float(f"{rate:.2g}"), "spread": spread, "source": source}
