"""Which bases and LoRA settings Unsloth's fused kernels train; nothing here imports Unsloth."""

from __future__ import annotations

import json
from pathlib import Path

from coralx.config.schema import Config
from coralx.data import builtin
from coralx.records.genomes import Genes

FUSED = frozenset({"gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3"})
"""Model types whose q, k, v and gate, up, down Unsloth trains by fused kernels (its release
2026.10.9)."""


def model_type(config: Config) -> str | None:
    """The base's `model_type`, such as llama; None where its description cannot be read."""
    name = str(config.model.base)
    if name.startswith("builtin:"):
        entry = builtin.MODELS.get(name.removeprefix("builtin:"))
        return entry.model_type if entry else None
    try:
        folder = Path(name)
        path = folder / "config.json" if folder.is_dir() else _from_hub(name)
        found = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except Exception:  # the hub's client raises errors of many libraries; loading will tell
        return None
    return found if isinstance(found, str) else None


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download  # a third of a second, for hub ids alone

    return Path(hf_hub_download(name, "config.json", etag_timeout=5))


FUSED_GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj", "down_proj"))
"""Projections that share one fused kernel: an adapter on a part of a group cannot use it."""


def unfused(genes: Genes) -> tuple[str, ...]:
    """Which of a genome's settings make Unsloth fall back to PEFT's forward, and where."""
    if genes.use_dora:
        return ("DoRA: trained by PEFT's forward, not by Unsloth's fused kernels",)
    if isinstance(genes.target_modules, str):
        return ()
    leaves = {name.rsplit(".", 1)[-1] for name in genes.target_modules}
    found = []
    for group in FUSED_GROUPS:
        missing = [name for name in group if name not in leaves]
        if 0 < len(missing) < len(group):
            found.append(
                f"an adapter on a part of {'+'.join(group)}, without {'+'.join(missing)}: trained "
                "by PEFT's forward, not by Unsloth's fused kernels"
            )
    return tuple(found)
