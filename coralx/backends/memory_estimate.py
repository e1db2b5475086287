"""How much memory training a genome takes, from the sizes of its base alone.

`least_bytes` is certain: what must be there at once. `likely_bytes` adds the activations of one
batch at full length: what autograd keeps of a block of transformers' Llama and of PEFT's layers in
it, counted tensor by tensor as Korthikanti et al. 2022, "Reducing Activation Recomputation in
Large Transformer Models", section 4, count those of Megatron. Neither counts the few hundred MiB
that a CUDA context takes, or memory lost to fragmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from coralx.backends.unsloth_support import unfused_remarks
from coralx.records.genomes import ALL_LINEAR, Genes, Genome
from coralx.records.run_facts import Footprint
from coralx.search.adapted_layers import adapted_modules, lowest_layer
from coralx.search.space import Continuous, Gene, Integer, Space
from coralx.text import gib

BYTES_PER_TRAINED = 16
"""Weight, gradient and Adam's two moments, each in fp32."""

LOSS_BYTES = 8
"""Bytes that each logit takes besides its own: its copy and its gradient, both in fp32."""

SHORTEST_OFFLOADED = 512
"""Layer inputs of shorter texts stay on the GPU where Unsloth recomputes activations: by its own
figures, moving them to the host and back takes longer than it is worth below 384 to 512 tokens."""

SMALLEST_OFFLOADED = 2 << 20
"""Bytes of a layer's input that Unsloth leaves on the GPU."""

SIZING = ("rank", "batch_size", "target_modules", "use_dora", "dropout", "layers")
"""The genes that memory depends on."""


def adapter_parameters(footprint: Footprint, genes: Genes) -> int:
    """Parameters that a genome trains: r (in + out) for each adapted layer, with DoRA `out` more,
    and the head."""
    parameters = footprint.head_parameters
    for inputs, outputs in _adapted(footprint, genes):
        parameters += genes.rank * (inputs + outputs) + (outputs if genes.use_dora else 0)
    return parameters


def _adapted(footprint: Footprint, genes: Genes) -> list[tuple[int, int]]:
    """Inputs and outputs of the modules that have an adapter."""
    names = [name for name, _, _ in footprint.linear]
    adapted = set(adapted_modules(names, genes, footprint.layers))
    return [(inputs, outputs) for name, inputs, outputs in footprint.linear if name in adapted]


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
    return least_bytes(footprint, genes) + tokens * activation_bytes(footprint, genes) + logits


def extremes(space: Space, footprint: Footprint, max_length: int) -> tuple[Genes, Genes]:
    """The genes of the search space with as little and as much as there may be of what takes
    memory; among equals, those that name their modules come before all layers."""
    # By PEFT's forward: what is too small for Unsloth's kernels takes more than what is larger.
    footprint = replace(footprint, fused=False)

    def size(genes: Genes) -> tuple[int, bool]:
        everywhere = genes.target_modules == ALL_LINEAR
        return likely_bytes(footprint, genes, max_length), everywhere

    by_size = sorted(corners(space), key=size)
    return by_size[0], by_size[-1]


def most_bytes(space: Space, footprint: Footprint, max_length: int) -> int:
    """What any genome of the search space takes at most, by estimate."""
    return max(likely_bytes(footprint, genes, max_length) for genes in corners(space))


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


def activation_bytes(footprint: Footprint, genes: Genes) -> int:
    """Bytes of activations held for each token; v a value, h wide, f the width inside the MLP.
    Nothing is held of the layers below the lowest that is adapted: no gradient goes there.

    With checkpointing it is v h for each layer's input, and the rest for one layer at a time, while
    it is computed again.
    """
    held = _base_activations(footprint, genes) + _adapter_activations(footprint, genes)
    if footprint.checkpointing:
        # Its way of asking for gradients leads them down to the embeddings.
        inputs = footprint.activation_bytes * footprint.hidden_size * footprint.layers
        return inputs + held // max(1, _trained_layers(footprint, genes))
    return held


def _trained_layers(footprint: Footprint, genes: Genes) -> int:
    """How many layers gradients go through."""
    return footprint.layers - lowest_layer(genes.layers, footprint.layers)


def _base_activations(footprint: Footprint, genes: Genes) -> int:
    """Of the base's own: each layer holds its two norms' inputs in fp32 (2 h), queries, keys,
    values and what attention makes of them (4 h), and of a gated MLP gate, activation and up (3 f).
    Attention scores are not held, as attention is fused. Of a base that is held in fp32, what runs
    between the projections stays in fp32 under autocast, too.

    Unsloth's kernels hold the norms' inputs and outputs in v (4 h), and gate and up alone (2 f).
    """
    in_fp32 = footprint.base_bytes >= 4 * footprint.base_parameters
    value = 4 if in_fp32 else footprint.activation_bytes
    hidden, inner = footprint.hidden_size, footprint.intermediate_size
    layers = _trained_layers(footprint, genes)
    if _is_fused(footprint, genes):
        return layers * value * (8 * hidden + 2 * inner)
    return layers * (4 * 2 * hidden + value * (4 * hidden + 3 * inner))


def _adapter_activations(footprint: Footprint, genes: Genes) -> int:
    """Of the adapted layers: PEFT holds a copy of each one's input, with dropout a byte a value for
    what is dropped, with DoRA both outputs and again two copies of the input. Unsloth's kernels
    need but what is dropped."""
    value, held = footprint.activation_bytes, 0
    for inputs, outputs in _adapted(footprint, genes):
        held += inputs if genes.dropout > 0 else 0
        if not _is_fused(footprint, genes):
            held += value * inputs
        if genes.use_dora:
            held += 2 * value * (inputs + outputs)
    return held


def _is_fused(footprint: Footprint, genes: Genes) -> bool:
    return footprint.fused and not unfused_remarks(genes)


def host_pool_bytes(footprint: Footprint, genes: Genes, max_length: int, longest_text: int) -> int:
    """The host memory in which Unsloth keeps the inputs of checkpointed layers for one batch; 0
    where it keeps them on the GPU, as it does those of short texts and small batches. Rows have
    `max_length` tokens; `longest_text` is `Config.longest_text`, by which Unsloth is told."""
    layer = footprint.activation_bytes * footprint.hidden_size * genes.batch_size * max_length
    offloads = footprint.fused and footprint.checkpointing
    if not offloads or longest_text < SHORTEST_OFFLOADED or layer <= SMALLEST_OFFLOADED:
        return 0
    # Pinned memory comes in powers of two.
    return footprint.layers * (1 << (layer - 1).bit_length())


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
        f"gradients and optimizer {gib(adapter_bytes(footprint, genes))}) and {_room(footprint)}; "
        f"smaller ranks, fewer target_modules{_fewer(footprint)} or runtime.quantization: 4bit "
        "need less"
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
        f"and {_room(footprint)}; a smaller batch_size or model.max_length{_fewer(footprint)}, "
        "runtime.gradient_checkpointing or runtime.quantization: 4bit need less",
    )


def _room(footprint: Footprint) -> str:
    """What a worker may use of the device, as part of a sentence."""
    if footprint.sharing == 1:
        return f"the device has {gib(footprint.device_bytes)}"
    return f"each of {footprint.sharing} workers has {gib(footprint.device_bytes)} of the device"


def _fewer(footprint: Footprint) -> str:
    return ", fewer workers a GPU" if footprint.sharing > 1 else ""
