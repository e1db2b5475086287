"""A genome's adapter beside others on one base: made, saved in PEFT's format, loaded again."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.utils import (
    ModulesToSaveWrapper,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.utils.constants import DUMMY_TARGET_MODULES
from safetensors.torch import load_file, save_file

from coralx.errors import NotDerivable
from coralx.records.genomes import ALL_LAYERS, Genes, Genome, Shape
from coralx.search.adapted_layers import adapted_modules
from coralx.search.module_groups import PREFIX
from coralx.system.files import write_folder
from coralx.training.base_model import Base
from coralx.training.cpu_layers import use_adapted_layers
from coralx.training.resize import Update, Weights, scaling

TEMPLATE = "default"
"""The first adapter, which wraps the base; never trained. Genomes are added beside it."""

ADAPTER = "adapter_model.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "trainer_state.json"


def lora_config(genes: Genes, shape: Shape, base: Base) -> LoraConfig:
    """PEFT's description of a genome at some rank and alpha; the base's head is trained in full and
    saved. Where nothing in the base is adapted, PEFT has a target name of its own for that; where
    only some layers are, their modules are named one by one."""
    targets = genes.target_modules or DUMMY_TARGET_MODULES
    if genes.adapts_base and genes.layers != ALL_LAYERS:
        targets = tuple(adapted_modules(base.linear, genes, base.layers))
    return LoraConfig(
        base_model_name_or_path=base.published_name,
        task_type=base.task_type,
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=genes.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=list(base.head) or None,
        use_rslora=genes.use_rslora,
        use_dora=genes.use_dora,
    )


def derived_config(update: Update, genes: Genes, base: Base) -> LoraConfig:
    """PEFT's description of an adapter whose modules are given one by one, as ranks may differ.

    Alpha over rank is the same everywhere, also where the source divided by the root of the rank:
    vLLM scales all modules alike.
    """
    ranks = {stem.removeprefix(PREFIX): rank for stem, rank in update.ranks.items()}
    others = {module: rank for module, rank in ranks.items() if rank != update.rank}
    return LoraConfig(
        base_model_name_or_path=base.published_name,
        task_type=base.task_type,
        r=update.rank,
        lora_alpha=update.scaling * update.rank,
        lora_dropout=genes.dropout,
        target_modules=list(ranks),
        rank_pattern=others,
        alpha_pattern={module: update.scaling * rank for module, rank in others.items()},
        modules_to_save=list(base.head) or None,
    )


def name_of(genome: Genome) -> str:
    """The adapter's name inside the model, where names may hold no dots and `TEMPLATE` is taken."""
    return f"genome-{genome.id}".replace(".", "_")


def add(model: PeftModel, genome: Genome, shape: Shape, base: Base) -> None:
    """A fresh adapter for `genome`, made active. Its weights depend on what the genome draws by and
    its rank alone; its head starts as the base's, which the run's seed fixes."""
    _add(model, genome, lora_config(genome.genes, shape, base))


def add_derived(model: PeftModel, genome: Genome, update: Update, base: Base) -> None:
    """The adapter of a derived genome, made active. Raises NotDerivable where PEFT builds another
    one of its description."""
    _add(model, genome, derived_config(update, genome.genes, base))
    built, wanted = weights(model, name_of(genome)), update.weights
    differing = [
        name
        for name in sorted({*built, *wanted})
        if name not in built or name not in wanted or built[name].shape != wanted[name].shape
    ]
    if differing:
        raise NotDerivable(f"PEFT cannot describe it: {differing[0]} is of another shape")
    put(model, name_of(genome), wanted)


def _add(model: PeftModel, genome: Genome, config: LoraConfig) -> None:
    torch.manual_seed(genome.draw("adapter"))
    model.add_adapter(name_of(genome), use_adapted_layers(config))
    model.set_adapter(name_of(genome))


def trainable(model: PeftModel) -> dict[str, torch.nn.Parameter]:
    """The active adapter's parameters by their full name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def read(checkpoint: Path) -> Update:
    """The update that a checkpoint holds, on the CPU."""
    saved = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
    return Update(load_file(checkpoint / ADAPTER), scaling(saved), int(saved["r"]))


def put(model: PeftModel, adapter: str, weights: Weights) -> None:
    """Put weights into the adapter of that name, which is of the same shape."""
    set_peft_model_state_dict(model, dict(weights), adapter_name=adapter)


def weights(model: PeftModel, adapter: str) -> dict[str, torch.Tensor]:
    """A copy of the adapter's weights on the CPU, by the names under which they are saved."""
    state = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()
    }


def scaling_of(model: PeftModel, adapter: str) -> float:
    """The factor s of the adapter of that name."""
    return scaling(model.peft_config[adapter].to_dict())


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, torch.nn.Parameter],
    adapter: str,
    checkpoint: Path,
    factor: float = 1.0,
) -> None:
    """Put a checkpoint's optimizer state into `optimizer`, parameter by parameter.

    `factor` is what B was multiplied by: its gradients shrink by as much. Moments of a parameter
    that grew are zero where it is new; one that shrank has another basis, and starts without.
    """
    saved = load_file(checkpoint / OPTIMIZER)
    for name, parameter in parameters.items():
        prefix = _neutral(name, adapter) + "|"
        state = {
            key.removeprefix(prefix): _damping(key, factor)
            * _placed(key, tensor, parameter, is_fused=optimizer.defaults["fused"])
            for key, tensor in saved.items()
            if key.startswith(prefix)
        }
        if state and _fits(state, parameter):
            # Set directly: load_state_dict goes by position, and parents may adapt other modules.
            optimizer.state[parameter] = {
                key: _padded(tensor, parameter) for key, tensor in state.items()
            }


def _fits(state: Mapping[str, torch.Tensor], parameter: torch.nn.Parameter) -> bool:
    """Whether no moment is larger than its parameter."""
    for tensor in state.values():
        # Not strict, as the step count has no dimensions.
        sizes = zip(tensor.shape, parameter.shape, strict=False)
        if any(saved > now for saved, now in sizes):
            return False
    return True


def _padded(tensor: torch.Tensor, parameter: torch.nn.Parameter) -> torch.Tensor:
    """A moment with zeros behind it, up to its parameter's shape; a step count as it is."""
    if tensor.ndim != parameter.ndim or tensor.shape == parameter.shape:
        return tensor
    padded = tensor.new_zeros(parameter.shape)
    padded[tuple(slice(size) for size in tensor.shape)] = tensor
    return padded


def _damping(key: str, factor: float) -> float:
    """What to multiply a moment by when B was multiplied by `factor`: its gradient shrinks by as
    much, and Adam's second moment is one of squares."""
    power = {"exp_avg": 1, "exp_avg_sq": 2}.get(key.rsplit("|", 1)[-1], 0)
    return float(factor**-power) if ".lora_B." in key else 1.0


def _placed(
    key: str, tensor: torch.Tensor, parameter: torch.nn.Parameter, *, is_fused: bool
) -> torch.Tensor:
    """Adam's moments live where the parameter does, its step count on the CPU unless one kernel
    does all the work."""
    stays = key.endswith("|step") and not is_fused
    return tensor if stays else tensor.to(parameter.device)


def save(
    checkpoint: Path,
    model: PeftModel,
    adapter: str,
    optimizer: torch.optim.Optimizer | None,
    state: Mapping[str, Any],
) -> None:
    """Write adapter, optimizer (None: training does not continue) and trainer state, all of them or
    none, with a manifest."""
    moments = _moments(model, adapter, optimizer) if optimizer else {}

    def fill(folder: Path) -> None:
        save_file(weights(model, adapter), folder / ADAPTER, metadata={"format": "pt"})
        (folder / "adapter_config.json").write_text(_config_json(model, adapter), encoding="utf-8")
        save_file(moments, folder / OPTIMIZER)
        text = json.dumps(state, indent=2, sort_keys=True, allow_nan=False) + "\n"
        (folder / STATE).write_text(text, encoding="utf-8")

    write_folder(checkpoint, fill)


def _moments(
    model: PeftModel, adapter: str, optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """The optimizer's state on the CPU, by the parameter's name, a bar, and the state's own."""
    names = {id(parameter): name for name, parameter in trainable(model).items()}
    moments = {}
    for parameter, state in optimizer.state.items():
        name = _neutral(names[id(parameter)], adapter)
        for key, value in state.items():
            moments[f"{name}|{key}"] = value.detach().cpu().contiguous()
    return moments


def costs(model: PeftModel, adapter: str, growth: Fraction) -> dict[str, float | None]:
    """`trainable_parameters` of the adapter of that name, which is active, and `adapter_bytes` as
    saved: those that it will have once its rank has grown `growth` times."""
    saved = weights(model, adapter)
    sizes = {name: _grown_size(name, tensor, growth) for name, tensor in saved.items()}
    size = sum(sizes[name] * tensor.element_size() for name, tensor in saved.items())
    trained = sum(_grown_size(name, p, growth) for name, p in trainable(model).items())
    return {"trainable_parameters": float(trained), "adapter_bytes": float(size)}


def _grown_size(name: str, tensor: torch.Tensor, growth: Fraction) -> int:
    """Elements of A or B are in proportion to the rank, those of heads and magnitudes are not."""
    has_rank = ".lora_A." in name or ".lora_B." in name
    return int(tensor.numel() * growth) if has_rank else tensor.numel()


def _config_json(model: PeftModel, adapter: str) -> str:
    """PEFT's own adapter_config.json, with sets sorted, so that equal adapters are equal files, and
    with the base's own names alone: beside its head as it is saved, PEFT lists heads that the base
    does not have, and among the targets what it has put into the head itself."""
    values = model.peft_config[adapter].to_dict()
    values["inference_mode"] = True
    if values["modules_to_save"] is not None:
        saved = _saved_modules(model, values["modules_to_save"])
        values["modules_to_save"] = saved or None
        if not isinstance(values["target_modules"], str):
            values["target_modules"] = {
                target for target in values["target_modules"] if not _is_inside(target, saved)
            }
    ordered = {k: sorted(v) if isinstance(v, set) else v for k, v in values.items()}
    return json.dumps(ordered, indent=2, sort_keys=True) + "\n"


def _saved_modules(model: PeftModel, names: Collection[str]) -> set[str]:
    """Those of the names that are of a module which is saved in full."""
    saved = set()
    for full, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            saved |= {name for name in names if f".{full}".endswith(f".{name}")}
    return saved


def _is_inside(target: str, modules: Collection[str]) -> bool:
    """Whether the target's full name leads through one of the modules."""
    return any(f".{module}." in f".{target}." for module in modules)


def _neutral(name: str, adapter: str) -> str:
    """A parameter's name without its adapter's, so that another genome can take it over."""
    return name.replace(f".{adapter}.", ".")
