"""Dropout on a CPU: a base model's own, also within its attention.

torch draws each mask from MKL's Bernoulli generator, which on AMD's processors takes a fifth to a
quarter of a training step; here it is cut from the bits of torch's own generator. Its attention
with dropout besides is one that is made for being right on every device, not for speed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.overrides import handle_torch_function, has_torch_function_unary
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "coralx_cpu"
"""Of the attention, in transformers' registry."""

LEVELS = 1 << 16
"""A value is dropped by 16 random bits: its probability is right to within half of 1 / 65,536."""


def install(model: Any) -> None:
    """Have the dropout of `model` computed so from now on, and that of its attention where it goes
    by transformers' interface."""
    for module in model.modules():
        if type(module) is torch.nn.Dropout:
            module.__class__ = QuickDropout
    is_known = getattr(model.config, "_attn_implementation", None) == "sdpa"
    # Where attention drops nothing, torch's own it is, and some bases look for its very name.
    if not is_known or not _drops_attention(model.config):
        return
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def _drops_attention(config: Any) -> bool:
    """Whether a base's config has a rate of dropout within attention, by whatever name."""
    values = config.get_text_config().to_dict()
    return any(
        isinstance(value, float) and value > 0.0
        for name, value in values.items()
        if name.startswith("att") and "drop" in name
    )


class QuickDropout(torch.nn.Dropout):
    """Dropout whose mask is drawn quickly."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return dropped(x, self.p) if self.training else x


def dropped(x: torch.Tensor, rate: float) -> torch.Tensor:
    """`x` with so many of its values zero, the others scaled to keep the mean."""
    if has_torch_function_unary(x):  # packs have each genome's rows drawn apart
        result: torch.Tensor = handle_torch_function(dropped, (x,), x, rate)
        return result
    if rate <= 0.0 or x.device.type != "cpu" or not x.is_floating_point():
        return torch.nn.functional.dropout(x, rate)
    if rate >= 1.0:
        return x * 0.0
    return x * kept(x.shape, rate, x.dtype).div_(1.0 - rate)


def kept(shape: Sequence[int], rate: float, dtype: torch.dtype) -> torch.Tensor:
    """1 where a value stays and 0 where it is dropped; drawn from torch's generator for the CPU."""
    values = math.prod(shape)
    words = torch.empty(-(-values // 4), dtype=torch.int64).random_(-(1 << 63), None)
    bits = words.view(torch.int16)[:values]
    least = round(rate * LEVELS) - LEVELS // 2
    mask = torch.empty(values, dtype=dtype)
    return torch.ge(bits, least, out=mask).view(*shape)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of shape (rows, tokens, heads, width), from queries, keys and values of shape
    (rows, heads, tokens, width). Without dropout it is torch's own."""
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    plain = attention_mask is not None or not causal
    if dropout == 0.0 or not plain or kwargs.get("position_bias") is not None:
        output: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            **kwargs,
        )
        return output
    groups = getattr(module, "num_key_value_groups", 1)
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query * scale) @ key.transpose(-1, -2)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    shares = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    mixed = dropped(shares, dropout) @ value
    return mixed.transpose(1, 2).contiguous(), None
