"""Of which type a base is, which LoRA settings Unsloth trains by its fused kernels, and why it
cannot be imported. The types that it has kernels for stand in coralx/backends/unsloth_models.py."""

from __future__ import annotations

import json
from pathlib import Path

from coralx.config.gene_forms import ModuleChoices
from coralx.config.schema import Config
from coralx.data import builtin
from coralx.errors import SetupError
from coralx.records.genomes import Genes
from coralx.system.environment import INSTALL_UNSLOTH

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
    """The base's `model_type`, such as llama; None where its config cannot be read. One on the hub
    is looked up there."""
    name = config.model.base
    if name is None or name.startswith("builtin:") or Path(name).is_dir():
        return local_model_type(config)
    try:
        return _type_in(_from_hub(name))
    except Exception:  # the hub's client raises errors of many libraries; loading reports them
        return None


def local_model_type(config: Config) -> str | None:
    """The same, of a builtin or a local folder alone: nothing is asked of the hub."""
    name = str(config.model.base)
    if name.startswith("builtin:"):
        entry = builtin.MODELS.get(name.removeprefix("builtin:"))
        return entry.model_type if entry else None
    try:
        return _type_in(Path(name) / "config.json")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _type_in(path: Path) -> str | None:
    kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    return kind if isinstance(kind, str) else None


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download  # a third of a second, for hub ids alone

    return Path(hf_hub_download(name, "config.json", etag_timeout=5))


def unimportable(error: Exception) -> SetupError:
    """What to raise where importing Unsloth fails.

    It raises ImportError for what is not installed, NotImplementedError where it finds no device,
    RuntimeError where torch contradicts itself about one; its patches of other libraries, whatever
    those raise that it was not written for.
    """
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ImportError):
        return SetupError(
            f"Unsloth cannot be imported: {said}",
            f"{INSTALL_UNSLOTH}; or train with --backend peft.",
        )
    if isinstance(error, NotImplementedError) or "accelerator" in said:
        return SetupError(
            f"Unsloth finds no device to train on: {said}",
            "`coralx doctor` tells whether the driver and torch's build fit each other; or train "
            "with --backend peft.",
        )
    return SetupError(
        f"Unsloth cannot be imported: {type(error).__name__}: {said}",
        "Install the versions that CoralX was tested with (`coralx doctor` names those that "
        "differ), or train with --backend peft.",
    )


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
