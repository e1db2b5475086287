"""Which of a base's layers LoRA can adapt, and whether a config fits the base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from coralx.config.gene_forms import ModuleChoices
from coralx.config.schema import Config
from coralx.config.search_space import SearchSpace
from coralx.errors import ConfigError
from coralx.records.genomes import ALL_LAYERS, ALL_LINEAR, Genes, Layers
from coralx.search.adapted_layers import adapted_count, adapted_modules, stack_of
from coralx.text import counted, did_you_mean
from coralx.training.input_length import longest_input

MOST_LISTED = 12
"""Kinds of linear modules that a message names; some mixtures of experts have hundreds."""

OUTPUT_LAYERS = ("lm_head", "embed_out", "output", "cls", "score", "classifier")
"""What usually turns states into logits, in language models and classifiers."""

LINEAR = (torch.nn.Linear, Conv1D)
"""What PEFT can adapt: GPT-2's linear layers are of transformers' own kind."""


def check(config: Config, model: Any, head: Sequence[str]) -> None:
    """Raise ConfigError where the config's target modules or text lengths do not fit the base."""
    _check_targets(config.search_space.target_modules, model, head)
    _check_layers(config.search_space, model, head)
    _check_length(config, model)


def linear_names(model: Any, head: Sequence[str]) -> list[str]:
    """Full names of the linear layers that LoRA can adapt: not the head, and not what turns a
    language model's states into logits."""
    output = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, LINEAR) and module is not output and not _is_in_head(name, head)
    ]


def _is_in_head(name: str, head: Sequence[str]) -> bool:
    return any(name == part or name.startswith(part + ".") for part in head)


def _check_targets(choices: ModuleChoices, model: Any, head: Sequence[str]) -> None:
    linear = linear_names(model, head)
    if not linear:
        raise ConfigError(
            "config",
            ["model.base: it has no linear layer that LoRA can adapt"],
            "Use another base.",
        )
    # Every block has layers of the same names; a message names each once.
    leaves = list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in linear))
    more = len(leaves) - MOST_LISTED
    offered = ", ".join(leaves[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
    problems = [
        f"search_space.target_modules.choices.{place}: {_why_not(name, model, head, leaves)}; "
        f"LoRA can adapt {offered}, or {ALL_LINEAR}"
        for place, name in _unknown_targets(choices, linear)
    ]
    if problems:
        raise ConfigError("config", problems)


def _unknown_targets(choices: ModuleChoices, linear: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Names of target modules that none of the linear layers has, each with the place of its
    choice."""
    for place, targets in enumerate(choices.choices):
        if targets == ALL_LINEAR:
            continue
        for name in targets:
            if not any(_is_called(layer, name) for layer in linear):
                yield place, name


def _is_called(full: str, name: str) -> bool:
    """Whether a target module's name means the module of that full name, as PEFT sees it."""
    return full == name or full.endswith("." + name)


def _why_not(name: str, model: Any, head: Sequence[str], leaves: Sequence[str]) -> str:
    """Why LoRA cannot adapt the modules of a name."""
    # First what people know from examples of language models, where a classifier has no such layer.
    named = {full: module for full, module in model.named_modules() if _is_called(full, name)}
    if not named and name.rpartition(".")[2] in OUTPUT_LAYERS:
        return (
            f"{name!r} names an output layer, and none is adapted: that of a language model is no "
            "part of a classifier, whose own head every adapter trains in full"
        )
    if not named:
        return f"the base has no linear module {name!r}{did_you_mean(name, leaves)}"
    if any(module is model.get_output_embeddings() for module in named.values()):
        return (
            f"{name!r} is the output layer, which is not adapted: many bases share it with their "
            f"input embeddings, and PEFT leaves it out of {ALL_LINEAR}, too"
        )
    if any(_is_in_head(full, head) for full in named):
        return f"{name!r} belongs to the classification head, which every adapter trains in full"
    return f"{name!r} is not a linear layer but {type(next(iter(named.values()))).__name__}"


def _check_layers(space: SearchSpace, model: Any, head: Sequence[str]) -> None:
    """Raise ConfigError where the choices of `layers` do not fit the base."""
    if space.layers is None or space.layers.choices == (ALL_LAYERS,):
        return
    linear = linear_names(model, head)
    count = int(getattr(model.config.get_text_config(), "num_hidden_layers", 0))
    if stack_of(linear, count) is None:
        raise ConfigError(
            "config",
            [
                "search_space.layers: the base does not have its layers in one list, so which of "
                "them are at the top is not known"
            ],
            "Leave search_space.layers out.",
        )
    problems = list(_wrong_layers(space.layers.choices, count))
    problems += _without_targets(space, linear, count)
    if problems:
        raise ConfigError("config", problems)


def _wrong_layers(choices: Sequence[Layers], count: int) -> Iterator[str]:
    """What is wrong with choices of layers for a base that has `count`: more than it has, and two
    that mean the same."""
    meant: dict[int, Layers] = {}
    for place, choice in enumerate(choices):
        where, own = f"search_space.layers.choices.{place}", adapted_count(choice, count)
        if own > count:
            yield f"{where}: {own}, but the base has {counted(count, 'layer')}"
        elif meant.setdefault(own, choice) != choice:
            yield f"{where}: {choice} means the same as {meant[own]}: {own} of {count} layers"


def _without_targets(space: SearchSpace, linear: Sequence[str], count: int) -> Iterator[str]:
    """Choices of layers that hold none of the modules of some choice of target modules."""
    for place, layers in enumerate(space.layers.choices if space.layers else ()):
        for targets in space.target_modules.choices:
            genes = Genes(target_modules=targets, layers=layers)
            if not adapted_modules(linear, genes, count):
                named = targets if isinstance(targets, str) else ", ".join(targets)
                yield (
                    f"search_space.layers.choices.{place}: {layers}: these layers have none of the "
                    f"target modules {named}"
                )


def _check_length(config: Config, model: Any) -> None:
    limit = longest_input(model)
    if limit is not None and config.model.max_length > limit:
        raise ConfigError(
            "config",
            [
                f"model.max_length: {config.model.max_length} is more than the base reads "
                f"({limit} tokens)"
            ],
            f"Set model.max_length: {limit}, or less.",
        )
