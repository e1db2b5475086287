"""Worker processes: what a deadline does to them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from coralx.config import parse_config
from coralx.execution.local import LocalExecutor
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Horizon, Job
from coralx.records.results import StageResult


@pytest.mark.slow
def test_a_deadline_ends_a_task_under_way_and_the_executor_goes_on(
    tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    def job(last_step: int) -> Job:
        genome = Genome(f"g00-00-{last_step}", 0, Genes(rank=2, batch_size=8))
        folder = str(tmp_path / str(last_step))
        return Job(genome, "S0", 0, last_step, Horizon(last_step, 0), 1.0, folder)

    executor = LocalExecutor("peft")
    try:
        executor.start(parse_config(tiny_config, "t"), None, lambda signal: None)  # noqa: ARG005
        began = time.monotonic()
        assert list(executor.run([job(10**6)], deadline=began + 1.5)) == []
        assert 1.0 < time.monotonic() - began < 120
        (result,) = executor.run([job(3)])
        assert isinstance(result, StageResult)
        assert result.last_step == 3
    finally:
        executor.close()
