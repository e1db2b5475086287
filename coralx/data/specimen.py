"""Texts of a small vocabulary, for what is trained where no data is at hand: always the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import cycle, islice
from pathlib import Path
from random import Random

PROMPT = (
    "Text Label Review Answer Question system user assistant : . , ? ! negative positive".split()
)
PLAIN = "the a is was very not of to and it this film road coffee team train phone".split()
BAD = "bad awful poor sad worst hate broken slow angry dirty".split()
GOOD = "good great lovely happy best love fine fast calm clean".split()
WORDS = (*PROMPT, *PLAIN, *BAD, *GOOD)

TEXTS = 200
LONG_TEXTS, LONG_WORDS = 64, 600
"""Rows of long texts, and the words of each: more tokens than a check reads of a row."""

ANSWER = "the coffee was good and the train was slow .".split()
"""What every long text says again and again, so that a few steps teach it."""

ANSWERED = 4
"""Prompts to answer; one half of them belongs to validation."""


def write_texts(path: Path) -> None:
    """A JSONL of labelled texts: two words of each tell `positive` from `negative`."""
    rng = Random(0)  # noqa: S311  texts, no secrets
    rows = []
    for number in range(TEXTS):
        label, telling = (("negative", BAD), ("positive", GOOD))[number % 2]
        words = [*rng.choices(PLAIN, k=rng.randint(2, 8)), *rng.choices(telling, k=2)]
        rng.shuffle(words)
        rows.append({"text": " ".join(words), "label": label})
    _write(path, rows)


def write_long_texts(path: Path) -> None:
    """A JSONL of prompts and long completions: `ANSWER`, with every fourth word another one."""
    rng = Random(1)  # noqa: S311
    rows = []
    for _ in range(LONG_TEXTS):
        prompt = f"Question : {' '.join(rng.choices(PLAIN, k=8))} ?"
        words = [
            rng.choice(PLAIN) if place % 4 == 3 else word
            for place, word in enumerate(islice(cycle(ANSWER), LONG_WORDS))
        ]
        rows.append({"prompt": prompt, "completion": " ".join(words)})
    _write(path, rows)


def write_prompts(path: Path) -> None:
    """A JSONL of prompts to answer."""
    rng = Random(2)  # noqa: S311
    texts = (" ".join(rng.choices(PLAIN, k=6)) for _ in range(ANSWERED))
    _write(path, [{"text": f"Question : {text} ?"} for text in texts])


def _write(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
