"""A space with genes of every kind, and what is searched in it."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from coralx.config.evolution import Evolution, Objective
from tests.support.factories import make_space

MIXED = make_space(
    rank={"low": 1, "high": 64, "log": True},
    alpha_ratio={"choices": [0.5, 2.0, 1.0]},
    dropout={"low": 0.0, "high": 0.3},
    learning_rate={"low": 1e-5, "high": 1e-2, "log": True},
    target_modules={"choices": ["all-linear", ["query", "value"], ["query"]]},
    batch_size={"low": 4, "high": 40},
    use_dora={"choices": [False, True]},
)
SKILL = Objective(metric="auroc", direction="maximize")
SIZE = Objective(metric="trainable_parameters", direction="minimize")
seeds = st.integers(0, 2**32)


def evolution(**changes: Any) -> Evolution:
    return Evolution(**{"population_size": 6, "generations": 2, **changes})


values = st.one_of(st.integers(0, 3).map(float), st.just(math.nan))
