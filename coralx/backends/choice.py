"""Which backend trains a config: the one that it names, or the one that suits task and machine."""

from __future__ import annotations

from dataclasses import dataclass

from coralx.backends.unsloth_support import FUSED, model_type
from coralx.config.metric_catalogue import CAUSAL
from coralx.config.schema import Config
from coralx.config.search_space import ModuleChoices
from coralx.data import builtin
from coralx.errors import ConfigError, SetupError
from coralx.system.environment import INSTALL_UNSLOTH, is_installed, torch_cuda
from coralx.system.gpus import visible_gpus

WHOLE_GROUPS = ModuleChoices(
    choices=(
        ("q_proj", "k_proj", "v_proj", "o_proj"),
        ("gate_proj", "up_proj", "down_proj"),
        "all-linear",
    )
)
"""An adapter on part of a group loses Unsloth's fused kernels for all of it."""


@dataclass(frozen=True)
class Choice:
    """The backend that trains, and why it was taken."""

    name: str
    reason: str


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
