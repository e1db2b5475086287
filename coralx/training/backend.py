"""What trains: one Protocol for every backend, and the registry by which workers find theirs."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Protocol

from coralx.config.schema import Config
from coralx.errors import UsageError
from coralx.records import Facts, Job, MeasureJob, Measurement, Progress, StageResult

Report = Callable[[Progress], None]
Say = Callable[[str], None]

REGISTRY = {
    "peft": "coralx.training.peft:PeftBackend",
    "unsloth": "coralx.training.unsloth:UnslothBackend",
    "simulated": "coralx.training.simulated:SimulatedBackend",
}


class Backend(Protocol):
    """Trains and measures genomes on one base model, which `prepare` loads once."""

    base_loads: int

    def devices(self) -> tuple[str, int]:
        """The kind of device that this backend would train on, and how many there are."""
        ...

    def prepare(self, config: Config, precision: str | None, threads: int, say: Say) -> Facts:
        """Load base model and data. `precision` is fp32 or bf16, or None to follow the config
        (`auto` measures and chooses); `threads` is for CPU kernels.

        Raises ConfigError where model or data do not fit the config.
        """
        ...

    def train(self, job: Job, report: Report) -> StageResult:
        """Train one genome through one stage, evaluate it, write its checkpoint."""
        ...

    def measure(self, job: MeasureJob) -> Measurement:
        """Figures of a finished adapter on the whole validation and test splits."""
        ...


def choose(wanted: str) -> tuple[str, str]:
    """The backend for `wanted` (a name, or `auto`) and why it was taken."""
    if wanted == "auto":
        return "peft", "PEFT trains on every device"
    return wanted, "named by the config or the command line"


def create(name: str) -> Backend:
    """A backend by name, imported only now. Raises UsageError for an unknown name."""
    if name not in REGISTRY:
        raise UsageError(f"no backend named {name!r}", f"Known: {', '.join(REGISTRY)}.")
    module, _, attribute = REGISTRY[name].partition(":")
    backend: Backend = getattr(import_module(module), attribute)()
    return backend
