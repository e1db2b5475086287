"""The frozen base model: found, loaded once, and what can be adapted in it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os.path import isdir
from typing import Any

import torch
from peft import TaskType
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from coralx.backends.protocol import Say
from coralx.config.input_files import is_local, public_name
from coralx.config.schema import Config
from coralx.config.search_space import ModuleChoices
from coralx.data import builtin
from coralx.data import hub_errors as hub
from coralx.errors import ConfigError
from coralx.records.genomes import ALL_LINEAR
from coralx.rng import derive_seed
from coralx.text import did_you_mean
from coralx.training.gguf import expanded
from coralx.training.input_length import longest_input

MOST_LISTED = 12
"""Kinds of linear modules that a message names; some mixtures of experts have hundreds."""

OUTPUT_LAYERS = ("lm_head", "embed_out", "output", "cls", "score", "classifier")
"""What usually turns states into logits, in language models and classifiers."""

LINEAR = (torch.nn.Linear, Conv1D)
"""What PEFT can adapt: GPT-2's linear layers are of transformers' own kind."""


@dataclass(frozen=True)
class Base:
    """`head` names the modules that came without weights: they are trained and saved whole.

    `published_name` is what others know the same base by: a hub id, or the local folder's name.
    `fused_loss`: the model computes its loss without holding all logits at once. `notes` are
    remarks for the run's report. `padding` is the token that a classifier pads texts with (None: it
    names none).
    """

    published_name: str
    model: Any
    tokenizer: Any
    task_type: TaskType
    head: tuple[str, ...] = ()
    fused_loss: bool = False
    notes: tuple[str, ...] = ()
    padding: int | None = None


@dataclass(frozen=True)
class Source:
    """Where a config's base is read from: a folder or a hub id, and the name it has elsewhere."""

    path: str
    is_local: bool
    published_name: str
    notes: tuple[str, ...] = ()


def source_of(config: Config, say: Say) -> Source:
    """Find the base. Raises ConfigError for a folder that is not there."""
    name = str(config.model.base)
    if name.startswith("builtin:"):
        entry, path = builtin.find(name.removeprefix("builtin:"), builtin.MODELS, "model")
        if path is None:
            return Source(entry.hub, False, entry.hub)
        if path.suffix == ".gguf":
            path = expanded(path, entry, say)
        return Source(str(path), True, entry.hub, entry.notes)
    local = isdir(name)
    if not local and is_local(name):
        raise ConfigError("config", [f"model.base: no such folder: {name}"])
    return Source(name, local, public_name(name))


def reading(config: Config, source: Source) -> dict[str, bool]:
    """How transformers may read a base. Where it is told nothing about code that a base brings
    along, it asks on standard input, which in a worker belongs to the driver."""
    return {
        "local_files_only": source.is_local,
        "trust_remote_code": config.model.trust_remote_code,
    }


def loading_error(config: Config, source: Source, error: Exception) -> Exception:
    """What to raise where the base cannot be loaded: hub, file and format errors come in many
    classes."""
    name = str(config.model.base)
    met = None if source.is_local else hub.trouble(error, source.path, "model")
    what = met.what if met else hub.reason(error)
    if name.startswith("builtin:") and not source.is_local:
        name = name.removeprefix("builtin:")
        return builtin.missing(name, builtin.MODELS[name], what)
    hint = (
        met.way_out
        if met
        else (
            "Give a hub id, a folder that save_pretrained wrote, or a builtin: "
            f"{', '.join(f'builtin:{known}' for known in builtin.MODELS)}."
        )
    )
    if "custom code" in what and not config.model.trust_remote_code:
        hint = (
            "It can be read by Python files of its own alone. Look at them, and if you trust them "
            "to run on this machine with your rights: --set model.trust_remote_code=true"
        )
    elif "padding_idx" in what.lower():
        hint = (
            "Its config.json names a padding token that its embeddings have no row for: set "
            "pad_token_id there to a token that the base knows."
        )
    elif "safetensors" in what:
        hint = "CoralX reads no pickled weights: take a version of the model in safetensors."
    return ConfigError(
        "config",
        [f"model.base: {name} cannot be loaded for {config.model.task}: {what}"],
        hint,
    )


def load(
    config: Config, labels: Sequence[str], device: torch.device, dtype: torch.dtype, say: Say
) -> Base:
    """The base by transformers alone: with one logit a label, or as a causal language model.

    Raises ConfigError where it cannot be loaded or adapted.
    """
    source = source_of(config, say)
    quiet()
    classifies = config.model.task == "sequence-classification"
    torch.manual_seed(derive_seed(config.experiment.seed, "head"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.path, **reading(config, source))
        auto = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
        model, info = auto.from_pretrained(
            source.path,
            dtype=dtype,
            use_safetensors=True,  # other weights are pickled
            output_loading_info=True,
            **reading(config, source),
            **({"num_labels": len(labels), "ignore_mismatched_sizes": True} if classifies else {}),
            **_quantized(config, device, dtype),
        )
    except Exception as error:
        raise loading_error(config, source, error) from None
    if not classifies:
        give_padding(model, tokenizer)
    replaced = _replaced_head(config, source, model, info["mismatched_keys"])
    head = _modules_without_weights(model, [*info["missing_keys"], *replaced])
    if head and not classifies:
        raise loading_error(config, source, ValueError(f"it has no weights for {', '.join(head)}"))
    check(config, model, head)
    if config.runtime.quantization == "none":  # otherwise it was loaded where it is to be
        model = model.to(device)
    return Base(
        published_name=source.published_name,
        model=model.requires_grad_(False),
        tokenizer=tokenizer,
        task_type=TaskType.SEQ_CLS if classifies else TaskType.CAUSAL_LM,
        head=head,
        notes=(*source.notes, *_remarks_on(replaced, len(labels))),
        padding=_own_padding(model) if classifies else None,
    )


def _replaced_head(
    config: Config, source: Source, model: Any, mismatched: Iterable[tuple[str, Any, Any]]
) -> dict[str, int]:
    """The head's weights that the checkpoint has for another number of classes, and that number.

    Raises ConfigError where other weights have not the shape that the base's description says.
    """
    found = {name: int(shape[0]) for name, shape, _ in sorted(mismatched)}
    if other := [name for name in found if name.startswith(f"{model.base_model_prefix}.")]:
        reason = f"its weights have not the shapes of its config.json: {', '.join(other[:3])}"
        raise loading_error(config, source, ValueError(reason))
    return found


def _remarks_on(replaced: Mapping[str, int], classes: int) -> Iterable[str]:
    if replaced:
        had = next(iter(replaced.values()))
        yield (
            f"the base has a head for {had} classes, the data has {classes}: the head is trained "
            "anew (transformers loads the base beside it with ignore_mismatched_sizes=True)"
        )


def checkpoints_gradients(config: Config, device: torch.device) -> bool:
    """Whether activations are recomputed in the backward pass instead of being held."""
    wanted = config.runtime.gradient_checkpointing
    if wanted == "auto":
        return device.type == "cuda" and config.model.task != "sequence-classification"
    return wanted


def quiet() -> None:
    """No progress bars and no advice on standard error."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def check_quantization(config: Config, device: torch.device) -> None:
    """Raise ConfigError where weights cannot be stored in 4 or 8 bits."""
    bits = config.runtime.quantization
    if bits != "none" and device.type != "cuda":
        raise ConfigError(
            "config",
            [f"runtime.quantization: {bits} needs a CUDA GPU; this worker trains on {device.type}"],
            "Set runtime.quantization: none.",
        )


def _quantized(config: Config, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """How bitsandbytes is to store the weights; nothing without quantization."""
    bits = config.runtime.quantization
    if bits == "none":
        return {}
    quantization = BitsAndBytesConfig(
        load_in_4bit=bits == "4bit",
        load_in_8bit=bits == "8bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": quantization, "device_map": {"": device.index or 0}}


def give_padding(model: Any, tokenizer: Any) -> None:
    """Pad with the end of text where the tokenizer has no padding of its own."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id


def _own_padding(model: Any) -> int | None:
    """The padding token that the base's config names, if there is such a token.

    A classifier keeps it, whatever the tokenizer pads with: decoders read a text's class off the
    last token that is not this one, and so they do where nothing but transformers loads them.
    """
    described = model.config.get_text_config()
    named = getattr(described, "pad_token_id", None)
    vocabulary = getattr(described, "vocab_size", sys.maxsize)
    return named if named is not None and 0 <= named < vocabulary else None


def check(config: Config, model: Any, head: Sequence[str]) -> None:
    """Raise ConfigError where target modules or lengths do not fit the base."""
    _check_targets(config.search_space.target_modules, model, head)
    _check_length(config, model)


def require_causal(config: Config, model: Any, vocabulary: int) -> None:
    """Raise ConfigError where the base reads what it is to predict, as an encoder does: then the
    logits of a text's beginning change with its end."""
    vocabulary = min(vocabulary, len(model.get_input_embeddings().weight))
    tokens = torch.arange(8, device=model.device) % vocabulary
    other = tokens.clone()
    other[-1] = (other[-1] + vocabulary // 2) % vocabulary
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.stack([tokens, other])).logits[:, :-1].float()
    if (logits[0] - logits[1]).abs().max() > 0.02 * logits.std():
        raise ConfigError(
            "config",
            [
                f"model.base: {config.model.base} is no causal language model: it looks at tokens "
                "that are still to come"
            ],
            "Take a decoder, or model.task: sequence-classification.",
        )


def _modules_without_weights(model: Any, missing: Sequence[str]) -> tuple[str, ...]:
    """The outermost modules that the checkpoint has no weights for, such as `classifier`."""
    backbone = model.base_model_prefix
    found = set()
    for key in missing:
        parts = key.split(".")[:-1]
        depth = 2 if parts[0] == backbone else 1
        found.add(".".join(parts[:depth]))
    return tuple(sorted(found))


def linear_names(model: Any, head: Sequence[str]) -> list[str]:
    """Full names of the linear layers that LoRA can adapt: not the head, and not what turns a
    language model's states into logits."""
    output = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, LINEAR)
        and module is not output
        and not any(name == part or name.startswith(part + ".") for part in head)
    ]


def _check_targets(choices: ModuleChoices, model: Any, head: Sequence[str]) -> None:
    linear = linear_names(model, head)
    if not linear:
        raise ConfigError("config", ["model.base: it has no linear layer that LoRA could adapt"])
    leaves = list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in linear))
    more = len(leaves) - MOST_LISTED
    offered = ", ".join(leaves[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
    problems = [
        f"search_space.target_modules.choices.{place}: {_why_not(name, model, head, leaves)}; "
        f"LoRA can adapt {offered}, or {ALL_LINEAR}"
        for place, wanted in enumerate(choices.choices)
        for name in (() if wanted == ALL_LINEAR else wanted)
        if not any(_is_called(full, name) for full in linear)
    ]
    if problems:
        raise ConfigError("config", problems)


def _is_called(full: str, name: str) -> bool:
    """Whether a target module's name means the module of that full name, as PEFT sees it."""
    return full == name or full.endswith("." + name)


def _why_not(name: str, model: Any, head: Sequence[str], leaves: Sequence[str]) -> str:
    """Why LoRA cannot adapt the modules of a name."""
    named = {full: part for full, part in model.named_modules() if _is_called(full, name)}
    if not named and name.rpartition(".")[2] in OUTPUT_LAYERS:
        return (
            f"{name!r} names an output layer, and none is adapted: that of a language model is no "
            "part of a classifier, whose own head every adapter trains in full"
        )
    if not named:
        return f"the base has no linear module {name!r}{did_you_mean(name, leaves)}"
    if any(part is model.get_output_embeddings() for part in named.values()):
        return (
            f"{name!r} is the output layer, which is not adapted: many bases share it with their "
            f"input embeddings, and PEFT leaves it out of {ALL_LINEAR}, too"
        )
    if any(full == part or full.startswith(part + ".") for full in named for part in head):
        return f"{name!r} belongs to the classification head, which every adapter trains in full"
    return f"{name!r} is no linear layer but {type(next(iter(named.values()))).__name__}"


def _check_length(config: Config, model: Any) -> None:
    limit = longest_input(model)
    if limit is not None and config.model.max_length > limit:
        raise ConfigError(
            "config",
            [
                f"model.max_length: {config.model.max_length} is more than the base reads "
                f"({limit} tokens)"
            ],
            f"Set model.max_length: {limit}, or less.",
        )
