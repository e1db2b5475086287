"""Which adapters of the front vLLM can serve, and the options that it needs for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coralx.config import Config
from coralx.config.metric_catalogue import CAUSAL

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM accepts for --max-lora-rank; it loads no adapter of a greater rank."""

DEFAULT_RANK = 16
"""Its --max-lora-rank unless set."""


def serving_of(config: Config, front: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Of the front's adapters those that vLLM `serves`, under `max_lora_rank`, and why it refuses
    the others: by genome. None without adapters, and for classification heads, which it does not
    load."""
    members = [member for member in front if member["adapter"] is not None]
    if config.model.task not in CAUSAL or not members:
        return None
    refused = {}
    for member in members:
        if member["genes"]["use_dora"]:
            refused[member["genome"]] = "DoRA"
        elif member["genes"]["rank"] > RANKS[-1]:
            refused[member["genome"]] = f"rank {member['genes']['rank']}"
    ranks = {m["genome"]: m["genes"]["rank"] for m in members if m["genome"] not in refused}
    largest = max(ranks.values(), default=None)
    enough = None if largest is None else next(rank for rank in RANKS if rank >= largest)
    return {"serves": list(ranks), "max_lora_rank": enough, "refuses": refused}


def serving_line(report: Mapping[str, Any]) -> str | None:
    """The same in one line; None where vLLM loads no such adapters."""
    serving = report["vllm"]
    if serving is None:
        return None
    refused = ", ".join(f"{genome} ({why})" for genome, why in serving["refuses"].items())
    if not serving["serves"]:
        return f"vLLM can serve none of them: {refused}."
    flags = "--enable-lora"
    if serving["max_lora_rank"] > DEFAULT_RANK:
        flags += f" --max-lora-rank {serving['max_lora_rank']}"
    return f"vLLM can serve them ({flags})" + (f", except {refused}." if refused else ".")
