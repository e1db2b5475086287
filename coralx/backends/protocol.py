"""What trains: one Protocol for every backend, and the registry by which workers find theirs."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Protocol

from coralx.config.schema import Config
from coralx.errors import UsageError
from coralx.records.jobs import Job, MeasureJob
from coralx.records.results import Measurement, Progress, StageResult
from coralx.records.run_facts import REVISION, Facts

Report = Callable[[Progress], None]
Say = Callable[[str], None]
Beat = Callable[[], None]
"""A sign of life, given after every piece of work; raises Paused where the worker is to stop."""

REGISTRY = {
    "unsloth": "coralx.training.unsloth:UnslothBackend",
    "peft": "coralx.training.peft:PeftBackend",
    "simulated": "coralx.backends.simulated:SimulatedBackend",
}


class Paused(Exception):
    """The driver wants the worker to leave its job where it is."""


def unheard() -> None:
    """The beat of a worker that nobody listens to."""


class Backend(Protocol):
    """Trains and measures genomes on one base model, which `prepare` loads once."""

    base_loads: int

    def devices(self) -> tuple[str, int]:
        """The kind of device that this backend would train on, and how many there are."""
        ...

    def prepare(
        self,
        config: Config,
        precision: str | None,
        threads: int,
        say: Say,
        revision: int = REVISION,
    ) -> Facts:
        """Load base model and data. `precision` is fp32 or bf16, or None to follow the config
        (`auto` measures and chooses); `threads` is for CPU kernels; `revision` says by which
        version's order the rows are taken (see `run_facts.Settings`).

        Raises ConfigError where model or data do not fit the config.
        """
        ...

    def train(self, job: Job, report: Report, beat: Beat = unheard) -> StageResult:
        """Train one genome through one stage, evaluate it, write its checkpoint.

        Goes on from the job's partial checkpoint, if it has one of this very job. Where `beat`
        raises Paused, such a one is written before the exception is passed on. Raises OutOfMemory
        for a genome that the device cannot hold, SetupError where the disk takes no checkpoint.
        """
        ...

    def measure(self, job: MeasureJob, beat: Beat = unheard) -> Measurement:
        """Figures of a finished adapter on the whole validation and test splits."""
        ...


def create(name: str) -> Backend:
    """A backend by name, imported only now. Raises UsageError for an unknown name."""
    if name not in REGISTRY:
        raise UsageError(f"no backend named {name!r}", f"Known: {', '.join(REGISTRY)}.")
    module, _, attribute = REGISTRY[name].partition(":")
    backend: Backend = getattr(import_module(module), attribute)()
    return backend
