"""Stand-ins for worker processes, which see whatever devices a test makes up."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from coralx.config import Config
from coralx.execution.local import LocalExecutor
from coralx.execution.messages import Hello, Order, Prepare, Ready, Reply
from coralx.records.run_facts import NO_MEMORY, Facts
from tests.support.factories import make_config, make_facts


class FakeProcess:
    """Stands where a worker process would: answers orders, and remembers its environment."""

    device, devices_without_pin = "cuda", 3

    def __init__(
        self, number: int, backend: str, threads: int, slot: int, extra: Mapping[str, str]
    ) -> None:
        self.number, self.slot, self.pid, self.threads = number, slot, 100 + number, threads
        self.extra, self.pin = extra, extra.get("CUDA_VISIBLE_DEVICES")
        self.ready, self.job, self.silence, self.spawned = False, None, 0.0, 0.0
        self._reader, writer = os.pipe()
        os.close(writer)  # at its end, a pipe is ready to be read
        is_gpu = self.device == "cuda"
        self.count = len(self.pin.split(",")) if self.pin else self.devices_without_pin
        self.memory = NO_MEMORY
        self.checkpointing: bool | None = None
        self.replies: list[Reply] = [Hello(self.device, self.count if is_gpu else 1)]

    def __del__(self) -> None:
        os.close(self._reader)

    def fileno(self) -> int:
        return self._reader

    def facts(self) -> Facts:
        return replace(make_facts(), device=self.device, device_count=self.count)

    def send(self, order: Order) -> None:
        if isinstance(order, Prepare):
            self.memory, self.checkpointing = order.memory, order.checkpointing
            self.replies.append(Ready(self.facts(), 1, 0.5))

    def receive(self) -> Sequence[Reply]:
        replies, self.replies = self.replies, []
        return replies

    def kill(self) -> None: ...


def run_on(config: Config, backend: str = "peft", jobs: int = 8) -> tuple[LocalExecutor, Facts]:
    """An executor with as many workers started as it would have for so many jobs."""
    executor = LocalExecutor(backend)
    facts = executor.start(config, None, lambda signal: None)  # noqa: ARG005
    executor._staff(jobs)
    return executor, facts


def config_with(**runtime: Any) -> Config:
    return make_config(evolution={"population_size": 8}, runtime=runtime)
