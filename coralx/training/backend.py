"""What trains: one Protocol for every backend, and the registry by which workers find theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from coralx.config.metrics import CAUSAL
from coralx.config.schema import Config
from coralx.config.space import ModuleChoices
from coralx.data import builtin
from coralx.devices import visible_gpus
from coralx.errors import ConfigError, SetupError, UsageError
from coralx.facts import REVISION, Facts
from coralx.packages import INSTALL_UNSLOTH, is_installed, torch_cuda
from coralx.records import Job, MeasureJob
from coralx.results import Measurement, Progress, StageResult
from coralx.training.architecture import FUSED, model_type

Report = Callable[[Progress], None]
Say = Callable[[str], None]
Beat = Callable[[], None]
"""A sign of life, given after every piece of work; raises Paused where the worker is to stop."""

REGISTRY = {
    "unsloth": "coralx.training.unsloth:UnslothBackend",
    "peft": "coralx.training.peft:PeftBackend",
    "simulated": "coralx.training.simulated:SimulatedBackend",
}
WHOLE_GROUPS = ModuleChoices(
    choices=(
        ("q_proj", "k_proj", "v_proj", "o_proj"),
        ("gate_proj", "up_proj", "down_proj"),
        "all-linear",
    )
)
"""An adapter on part of a group loses Unsloth's fused kernels for all of it."""


class Paused(Exception):
    """The driver wants the worker to leave its job where it is."""


def unheard() -> None:
    """The beat of a worker that nobody listens to."""


@dataclass(frozen=True)
class Choice:
    """The backend that trains, and why it was taken."""

    name: str
    reason: str


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
        version's order the rows are taken (see `facts.Settings`).

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


def choose(config: Config) -> Choice:
    """The backend that `runtime.backend` names, or for `auto` the one that suits task and machine.

    Raises as `require` does where the one that is named cannot train the config.
    """
    wanted = config.runtime.backend
    if wanted != "auto":
        require(config, wanted)
        return Choice(wanted, "named by the config or the command line")
    refuse_contradiction(config, wanted)
    obstacle = _obstacle_to_unsloth(config)
    if obstacle is not None:
        return Choice("peft", obstacle)
    return Choice("unsloth", "a GPU is visible, and Unsloth is faster there")


def _obstacle_to_unsloth(config: Config) -> str | None:
    """The first condition for taking Unsloth unasked that does not hold."""
    if config.model.task == "sequence-classification":
        return "sequence classification trains with PEFT"
    if not visible_gpus():
        return "no GPU is visible"
    if torch_cuda() is None:
        return "torch is a CPU build"
    if not is_installed("unsloth"):
        return f"unsloth is not installed. {INSTALL_UNSLOTH}"
    kind = model_type(config)
    if kind is not None and kind not in FUSED:
        return f"Unsloth has no fused kernels for models of type {kind}"
    return None


def require(config: Config, name: str) -> None:
    """Raise ConfigError where the backend `name` does not train the config's task, SetupError
    where its package is missing."""
    refuse_contradiction(config, name)
    if name == "unsloth" and not is_installed("unsloth"):
        raise SetupError(
            "the backend unsloth is not installed", f"{INSTALL_UNSLOTH}; or take peft."
        )


def refuse_contradiction(config: Config, name: str) -> None:
    """Raise ConfigError where the backend `name` does not train the config's task, and UsageError
    for a builtin that does not exist."""
    base = str(config.model.base)
    if base.startswith("builtin:"):
        builtin.find(base.removeprefix("builtin:"), builtin.MODELS, "model")
    if config.runtime.quantization != "none" and config.model.task not in CAUSAL:
        raise ConfigError(
            "config",
            [
                f"runtime.quantization: {config.runtime.quantization} is for language models; "
                f"model.task is {config.model.task}"
            ],
            "Set runtime.quantization: none.",
        )
    if name == "unsloth" and config.model.task == "sequence-classification":
        raise ConfigError(
            "config",
            [
                "runtime.backend: unsloth trains causal language models; model.task is "
                "sequence-classification"
            ],
            "Take `backend: peft` (or auto), or classify with `model.task: label-tokens`.",
        )


def settled(config: Config, name: str) -> Config:
    """The config with those defaults filled in that depend on the backend `name`."""
    if name != "unsloth" or "target_modules" in config.search_space.model_fields_set:
        return config
    if model_type(config) not in (None, *FUSED):
        return config
    space = config.search_space.model_copy(update={"target_modules": WHOLE_GROUPS})
    return config.model_copy(update={"search_space": space})


def create(name: str) -> Backend:
    """A backend by name, imported only now. Raises UsageError for an unknown name."""
    if name not in REGISTRY:
        raise UsageError(f"no backend named {name!r}", f"Known: {', '.join(REGISTRY)}.")
    module, _, attribute = REGISTRY[name].partition(":")
    backend: Backend = getattr(import_module(module), attribute)()
    return backend
