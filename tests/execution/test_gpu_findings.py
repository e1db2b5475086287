"""How many workers a card is best shared by, remembered between a check and a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coralx.errors import SetupError
from coralx.execution import gpu_findings
from coralx.execution.gpu_findings import FILE, remember, remembered
from coralx.system.gpus import Gpu
from tests.support.factories import make_config

T4 = Gpu(0, "GPU-1", "Tesla T4", 15 << 30, 14 << 30)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(gpu_findings, "cache_folder", lambda: tmp_path)
    return tmp_path


def config(batch_size: int = 8, **model: Any) -> Any:
    return make_config(
        model={"base": "some/base", "task": "sft", **model}, training={"batch_size": batch_size}
    )


@pytest.mark.usefixtures("cache")
def test_a_finding_holds_for_such_a_card_and_such_a_config() -> None:
    assert remembered(T4, config()) is None
    remember(T4, config(), 2)
    remember(T4, config(batch_size=16), 4)
    assert remembered(replace(T4, index=3, uuid="GPU-9", free_bytes=0), config()) == 2
    assert remembered(T4, config(batch_size=16)) == 4
    for other in (
        config(max_length=1024),
        config(base="another/base"),
        config(task="label-tokens"),
    ):
        assert remembered(T4, other) is None
    assert remembered(replace(T4, name="L4"), config()) is None
    remember(T4, config(), 1)
    assert remembered(T4, config()) == 1


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": "b"}', "\x00"])
def test_a_damaged_file_holds_nothing(cache: Path, text: str) -> None:
    (cache / FILE).write_text(text, encoding="utf-8")
    assert remembered(T4, config()) is None
    remember(T4, config(), 3)
    assert remembered(T4, config()) == 3


def test_without_a_cache_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise SetupError("the cache folder cannot be created")

    monkeypatch.setattr(gpu_findings, "cache_folder", refuse)
    remember(T4, config(), 2)
    assert remembered(T4, config()) is None
