"""Fixtures of the tests of devices."""

from __future__ import annotations

from typing import Any

import pytest

from coralx.execution import local
from tests.support.fake_workers import FakeProcess


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[FakeProcess]:
    """The workers that executors of this test start."""
    workers: list[FakeProcess] = []

    def start(*arguments: Any) -> FakeProcess:
        workers.append(FakeProcess(*arguments))
        return workers[-1]

    monkeypatch.setattr(local, "WorkerProcess", start)
    return workers
