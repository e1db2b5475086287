"""How long a text a base can read."""

from __future__ import annotations

from typing import Any

import torch


def longest_input(model: Any) -> int | None:
    """How many tokens the base reads at once; None where it does not say.

    Where the table of positions has a row for padding (RoBERTa, XLM-R, MPNet, Longformer and
    their kin), a text's positions begin behind that row, so as many fewer are left.
    """
    stated = getattr(model.config, "max_position_embeddings", None)
    limits = [stated] if isinstance(stated, int) and stated > 0 else []
    limits += [
        module.num_embeddings - module.padding_idx - 1
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding)
        and module.padding_idx is not None
        and "position" in name.rsplit(".", 1)[-1]
    ]
    return min(limits, default=None)
