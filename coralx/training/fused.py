"""Which LoRA settings Unsloth's fused kernels can train; nothing here imports Unsloth."""

from __future__ import annotations

from coralx.genomes import Genes

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
