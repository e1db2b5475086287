"""The contract of what trains: one Protocol for every backend, and the registry of their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Protocol

from coralx.config.schema import Config
from coralx.errors import UsageError
from coralx.records.jobs import DeriveJob, Job, MeasureJob
from coralx.records.results import Derived, Measurement, Progress, StageResult
from coralx.records.run_facts import NO_MEMORY, REVISION, DeviceMemory, Facts

Report = Callable[[Progress], None]
"""Takes a job's progress, for the live view."""

Say = Callable[[str], None]
"""Takes a line for the user about what is being done, such as a download."""

Beat = Callable[[], None]
"""A heartbeat, given after every piece of work; raises Paused where the worker is to stop."""

REGISTRY = {
    "unsloth": "coralx.training.unsloth:UnslothBackend",
    "peft": "coralx.training.peft:PeftBackend",
    "simulated": "coralx.backends.simulated:SimulatedBackend",
}
"""Backends as `module:class`: a module is imported only when its backend is taken, so that the
driver needs neither torch nor the packages of the others."""


class Paused(Exception):
    """Raised by a heartbeat: the driver wants the worker to stop its job, to be resumed later."""


def no_beat() -> None:
    """The heartbeat where nobody listens."""


class Backend(Protocol):
    """Trains and measures genomes on one base model, which `prepare` loads once."""

    base_loads: int
    """How often it has loaded the base; the ledger shows that it was once."""

    def devices(self) -> tuple[str, int]:
        """The kind of device that this backend would train on (`cuda`, `cpu`, `none`), and how many
        there are."""
        ...

    def prepare(
        self,
        config: Config,
        precision: str | None,
        threads: int,
        say: Say,
        revision: int = REVISION,
        checkpointing: bool | None = None,
        memory: DeviceMemory = NO_MEMORY,
    ) -> Facts:
        """Load base model and data. `precision` is fp32, bf16 or fp16, or None to follow the config
        (`auto` measures and chooses); `threads` is for CPU kernels; `revision` says by which
        version's order the rows are taken (see `run_facts.Settings`). `checkpointing` is what the
        run has decided where the config leaves it open, `memory` what the driver knows of the
        smallest GPU in use, and how many workers share it.

        Raises ConfigError where model or data do not fit the config.
        """
        ...

    def train(self, job: Job, report: Report, beat: Beat = no_beat) -> StageResult:
        """Train one genome through one stage, evaluate it, write its checkpoint.

        Continues from the job's partial checkpoint, if that is of this very job. Where `beat`
        raises Paused, one is written before the exception is passed on. Raises OutOfMemory for a
        genome that the device cannot hold, SetupError where the checkpoint cannot be written.
        """
        ...

    def measure(self, job: MeasureJob, beat: Beat = no_beat) -> Measurement:
        """Figures of a finished adapter on the whole validation and test splits."""
        ...

    def derive(self, job: DeriveJob, beat: Beat = no_beat) -> Derived:
        """Make an adapter from finished ones without training, score it on the whole validation
        split, write its checkpoint. Equal jobs write equal bytes.

        Raises NotDerivable where the operator cannot be applied to these sources, OutOfMemory and
        SetupError as `train` does.
        """
        ...


class PackingBackend(Backend, Protocol):
    """One that can train several genomes together."""

    def decide_pack(self, facts: Facts, wanted: int | None, say: Say) -> Facts:
        """The facts of `prepare`, and how many genomes are to be trained together, with the reason:
        as many as are `wanted`; None: as many as pay.

        Raises ConfigError where more than one are wanted and they cannot be trained together.
        """
        ...

    def train_pack(
        self, jobs: Sequence[Job], report: Report, beat: Beat = no_beat
    ) -> Iterator[StageResult]:
        """As `train`, for several genomes that read the same rows at the same steps; the results as
        they come. Figures equal those of `train` but for rounding; partial checkpoints serve both.
        """
        ...


def create(name: str) -> Backend:
    """A backend by name, imported only now. Raises UsageError for an unknown name."""
    if name not in REGISTRY:
        raise UsageError(f"no backend named {name!r}", f"Known: {', '.join(REGISTRY)}.")
    module, _, attribute = REGISTRY[name].partition(":")
    backend: Backend = getattr(import_module(module), attribute)()
    return backend
