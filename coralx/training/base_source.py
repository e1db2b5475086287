"""Where a config's base is read from, and what to say where it cannot be loaded."""

from __future__ import annotations

from dataclasses import dataclass
from os.path import isdir

from coralx.backends.protocol import Say
from coralx.config.input_files import is_local, public_name
from coralx.config.schema import Config
from coralx.data import builtin
from coralx.data import hub_errors as hub
from coralx.errors import ConfigError
from coralx.system.environment import INSTALL_QUANTIZATION, is_installed
from coralx.training.gguf import expanded


@dataclass(frozen=True)
class BaseSource:
    """Where a config's base is read from."""

    path: str
    """A folder, or a hub id."""
    is_local: bool
    published_name: str
    """The hub id by which others know the same base; else the folder's name."""
    notes: tuple[str, ...] = ()
    """Remarks for the run's report."""


def locate_base(config: Config, say: Say) -> BaseSource:
    """Find the base. Raises ConfigError for a folder that does not exist."""
    name = str(config.model.base)
    if name.startswith("builtin:"):
        entry, path = builtin.find(name.removeprefix("builtin:"), builtin.MODELS, "model")
        if path is None:  # its package is not installed, so the hub is asked for the same model
            return BaseSource(entry.hub, False, entry.hub)
        if path.suffix == ".gguf":
            path = expanded(path, entry, say)
        return BaseSource(str(path), True, entry.hub, entry.notes)
    local = isdir(name)
    if not local and is_local(name):
        raise ConfigError(
            "config",
            [f"model.base: no such folder: {name}"],
            "Correct the path, or give a hub id.",
        )
    return BaseSource(name, local, public_name(name))


def loading_options(config: Config, source: BaseSource) -> dict[str, bool]:
    """How transformers may read the base.

    `trust_remote_code` is always given: without it, transformers asks on standard input whether to
    run a base's own code, and nobody answers in a worker.
    """
    return {
        "local_files_only": source.is_local,
        "trust_remote_code": config.model.trust_remote_code,
    }


def loading_error(config: Config, source: BaseSource, error: Exception) -> Exception:
    """What to raise where the base cannot be loaded: hub, file and format errors come in many
    classes."""
    name = str(config.model.base)
    trouble = None if source.is_local else hub.hub_problem(error, source.path, "model")
    cause = trouble.what if trouble else hub.reason(error)
    if name.startswith("builtin:") and not source.is_local:
        name = name.removeprefix("builtin:")
        return builtin.missing(name, builtin.MODELS[name], cause)
    return ConfigError(
        "config",
        [f"model.base: {name} cannot be loaded for {config.model.task}: {cause}"],
        _way_out(config, cause, trouble.way_out if trouble else None),
    )


def _way_out(config: Config, cause: str, of_hub: str | None) -> str:
    """What to do about a base that cannot be loaded; `of_hub` is what helps against errors of the
    hub. transformers has no error classes for the other causes, only texts."""
    if "custom code" in cause and not config.model.trust_remote_code:
        return (
            "It can be read by Python files of its own alone. Look at them, and if you trust them "
            "to run on this machine with your rights: --set model.trust_remote_code=true"
        )
    if "bitsandbytes" in cause and not is_installed("bitsandbytes"):
        return f"Its weights are stored in few bits. {INSTALL_QUANTIZATION}."
    if "padding_idx" in cause.lower():
        return (
            "Its config.json names a padding token that its embeddings have no row for: set "
            "pad_token_id there to a token that the base knows."
        )
    if "safetensors" in cause:
        return "CoralX reads no pickled weights: use a version of the model in safetensors."
    if of_hub is not None:
        return of_hub
    builtins = ", ".join(f"builtin:{name}" for name in builtin.MODELS)
    return f"Give a hub id, a folder that save_pretrained wrote, or a builtin: {builtins}."
