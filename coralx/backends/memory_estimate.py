"""How much memory training a genome takes, from the sizes of its base alone.

`least_bytes` is certain: what must be there at once. `likely_bytes` adds the activations of one
batch at full length, by the count of Korthikanti et al. 2022, "Reducing Activation Recomputation in
Large Transformer Models", section 4. Neither counts the few hundred MiB that a CUDA context takes,
or memory lost to fragmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from coralx.records.genomes import ALL_LINEAR, Genes, Genome
from coralx.records.run_facts import Footprint
from coralx.search.space import Continuous, Gene, Integer, Space
from coralx.text import gib

BYTES_PER_TRAINED = 16
"""Weight, gradient and Adam's two moments, each in fp32."""

LOSS_BYTES = 8
"""Bytes that each logit takes besides its own: its copy and its gradient, both in fp32."""

SIZING = ("rank", "batch_size", "target_modules", "use_dora")
"""The genes that memory depends on."""


def adapter_parameters(footprint: Footprint, genes: Genes) -> int:
    """Parameters that a genome trains: r (in + out) for each adapted layer, with DoRA `out` more,
    and the head."""
    parameters = footprint.head_parameters
    for name, inputs, outputs in footprint.linear:
        if _is_adapted(name, genes.target_modules):
            parameters += genes.rank * (inputs + outputs) + (outputs if genes.use_dora else 0)
    return parameters


def _is_adapted(name: str, target_modules: str | Sequence[str]) -> bool:
    """Whether a layer of this dotted name has an adapter, as PEFT matches target modules: by whole
    parts at the name's end."""
    if target_modules == ALL_LINEAR:
        return True
    return any(name == suffix or name.endswith("." + suffix) for suffix in target_modules)


def adapter_bytes(footprint: Footprint, genes: Genes) -> int:
    """A genome's weights, gradients and optimizer state."""
    return BYTES_PER_TRAINED * adapter_parameters(footprint, genes)


def least_bytes(footprint: Footprint, genes: Genes) -> int:
    """What training a genome cannot do without: the base's weights and all of the adapter's."""
    return footprint.base_bytes + adapter_bytes(footprint, genes)


def likely_bytes(footprint: Footprint, genes: Genes, max_length: int) -> int:
    """`least_bytes`, the activations of one batch whose rows are all `max_length` long, and its
    logits, where they are held."""
    tokens = genes.batch_size * max_length
    logits = tokens * footprint.logits_per_token * (footprint.activation_bytes + LOSS_BYTES)
    return least_bytes(footprint, genes) + tokens * activation_bytes(footprint) + logits


def extremes(space: Space, footprint: Footprint, max_length: int) -> tuple[Genes, Genes]:
    """The genes of the search space that take the least and the most memory; among equals, those
    that name their modules come before all layers."""

    def size(genes: Genes) -> tuple[int, bool]:
        everywhere = genes.target_modules == ALL_LINEAR
        return likely_bytes(footprint, genes, max_length), everywhere

    by_size = sorted(corners(space), key=size)
    return by_size[0], by_size[-1]


def corners(space: Space) -> list[Genes]:
    """Genes of the search space among which are those of the least and the greatest size: memory
    grows with every numeric gene, so only their ends matter."""
    options = {name: _ends(space.genes[name]) for name in SIZING if name in space.genes}
    return [
        space.build(dict(zip(options, values, strict=True)))
        for values in product(*options.values())
    ]


def lowest_and_highest(gene: Gene) -> tuple[Any, Any]:
    """A gene's two ends, of a switch False before True."""
    return min(_ends(gene)), max(_ends(gene))


def _ends(gene: Gene) -> Sequence[Any]:
    """A gene's two ends, or all its choices."""
    return (gene.low, gene.high) if isinstance(gene, Continuous | Integer) else gene.values


def activation_bytes(footprint: Footprint) -> int:
    """Bytes of activations held for each token, v a value, h wide, f the width inside the MLP.

    A layer holds v (8 h + 4 f): the inputs of its two norms (2 h), of the projections to queries,
    keys and values (h), those three (3 h), the output projection's input (h), the MLP's input (h),
    and of a gated MLP gate, up, the activation and the product (4 f). That is the paper's count
    (its MLP has no gate: 2 f, f = 4 h) without dropout masks, and without the attention
    scores, 5 a s per token, which fused attention does not hold. With checkpointing it is v h for
    each layer's input, and the rest for one layer at a time, while it is computed again.
    """
    layer = 8 * footprint.hidden_size + 4 * footprint.intermediate_size
    if footprint.checkpointing:
        return footprint.activation_bytes * (footprint.layers * footprint.hidden_size + layer)
    return footprint.activation_bytes * footprint.layers * layer


def why_too_large(footprint: Footprint | None, genes: Genes) -> str | None:
    """Why a genome cannot be trained on the device at all; None if it may be, or if its needs are
    not known."""
    if footprint is None or footprint.device_bytes == 0:
        return None
    needed = least_bytes(footprint, genes)
    if needed <= footprint.device_bytes:
        return None
    return (
        f"it needs at least {gib(needed)} (base {gib(footprint.base_bytes)}, adapter with "
        f"gradients and optimizer {gib(adapter_bytes(footprint, genes))}) and the device has "
        f"{gib(footprint.device_bytes)}; smaller ranks, fewer target_modules or "
        "runtime.quantization: 4bit need less"
    )


def memory_warnings(
    footprint: Footprint | None, genomes: Sequence[Genome], max_length: int
) -> tuple[str, ...]:
    """A warning about genomes that the device can hold, but likely not with a full batch."""
    if footprint is None or footprint.device_bytes == 0:
        return ()
    over: dict[str, int] = {}
    for genome in genomes:
        needed = likely_bytes(footprint, genome.genes, max_length)
        if needed > footprint.device_bytes and why_too_large(footprint, genome.genes) is None:
            over[genome.id] = needed
    if not over:
        return ()
    return (
        f"{', '.join(over)} may run out of memory: up to {gib(max(over.values()))} by estimate, "
        f"and the device has {gib(footprint.device_bytes)}; a smaller batch_size or "
        "model.max_length, runtime.gradient_checkpointing or runtime.quantization: 4bit need less",
    )
