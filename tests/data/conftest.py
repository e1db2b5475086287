"""Tables that several files of tests read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tables import Given, lines


@pytest.fixture
def texts(tmp_path: Path) -> str:
    """Forty labelled rows in two groups."""
    rows = [
        {"text": f"some text number {n}", "label": ["ok", "bad"][n % 2], "party": "ab"[n % 4 // 2]}
        for n in range(40)
    ]
    return lines(tmp_path / "texts.jsonl", rows)


@pytest.fixture
def attacks(tmp_path: Path) -> str:
    """Nine texts."""
    return lines(tmp_path / "attacks.jsonl", [{"text": f"attack {n}"} for n in range(9)])


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path)
