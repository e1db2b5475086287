"""Several workers played in this very process, whose jobs end in whatever order a seed says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from random import Random

from coralx.config import Config
from coralx.engine.budget import Allowance
from coralx.engine.engine import Engine
from coralx.engine.hypervolume_reference import reference_of
from coralx.execution.executor import AnyJob, JobOutcome, Listener, genome_and_stage
from coralx.execution.inprocess import InProcessExecutor
from coralx.records.events import Event, RunStarted
from coralx.records.jobs import JobFailed
from coralx.records.run_facts import Facts, Settings
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import FORMAT, Ledger

Fails = Callable[[str | None, str], bool]


class Killed(BaseException):
    """The process ends."""


class ManyWorkers:
    """An executor that has `count` jobs under way at once. It is killed before outcome `end` is
    seen; jobs for which `fails` holds bring none."""

    def __init__(
        self, count: int, seed: int = 0, end: int | None = None, fails: Fails | None = None
    ) -> None:
        self._inner = InProcessExecutor("simulated")
        self._count, self._random, self._left, self._fails = count, Random(seed), end, fails
        self.settings = Settings(count, 1, "none")
        self.idle = 0
        """How often a worker found no job when another brought an outcome."""
        self.order: list[tuple[str | None, str]] = []
        """Whom the outcomes are of, as they came."""

    def start(self, config: Config, settings: Settings | None, listener: Listener) -> Facts:
        facts = self._inner.start(config, settings, listener)
        self.settings = replace(self._inner.settings, workers=self._count)
        return facts

    def close(self) -> None:
        self._inner.close()

    def run(
        self, jobs: Iterable[AnyJob | None], deadline: float | None = None
    ) -> Iterator[JobOutcome]:
        source, busy = iter(jobs), list[AnyJob]()
        while True:
            while len(busy) < self._count and (job := next(source, None)) is not None:
                busy.append(job)
            if not busy:
                return
            if self._left == 0:
                raise Killed
            self._left = None if self._left is None else self._left - 1
            self.idle += self._count - len(busy)
            job = busy.pop(self._random.randrange(len(busy)))
            key = genome_and_stage(job)
            self.order.append(key)
            if self._fails is not None and self._fails(*key):
                yield JobFailed(*key, "played")
            else:
                yield from self._inner.run([job])


def engine_of(
    config: Config,
    ledger: Ledger,
    executor: ManyWorkers,
    layout: RunLayout | None = None,
    allowance: Allowance | None = None,
) -> Engine:
    """An engine that goes on where the ledger ends."""
    facts = executor.start(config, None, lambda _: None)
    if not ledger.entries:
        ledger.append(_started(config, facts, executor.settings))
    return Engine(config, facts, executor, ledger, layout, allowance=allowance)


def _started(config: Config, facts: Facts, settings: Settings) -> Event:
    box = reference_of(config, facts)
    return RunStarted(FORMAT, "played", "hyperband", 0, facts, settings, {}, {}, 0.0, reference=box)
