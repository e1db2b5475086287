"""The sizes of a config's base, asked of a worker that loads no weights."""

from __future__ import annotations

from coralx.config.schema import Config
from coralx.execution.messages import BaseDescribed, DescribeBase
from coralx.execution.process import WorkerProcess, await_reply, environment
from coralx.records.run_facts import DeviceMemory, Footprint
from coralx.system.containers import cores
from coralx.system.signals import Interruption


def described_base(
    config: Config, memory: DeviceMemory, interruption: Interruption | None = None
) -> Footprint:
    """The footprint of the config's base on this machine's kind of device, with such a memory.

    Raises ConfigError where the base cannot be found or described, or lacks modules that the search
    space names.
    """
    lightest = "simulated"  # the backend that imports nothing
    worker = WorkerProcess(0, lightest, cores(), 0, environment(config))
    try:
        worker.send(DescribeBase(config.model_dump(mode="json"), memory))
        expected = BaseDescribed
        return await_reply(worker, expected, _ignore, interruption or Interruption()).footprint
    finally:
        worker.kill()


def _ignore(text: str) -> None:
    """What the worker does for a second needs no line."""
