"""The frozen base model: found, loaded once, and what can be adapted in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from coralx.config.inputs import is_local
from coralx.config.schema import Config
from coralx.config.space import ModuleChoices
from coralx.config.suggest import did_you_mean
from coralx.data import builtin
from coralx.errors import ConfigError
from coralx.records import ALL_LINEAR
from coralx.rng import derive_seed


@dataclass(frozen=True)
class Base:
    """`head` names the modules that came without weights: they are trained and saved whole.

    `published_name` is where others find the same base: a hub id, or the local folder.
    """

    published_name: str
    model: Any
    tokenizer: Any
    head: tuple[str, ...]


def load(config: Config, labels: Sequence[str], device: torch.device) -> Base:
    """The base with one logit a label. Raises ConfigError where it cannot be loaded or adapted."""
    name = str(config.model.base)
    entry = None
    local = Path(name).is_dir()
    source = name
    if name.startswith("builtin:"):
        source, entry, local = builtin.model_source(name.removeprefix("builtin:"))
    elif not local and is_local(name):
        raise ConfigError("config", [f"model.base: no such folder: {name}"])
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.manual_seed(derive_seed(config.experiment.seed, "head"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source,
            num_labels=len(labels),
            dtype=torch.float32,
            local_files_only=local,
            output_loading_info=True,
        )
    except Exception as error:  # hub, file and format errors come in many classes
        if entry is not None and not local:
            raise builtin.missing(name.removeprefix("builtin:"), entry, error) from None
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            "config",
            [f"model.base: {name} cannot be loaded for sequence classification: {reason[0]}"],
            "Give a hub id, a folder that save_pretrained wrote, or builtin:minilm.",
        ) from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    head = _modules_without_weights(model, info["missing_keys"])
    _check_targets(config.search_space.target_modules, model, head)
    _check_length(config, model)
    published = entry.hub if entry else name
    return Base(published, model.to(device).requires_grad_(False), tokenizer, head)


def _modules_without_weights(model: Any, missing: Sequence[str]) -> tuple[str, ...]:
    """The outermost modules that the checkpoint has no weights for, such as `classifier`."""
    backbone = model.base_model_prefix
    found = set()
    for key in missing:
        parts = key.split(".")[:-1]
        depth = 2 if parts[0] == backbone else 1
        found.add(".".join(parts[:depth]))
    return tuple(sorted(found))


def linear_names(model: Any, head: Sequence[str]) -> list[str]:
    """Full names of the linear layers that LoRA can adapt."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and not any(name == part or name.startswith(part + ".") for part in head)
    ]


def _check_targets(choices: ModuleChoices, model: Any, head: Sequence[str]) -> None:
    linear = linear_names(model, head)
    leaves = list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in linear))
    problems = [
        f"search_space.target_modules.choices.{place}: the base has no linear module "
        f"{name!r}{did_you_mean(name, leaves)}; it has {', '.join(leaves)}"
        for place, wanted in enumerate(choices.choices)
        for name in (() if wanted == ALL_LINEAR else wanted)
        if not any(full == name or full.endswith("." + name) for full in linear)
    ]
    if problems:
        raise ConfigError("config", problems)


def _check_length(config: Config, model: Any) -> None:
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and config.model.max_length > limit:
        raise ConfigError(
            "config",
            [
                f"model.max_length: {config.model.max_length} is more than the base reads "
                f"({limit} tokens)"
            ],
        )
