"""The sizes of a base model that its memory depends on: of a loaded one, or of one only described.

`footprint_without_weights` builds the base without weights, on torch's meta device, so that a model
of any size is measured in seconds and hardly any memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

from coralx.backends.choice import holds_half
from coralx.backends.device_memory import checkpointing_by_need
from coralx.backends.unsloth_models import fused_types, overflows_in_half
from coralx.backends.unsloth_support import model_type
from coralx.config.metric_catalogue import CAUSAL
from coralx.config.schema import Config
from coralx.records.run_facts import NO_MEMORY, DeviceMemory, Footprint
from coralx.training.adaptable_layers import check, linear_names
from coralx.training.base_model import quiet
from coralx.training.base_source import BaseSource, loading_error, loading_options, locate_base
from coralx.training.precision import base_dtype, bytes_of, half_precision, known_precision

QUANTIZED_BYTES = {"4bit": 0.5 + 0.127 / 8, "8bit": 1.01}
"""Of one weight as bitsandbytes stores it: 4 bits and 0.127 bits of doubly quantised scales
(Dettmers et al. 2023, section 3), or a byte and a scale for each row."""

WIDTHS = ("intermediate_size", "ffn_dim", "n_inner", "hidden_dim")
"""What configs of transformers call the width inside the MLP."""


def footprint_of(
    config: Config,
    model: Any,
    head: Sequence[str],
    memory: DeviceMemory,
    *,
    precision: str,
    fused_loss: bool = False,
    fused: bool = False,
) -> Footprint:
    """The footprint of a base as it is loaded, before an adapter wraps it and it is decided whether
    gradients are checkpointed.

    `head` names the modules that are trained in full; `fused_loss` and `fused` are `fused_loss` and
    `fused_kernels` of `base_model.Base`.
    """
    described = model.config.get_text_config()
    hidden = int(getattr(described, "hidden_size", 0))
    modules = dict(model.named_modules())
    stored = [*model.parameters(), *model.buffers()]
    trained = [parameter for name in head for parameter in modules[name].parameters()]
    keeps_logits = config.model.task == "sft" and not fused_loss
    return Footprint(
        base_parameters=int(model.num_parameters()),
        base_bytes=sum(tensor.numel() * tensor.element_size() for tensor in stored),
        hidden_size=hidden,
        intermediate_size=_inner_width(described, hidden),
        layers=int(getattr(described, "num_hidden_layers", 0)),
        linear=tuple((name, *_features(modules[name])) for name in linear_names(model, head)),
        head_parameters=sum(parameter.numel() for parameter in trained),
        logits_per_token=int(described.vocab_size) if keeps_logits else 0,
        activation_bytes=bytes_of(precision),
        device_bytes=memory.share_bytes,
        sharing=memory.sharing,
        fused=fused,
    )


def footprint_without_weights(
    config: Config, device: torch.device | None = None, memory: DeviceMemory = NO_MEMORY
) -> Footprint:
    """The footprint that the config's base would have on a `device` of that type (a GPU if torch
    sees one) with such a memory, from its own description alone.

    Raises ConfigError where the base cannot be found or described.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    memory = memory if device.type == "cuda" else NO_MEMORY
    source = locate_base(config, lambda text: None)  # noqa: ARG005  nobody to tell
    quiet()
    in_half = holds_half(config.model.task, config.runtime.backend)
    precision = _likely_precision(config, device, held_in_half=in_half)
    dtype = base_dtype(precision, device, held_in_half=in_half)
    try:
        model = _without_weights(config, source, dtype)
    except Exception as error:
        raise loading_error(config, source, error) from None
    head = _head_of(model) if config.model.task == "sequence-classification" else ()
    check(config, model, head)
    on_gpu = device.type == "cuda"
    by_unsloth = config.runtime.backend == "unsloth" and on_gpu and dtype != torch.float32
    kernels = by_unsloth and model.config.model_type in fused_types().names
    found = footprint_of(
        config,
        model,
        head,
        memory,
        precision=precision,
        fused_loss=by_unsloth and config.model.task in CAUSAL,
        fused=kernels and config.runtime.quantization != "8bit",
    )
    found = replace(found, base_bytes=_quantized_bytes(config, found, dtype))
    decided = checkpointing_by_need(config, found, memory, on_gpu=on_gpu)
    return replace(found, checkpointing=decided.is_on)


def _likely_precision(config: Config, device: torch.device, *, held_in_half: bool) -> str:
    """In which precision a run on such a device trains, or where it would measure that, most likely
    does."""
    if config.training.precision != "auto":
        return config.training.precision
    if device.type != "cuda":
        return "fp32"
    overflows = held_in_half and overflows_in_half(model_type(config))
    known = known_precision(config, None, device, held_in_half=held_in_half, overflows=overflows)
    return known[0] if known else half_precision(device)


def _without_weights(config: Config, source: BaseSource, dtype: torch.dtype) -> Any:
    """The base's modules and shapes alone, on torch's meta device."""
    described = AutoConfig.from_pretrained(source.path, **loading_options(config, source))
    auto = AutoModelForCausalLM
    if config.model.task == "sequence-classification":
        auto = AutoModelForSequenceClassification
        classes = [task.labels for task in config.data.sources.values()]
        # Labels that only the data names leave the head as it is described: no row is read here.
        if all(labels is not None for labels in classes):
            described.num_labels = sum(len(labels or ()) for labels in classes)
    with torch.device("meta"):
        return auto.from_config(
            described, dtype=dtype, trust_remote_code=config.model.trust_remote_code
        )


def _head_of(model: Any) -> tuple[str, ...]:
    """What is outside of the backbone: a checkpoint of a language model has no weights for it."""
    return tuple(
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and list(module.parameters())
    )


def _quantized_bytes(config: Config, unquantized: Footprint, dtype: torch.dtype) -> int:
    """Bytes of the weights once bitsandbytes has stored the linear layers; unchanged without it."""
    bits = config.runtime.quantization
    if bits == "none":
        return unquantized.base_bytes
    stored = sum(inputs * outputs for _, inputs, outputs in unquantized.linear)
    return round(unquantized.base_bytes + stored * (QUANTIZED_BYTES[bits] - dtype.itemsize))


def _features(layer: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear layer; GPT-2's kind stores its weight the other way round."""
    if isinstance(layer, Conv1D):
        return int(layer.nx), int(layer.nf)
    return int(layer.in_features), int(layer.out_features)


def _inner_width(described: Any, hidden: int) -> int:
    """The width inside the MLP; four times the model's where its config does not say."""
    widths = (getattr(described, name, None) for name in WIDTHS)
    return int(next((width for width in widths if isinstance(width, int)), 4 * hidden))
