"""Which backend trains a config: the one that it names, or the one that suits task and machine."""

from __future__ import annotations

from dataclasses import dataclass

from coralx.backends.unsloth_models import fused_types
from coralx.backends.unsloth_support import WHOLE_GROUPS, local_model_type, model_type
from coralx.config.base_kind import ENCODERS
from coralx.config.metric_catalogue import CAUSAL
from coralx.config.schema import Config
from coralx.data import builtin
from coralx.errors import ConfigError, SetupError
from coralx.system.environment import INSTALL_UNSLOTH, is_installed, torch_cuda
from coralx.system.gpus import visible_gpus

ENCODERS_WITH_PEFT = "encoders train with PEFT"


ON_GPU = "a GPU is visible, and Unsloth is faster there"
"""Why `auto` takes Unsloth. Whether torch can use the GPU, only a worker sees."""


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
    return Choice("unsloth", ON_GPU)


def _obstacle_to_unsloth(config: Config) -> str | None:
    """Why `auto` does not take Unsloth; None if it does."""
    if local_model_type(config) in ENCODERS:
        return ENCODERS_WITH_PEFT
    if config.runtime.pack not in ("auto", 1):
        return "runtime.pack is for PEFT"
    if not visible_gpus():
        return "no GPU is visible"
    if torch_cuda() is None:
        return "torch is a CPU build"
    if not is_installed("unsloth"):
        return f"unsloth is not installed. {INSTALL_UNSLOTH}"
    return _obstacle_in_base(config)


def _obstacle_in_base(config: Config) -> str | None:
    """Why Unsloth is not the better one for the config's base: it has no fused kernels for it.

    What it trains by its generic path, in code that it writes for the base, may be faster all the
    same; but nothing shows that here, and PEFT is what all else is compared with.
    """
    kind, fused = model_type(config), fused_types()
    if kind is None:
        # A language model may have fused kernels; a classifier's base is as likely an encoder.
        classifies = config.model.task not in CAUSAL
        return f"{ENCODERS_WITH_PEFT}, and the base's type is not known" if classifies else None
    if kind in ENCODERS:
        return ENCODERS_WITH_PEFT
    if kind not in fused.names:
        caveat = f" ({fused.caveat})" if fused.caveat else ""
        return f"Unsloth has no fused kernels for models of type {kind}{caveat}"
    if config.runtime.quantization == "8bit":
        return "Unsloth has no fused kernels for weights in 8 bits"
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
    if name == "unsloth" and config.runtime.pack not in ("auto", 1):
        raise ConfigError(
            "config",
            [f"runtime.pack: {config.runtime.pack} needs PEFT, but the backend is unsloth"],
            "Set runtime.pack: 1, or runtime.backend: peft.",
        )
    if name == "unsloth" and config.model.task not in CAUSAL:
        require_decoder(config, local_model_type(config))


def require_decoder(config: Config, kind: str | None) -> None:
    """Raise ConfigError for a base of a `kind` (None: not known) that Unsloth does not classify
    with."""
    if kind in ENCODERS:
        raise ConfigError(
            "config",
            [
                f"runtime.backend: unsloth trains language models, but model.base, "
                f"{config.model.base}, is an encoder ({kind})"
            ],
            "Set runtime.backend: peft (or auto).",
        )


def holds_half(task: str, backend: str) -> bool:
    """Whether a base on a GPU is held in the precision that it trains in, which may be of 16 bits:
    language models are, and classifiers that Unsloth trains, whose kernels need that."""
    return task in CAUSAL or backend == "unsloth"


def with_backend_defaults(config: Config, name: str) -> Config:
    """The config with the defaults that depend on the backend `name`: Unsloth searches whole groups
    of projections, where the config does not say which and the base may have fused kernels."""
    if name != "unsloth" or "target_modules" in config.search_space.model_fields_set:
        return config
    if model_type(config) not in (None, *fused_types().names):
        return config
    space = config.search_space.model_copy(update={"target_modules": WHOLE_GROUPS})
    return config.model_copy(update={"search_space": space})
