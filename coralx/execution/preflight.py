"""What a run would find at its start, asked before it: the sizes of the config's base, by a worker
that loads no weights, and whether its genomes can be trained."""

from __future__ import annotations

from coralx.config.schema import Config
from coralx.execution.executor import Listener
from coralx.execution.local import LocalExecutor
from coralx.execution.messages import BaseDescribed, DescribeBase
from coralx.execution.process import WorkerProcess, await_reply, environment
from coralx.records.run_facts import Facts, Footprint
from coralx.system.containers import cores
from coralx.system.signals import Interruption


def footprint_of_base(config: Config) -> Footprint:
    """The footprint of the config's base on this machine's kind of device.

    Raises ConfigError where the base cannot be found or described, or lacks modules that the search
    space names.
    """
    lightest = "simulated"  # the backend that imports nothing
    worker = WorkerProcess(0, lightest, cores(), 0, environment(config))
    try:
        worker.send(DescribeBase(config.model_dump(mode="json")))
        return await_reply(worker, BaseDescribed, _ignore, Interruption()).footprint
    finally:
        worker.kill()


def try_out(config: Config, backend: str, listener: Listener) -> Facts:
    """Load base and data as a run does, and try one batch; the facts that the run would record.

    Raises ConfigError where the config cannot be trained, SetupError and WorkerError where this
    machine does not allow it.
    """
    executor = LocalExecutor(backend)
    try:
        return executor.start(config, None, listener)
    finally:
        executor.close()


def _ignore(text: str) -> None:
    """What the worker does for a second needs no line."""
