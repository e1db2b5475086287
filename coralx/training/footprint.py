"""The sizes of a base model that its memory depends on: of a loaded one, or of one only described.

`inspect` builds the base without weights, on torch's meta device, so that a model of any size is
measured in seconds and hardly any memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.pytorch_utils import Conv1D

from coralx.config.schema import Config
from coralx.records.run_facts import Footprint
from coralx.training import base_model as bases
from coralx.training.precision import base_dtype

QUANTIZED_BYTES = {"4bit": 0.5 + 0.127 / 8, "8bit": 1.01}
"""Of one weight as bitsandbytes stores it: 4 bits and 0.127 bits of doubly quantised scales
(Dettmers et al. 2023, section 3), or a byte and a scale for each row."""

WIDTHS = ("intermediate_size", "ffn_dim", "n_inner", "hidden_dim")
"""What configs of transformers call the width inside the MLP."""


def footprint_of(
    config: Config,
    model: Any,
    head: Sequence[str],
    device: torch.device,
    *,
    precision: str,
    fused_loss: bool = False,
) -> Footprint:
    """The footprint of a base as it is loaded, before an adapter wraps it.

    `head` names the modules that are trained whole; `fused_loss` is `base_model.Base`'s.
    """
    described = model.config.get_text_config()
    hidden = int(getattr(described, "hidden_size", 0))
    modules = dict(model.named_modules())
    stored = [*model.parameters(), *model.buffers()]
    keeps_logits = config.model.task == "sft" and not fused_loss
    return Footprint(
        base_parameters=int(model.num_parameters()),
        base_bytes=sum(tensor.numel() * tensor.element_size() for tensor in stored),
        hidden_size=hidden,
        intermediate_size=_inner_width(described, hidden),
        layers=int(getattr(described, "num_hidden_layers", 0)),
        linear=tuple((name, *_features(modules[name])) for name in bases.linear_names(model, head)),
        head_parameters=sum(p.numel() for name in head for p in modules[name].parameters()),
        logits_per_token=int(described.vocab_size) if keeps_logits else 0,
        activation_bytes=2 if precision == "bf16" else 4,
        checkpointing=bases.checkpoints_gradients(config, device),
        device_bytes=_memory_of(device),
    )


def inspect(config: Config, device: torch.device | None = None) -> Footprint:
    """The footprint that the config's base would have on a `device` of that type (a GPU if torch
    sees one), from its own description alone; the device's memory is left open.

    Raises ConfigError where the base cannot be found or described.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source = bases.source_of(config, lambda text: None)  # noqa: ARG005  nobody to tell
    bases.quiet()
    precision = config.training.precision
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    dtype = base_dtype(config, precision, device)
    classifies = config.model.task == "sequence-classification"
    trusted = config.model.trust_remote_code
    try:
        described = AutoConfig.from_pretrained(source.path, **bases.reading(config, source))
        classes = [source.labels for source in config.data.sources.values()]
        if classifies and all(labels is not None for labels in classes):
            described.num_labels = sum(len(labels or ()) for labels in classes)
        auto = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
        with torch.device("meta"):
            model = auto.from_config(described, dtype=dtype, trust_remote_code=trusted)
    except Exception as error:
        raise bases.loading_error(config, source, error) from None
    head = _head_of(model) if classifies else ()
    bases.check(config, model, head)
    fused = config.runtime.backend == "unsloth" and device.type == "cuda"
    found = footprint_of(
        config, model, head, torch.device("meta"), precision=precision, fused_loss=fused
    )
    return replace(
        found,
        base_bytes=_quantized_bytes(config, found, dtype),
        checkpointing=bases.checkpoints_gradients(config, device),
    )


def _head_of(model: Any) -> tuple[str, ...]:
    """What stands beside the backbone: a checkpoint of a language model has no weights for it."""
    return tuple(
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    )


def _quantized_bytes(config: Config, found: Footprint, dtype: torch.dtype) -> int:
    """Bytes of the weights once bitsandbytes has stored the linear layers; as found without it."""
    bits = config.runtime.quantization
    if bits == "none":
        return found.base_bytes
    stored = sum(inputs * outputs for _, inputs, outputs in found.linear)
    return round(found.base_bytes + stored * (QUANTIZED_BYTES[bits] - dtype.itemsize))


def _features(layer: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear layer; GPT-2's kind stores its weight the other way round."""
    if isinstance(layer, Conv1D):
        return int(layer.nx), int(layer.nf)
    return int(layer.in_features), int(layer.out_features)


def _inner_width(described: Any, hidden: int) -> int:
    """The width inside the MLP; four times the model's where its config does not say."""
    widths = (getattr(described, name, None) for name in WIDTHS)
    return int(next((width for width in widths if isinstance(width, int)), 4 * hidden))


def _memory_of(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(device).total_memory)
