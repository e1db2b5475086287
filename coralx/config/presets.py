"""Schedules by name: the published one, and two that come from recorded learning curves."""

from __future__ import annotations

from typing import Literal

Preset = Literal["seeds", "careful", "fast"]

BY_LOSS, BY_SKILL = "eval_loss", "the first objective"

PRESETS: dict[Preset, tuple[tuple[str, str, str, str, int | None, str | None], ...]] = {
    "seeds": (  # the published schedule
        ("S0_sanity", "0.05", "5", "1.0", None, None),
        ("S1_shakeout", "0.3", "20", "0.5", None, None),
        ("S2_serious", "1.0", "100", "0.25", None, None),
        ("S3_finisher", "2.0", "100", "0.1", None, None),
    ),
    "careful": (
        ("S0_cut", "0.2", "100", "3/4", 256, BY_SKILL),
        ("S1_cut", "1.0", "100", "1/2", 256, BY_SKILL),
        ("S2_finisher", "2.0", "100", "1", None, None),
    ),
    "fast": (
        ("S0_cut", "0.2", "100", "3/8", 128, BY_LOSS),
        ("S1_cut", "1.0", "100", "1/3", 256, BY_SKILL),
        ("S2_finisher", "2.0", "100", "1", None, None),
    ),
}
"""Each stage's name, epochs, percentage of the data, survival rate, `eval_limit`, and what it ranks
by (None: the objectives). docs/search.md has the command and the curves that the last two come
from."""
