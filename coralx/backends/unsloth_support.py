"""Which bases and LoRA settings Unsloth trains by its fused kernels, known without importing it."""

from __future__ import annotations

import json
from pathlib import Path

from coralx.config.gene_forms import ModuleChoices
from coralx.config.schema import Config
from coralx.data import builtin
from coralx.records.genomes import Genes

FUSED_MODEL_TYPES = frozenset({"gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3"})
"""Model types whose q, k, v and gate, up, down Unsloth trains by fused kernels (its release
2026.10.9)."""

FUSED_GROUPS = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj", "down_proj"))
"""Projections that share one fused kernel: an adapter on a part of a group cannot use it."""

WHOLE_GROUPS = ModuleChoices(
    choices=(
        ("q_proj", "k_proj", "v_proj", "o_proj"),
        ("gate_proj", "up_proj", "down_proj"),
        "all-linear",
    )
)
"""A search space of modules that leaves every group whole."""


def model_type(config: Config) -> str | None:
    """The base's `model_type`, such as llama; None where its config cannot be read."""
    name = str(config.model.base)
    if name.startswith("builtin:"):
        entry = builtin.MODELS.get(name.removeprefix("builtin:"))
        return entry.model_type if entry else None
    try:
        folder = Path(name)
        path = folder / "config.json" if folder.is_dir() else _from_hub(name)
        kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except Exception:  # the hub's client raises errors of many libraries; loading reports them
        return None
    return kind if isinstance(kind, str) else None


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download  # a third of a second, for hub ids alone

    return Path(hf_hub_download(name, "config.json", etag_timeout=5))


def unfused_remarks(genes: Genes) -> tuple[str, ...]:
    """Why Unsloth trains a genome, or a part of it, by PEFT's forward: a remark for each setting
    that its fused kernels do not have; none if they train all of it."""
    if genes.use_dora:
        return ("DoRA: trained by PEFT's forward, not by Unsloth's fused kernels",)
    if isinstance(genes.target_modules, str):  # all linear layers, so every group is whole
        return ()
    projections = {name.rsplit(".", 1)[-1] for name in genes.target_modules}
    remarks = []
    for group in FUSED_GROUPS:
        missing = [name for name in group if name not in projections]
        if 0 < len(missing) < len(group):
            remarks.append(
                f"an adapter on a part of {'+'.join(group)}, without {'+'.join(missing)}: trained "
                "by PEFT's forward, not by Unsloth's fused kernels"
            )
    return tuple(remarks)
