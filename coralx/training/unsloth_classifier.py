"""A language model with a classification head, as Unsloth loads it: its head made the one that the
PEFT backend would train, and what transformers says of the weights, which Unsloth keeps to itself.

To be imported after Unsloth, as transformers is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from peft import TaskType
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from coralx.config.schema import Config
from coralx.rng import derive_seed
from coralx.training.base_model import (
    Base,
    modules_without_weights,
    own_padding,
    remarks_on_head,
    replaced_head,
)
from coralx.training.base_source import BaseSource

HEADS = ("score", "classifier")
"""What classifiers call their head; PEFT trains modules of these names in full."""


@contextmanager
def loading_report() -> Iterator[dict[str, Any]]:
    """In the block, classifiers are loaded with their head in float32, and what transformers
    reports of one is put here: the keys that are missing or mismatched."""
    report: dict[str, Any] = {"missing_keys": (), "mismatched_keys": ()}
    auto = AutoModelForSequenceClassification
    load, kept = auto.from_pretrained, PreTrainedModel._keep_in_fp32_modules_strict

    def reporting(*args: Any, **kwargs: Any) -> Any:
        model, found = load(*args, output_loading_info=True, **kwargs)
        report.update(found)
        return model

    auto.from_pretrained = reporting
    PreTrainedModel._keep_in_fp32_modules_strict = {*(kept or ()), *HEADS}
    try:
        yield report
    finally:
        del auto.from_pretrained  # the inherited one shows again
        PreTrainedModel._keep_in_fp32_modules_strict = kept


def complete(
    base: Base,
    config: Config,
    source: BaseSource,
    described: Any,
    report: dict[str, Any],
    classes: int,
) -> Base:
    """The base with what is the same about a classifier on every backend: its head, and the token
    that it takes as padding, which Unsloth replaces. `described` is the base's config as it is
    saved; `report` as `loading_report` gives it.

    Raises ConfigError where weights of the backbone have other shapes than its config says.
    """
    model = base.model
    replaced = replaced_head(config, source, model, report["mismatched_keys"])
    head = modules_without_weights(model, [*report["missing_keys"], *replaced])
    draw_head(model, head, config.experiment.seed)
    for name in HEADS:
        if hasattr(model, name):  # adapters train copies of it, which are float32 as they are
            getattr(model, name).float()
    padding = own_padding(described)
    model.config.get_text_config().pad_token_id = model.config.pad_token_id = padding
    return replace(
        base,
        task_type=TaskType.SEQ_CLS,
        head=head,
        fused_loss=False,
        notes=(*base.notes, *remarks_on_head(replaced, classes)),
        padding=padding,
    )


def draw_head(model: Any, head: Sequence[str], seed: int) -> None:
    """Draw the weights of a head that the checkpoint has none of, as transformers does where it
    loads the base on a CPU in float32: so does the PEFT backend, and so will whoever loads base and
    adapter again. On a GPU, or in 16 bits, the draws are others."""
    torch.manual_seed(derive_seed(seed, "head"))
    for name, module in model.named_modules():
        if name not in head:
            continue
        device = next(module.parameters()).device
        module.to(device="cpu", dtype=torch.float32)
        for parameter in module.parameters():
            parameter._is_hf_initialized = False  # transformers leaves out what it has drawn once
        with torch.no_grad():
            module.apply(model._init_weights)
        module.to(device)
