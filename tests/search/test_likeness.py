"""How far an earlier run speaks of a later one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from coralx.records.experience import Likeness
from coralx.records.run_facts import Footprint
from coralx.search.likeness import Setting, likeness_of
from tests.support.factories import make_config, make_facts

TWEETS = {"train": "/data/tweets.tsv", "labels": ["bad", "good"]}
LIAR = {"train": "/data/liar.tsv", "labels": ["bad", "good"]}


def setting(
    base: str | None = "/models/minilm",
    data: dict[str, Any] = TWEETS,
    task: str = "sequence-classification",
    *,
    weights: str = "",
    rows: str = "",
    width: int = 0,
    parameters: int = 0,
) -> Setting:
    config = make_config(model={"base": base, "task": task}, data=data)
    footprint = Footprint(1, 4, width, width, 2, ()) if width else None
    facts = replace(
        make_facts(),
        base_fingerprint=weights and f"settings-{weights}",
        data_fingerprint=rows,
        footprint=footprint,
        base_parameters=parameters,
    )
    return Setting(config, facts)


SFT = {"train": "/data/chats.jsonl"}

CASES: dict[str, tuple[Setting, Setting, Likeness | None]] = {
    "equal fingerprints, whatever the paths": (
        setting("/a/x", weights="w", rows="r"),
        setting("/b/y", LIAR, weights="w", rows="r"),
        "same base and data",
    ),
    "another seed orders the same file otherwise": (
        setting(weights="w", rows="r"),
        setting(data={**TWEETS, "limit": 500, "validation_fraction": 0.2}, weights="w", rows="s"),
        "same base and data",
    ),
    "other data": (setting(weights="w"), setting(data=LIAR, weights="w"), "same base"),
    "the same rows with other classes": (
        setting(weights="w", rows="r"),
        setting(data={**TWEETS, "labels": ["good", "bad"]}, weights="w", rows="s"),
        "same base",
    ),
    "another task on the same base": (
        setting("m", TWEETS, "label-tokens", weights="w"),
        setting("m", SFT, "sft", weights="w"),
        "same base",
    ),
    "other weights under the same name": (
        setting(weights="w"),
        setting(weights="v"),
        "same kind",
    ),
    "an earlier version knew no fingerprint": (
        setting("/new/minilm", weights="w", parameters=5),
        setting("/old/minilm", parameters=5),
        "same base and data",
    ),
    "nor is it the same base if its size differs": (
        setting(weights="w", parameters=5),
        setting(parameters=6),
        "same kind",
    ),
    "both read no base": (setting(None, {}), setting(None, {}), "same base and data"),
    "only one reads a base": (setting(None), setting(), "same kind"),
    "language models of both tasks are of one kind": (
        setting("a", TWEETS, "label-tokens"),
        setting("b", SFT, "sft"),
        "same kind",
    ),
    "an encoder and a language model are not": (setting("a"), setting("b", SFT, "sft"), None),
    "bases of about one width": (setting("a", width=384), setting("b", width=768), "same kind"),
    "bases of very different width": (setting("a", width=384), setting("b", width=4096), None),
}


@pytest.mark.parametrize("case", CASES)
def test_likeness(case: str) -> None:
    now, then, expected = CASES[case]
    assert likeness_of(now, then) == expected
    assert likeness_of(then, now) == expected
