"""Which backend trains a config: the one that it names, or the one that suits task and machine."""

from __future__ import annotations

from dataclasses import dataclass

from coralx.backends.unsloth_support import FUSED_MODEL_TYPES, WHOLE_GROUPS, model_type
from coralx.config.metric_catalogue import CAUSAL
from coralx.config.schema import Config
from coralx.data import builtin
from coralx.errors import ConfigError, SetupError
from coralx.system.environment import INSTALL_UNSLOTH, is_installed, torch_cuda
from coralx.system.gpus import visible_gpus


@dataclass(frozen=True)
class Choice:
    """The backend that trains, and why it was taken."""

    name: str
    reason: str


def choose(config: Config) -> Choice:
    """The backend that `runtime.backend` names, or for `auto` the one that suits task and machine.

    Raises as `require_available` does where the one that is named cannot train the config.
    """
    named = config.runtime.backend
    if named != "auto":
        require_available(config, named)
        return Choice(named, "named by the config or the command line")
    require_compatible(config, named)
    obstacle = _obstacle_to_unsloth(config)
    if obstacle is not None:
        return Choice("peft", obstacle)
    return Choice("unsloth", "a GPU is visible, and Unsloth is faster there")


def _obstacle_to_unsloth(config: Config) -> str | None:
    """Why `auto` does not take Unsloth; None if it does."""
    if config.model.task == "sequence-classification":
        return "sequence classification trains with PEFT"
    if not visible_gpus():
        return "no GPU is visible"
    if torch_cuda() is None:
        return "torch is a CPU build"
    if not is_installed("unsloth"):
        return f"unsloth is not installed. {INSTALL_UNSLOTH}"
    # Without them it has no advantage. A base whose type is unknown may have them.
    kind = model_type(config)
    if kind is not None and kind not in FUSED_MODEL_TYPES:
        return f"Unsloth has no fused kernels for models of type {kind}"
    return None


def require_available(config: Config, name: str) -> None:
    """Raise as `require_compatible`, and SetupError where the backend's package is missing."""
    require_compatible(config, name)
    if name == "unsloth" and not is_installed("unsloth"):
        raise SetupError(
            "the backend unsloth is not installed",
            f"{INSTALL_UNSLOTH}, or set runtime.backend: peft.",
        )


def require_compatible(config: Config, name: str) -> None:
    """Raise ConfigError where the backend `name` does not train the config's task, or the task's
    base cannot be quantized; UsageError for a `builtin:` base that does not exist."""
    base = str(config.model.base)
    if base.startswith("builtin:"):
        builtin.find(base.removeprefix("builtin:"), builtin.MODELS, "model")
    if config.runtime.quantization != "none" and config.model.task not in CAUSAL:
        raise ConfigError(
            "config",
            [
                f"runtime.quantization: {config.runtime.quantization} is for causal language "
                f"models, but model.task is {config.model.task}"
            ],
            "Set runtime.quantization: none.",
        )
    if name == "unsloth" and config.model.task == "sequence-classification":
        raise ConfigError(
            "config",
            [
                "runtime.backend: unsloth trains causal language models, but model.task is "
                "sequence-classification"
            ],
            "Set runtime.backend: peft (or auto), or classify with model.task: label-tokens.",
        )


def with_backend_defaults(config: Config, name: str) -> Config:
    """The config with the defaults that depend on the backend `name`: Unsloth searches whole groups
    of projections, where the config does not say which and the base may have fused kernels."""
    if name != "unsloth" or "target_modules" in config.search_space.model_fields_set:
        return config
    if model_type(config) not in (None, *FUSED_MODEL_TYPES):
        return config
    space = config.search_space.model_copy(update={"target_modules": WHOLE_GROUPS})
    return config.model_copy(update={"search_space": space})
