"""The frozen base model, loaded once for all jobs of a worker."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import TaskType
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from coralx.backends.protocol import Say
from coralx.config.schema import Config
from coralx.rng import derive_seed
from coralx.training.adaptable_layers import check
from coralx.training.base_source import BaseSource, loading_error, loading_options, locate_base
from coralx.training.quantization import keep_differentiable, quantization_options


@dataclass(frozen=True)
class Base:
    """A loaded base, its weights frozen."""

    published_name: str
    """What others know the same base by: a hub id, or the local folder's name."""
    model: Any
    tokenizer: Any
    task_type: TaskType
    head: tuple[str, ...] = ()
    """The modules that came without weights: they are trained and saved in full."""
    fused_loss: bool = False
    """The model computes its loss without holding all logits at once."""
    fused_kernels: bool = False
    """Its layers run on kernels that hold fewer activations than PEFT's."""
    notes: tuple[str, ...] = ()
    """Remarks for the run's report."""
    padding: int | None = None
    """The token that a classifier pads texts with; None where its config names none."""
    linear: tuple[str, ...] = ()
    """The full names of the linear modules that LoRA can adapt, before any adapter wraps them."""
    layers: int = 0
    """How many there are."""


def load(
    config: Config, labels: Sequence[str], device: torch.device, dtype: torch.dtype, say: Say
) -> Base:
    """The base by transformers alone: with one logit a label, or as a causal language model.

    Raises ConfigError where it cannot be loaded or adapted.
    """
    source = locate_base(config, say)
    quiet()
    classifies = config.model.task == "sequence-classification"
    torch.manual_seed(derive_seed(config.experiment.seed, "head"))
    try:
        tokenizer, model, report = _read(config, source, len(labels), device, dtype)
    except Exception as error:
        raise loading_error(config, source, error) from None
    if not classifies:
        give_padding(model, tokenizer)
    replaced = replaced_head(config, source, model, report["mismatched_keys"])
    head = modules_without_weights(model, [*report["missing_keys"], *replaced])
    if head and not classifies:
        raise loading_error(config, source, ValueError(f"it has no weights for {', '.join(head)}"))
    check(config, model, head)
    if not getattr(model, "is_quantized", False):  # those were loaded where they stay
        model = model.to(device)
    keep_differentiable(model)
    return Base(
        published_name=source.published_name,
        model=model.requires_grad_(False),
        tokenizer=tokenizer,
        task_type=TaskType.SEQ_CLS if classifies else TaskType.CAUSAL_LM,
        head=head,
        notes=(*source.notes, *remarks_on_head(replaced, len(labels))),
        padding=own_padding(model.config) if classifies else None,
    )


def _read(
    config: Config, source: BaseSource, classes: int, device: torch.device, dtype: torch.dtype
) -> tuple[Any, Any, dict[str, Any]]:
    """Tokenizer and model, and transformers' report of keys that are missing or mismatched."""
    options = loading_options(config, source)
    tokenizer = AutoTokenizer.from_pretrained(source.path, **options)
    auto, extra = AutoModelForCausalLM, _placement(config, device)
    if config.model.task == "sequence-classification":
        # A head that has no weights is drawn, on a GPU otherwise than on the CPU: so it is loaded
        # there. One for other classes is made anew instead of refused; see replaced_head.
        auto = AutoModelForSequenceClassification
        extra = {"num_labels": classes, "ignore_mismatched_sizes": True}
    model, report = auto.from_pretrained(
        source.path,
        dtype=dtype,
        use_safetensors=True,  # other weights are pickled, and unpickling runs code
        output_loading_info=True,
        **options,
        **extra,
        **quantization_options(config, dtype),
    )
    return tokenizer, model, report


def _placement(config: Config, device: torch.device) -> dict[str, Any]:
    """Where transformers puts weights as it reads them. A GPU gets them one by one, so that the
    host never holds the whole base; on a CPU they stay mapped from the file."""
    if device.type == "cuda":
        return {"device_map": {"": device.index or 0}}
    if config.runtime.quantization != "none":  # it would look for accelerators of its own
        return {"device_map": {"": device.type}}
    return {}


def replaced_head(
    config: Config, source: BaseSource, model: Any, mismatched: Iterable[tuple[str, Any, Any]]
) -> dict[str, int]:
    """The head's weights that the checkpoint has for another number of classes, and that number.

    Raises ConfigError where weights of the backbone have other shapes than config.json says.
    """
    classes = {name: int(shape[0]) for name, shape, _ in sorted(mismatched)}
    if other := [name for name in classes if name.startswith(f"{model.base_model_prefix}.")]:
        reason = f"its weights differ in shape from its config.json: {', '.join(other[:3])}"
        raise loading_error(config, source, ValueError(reason))
    return classes


def remarks_on_head(replaced: Mapping[str, int], classes: int) -> Iterable[str]:
    """What the report says of a head that is made anew."""
    if replaced:
        before = next(iter(replaced.values()))
        yield (
            f"the base has a head for {before} classes, the data has {classes}: the head is "
            "trained from scratch (to load base and adapter with transformers, pass "
            "ignore_mismatched_sizes=True)"
        )


def modules_without_weights(model: Any, missing: Sequence[str]) -> tuple[str, ...]:
    """The outermost modules that the checkpoint has no weights for, such as `classifier`."""
    backbone = model.base_model_prefix
    modules = set()
    for key in missing:
        parts = key.split(".")[:-1]
        # In the backbone, whose own name is no module to train, one level further down.
        depth = 2 if parts[0] == backbone else 1
        modules.add(".".join(parts[:depth]))
    return tuple(sorted(modules))


def quiet() -> None:
    """No progress bars and no advice on standard error."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def give_padding(model: Any, tokenizer: Any) -> None:
    """Pad with the end of text where the tokenizer has no padding of its own."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id


def own_padding(config: Any) -> int | None:
    """The padding token that the base's `config` names, if there is such a token.

    A classifier keeps it, whatever the tokenizer pads with: decoders read a text's class off the
    last token that is not this one, and so they do where nothing but transformers loads them.
    """
    described = config.get_text_config()
    named = getattr(described, "pad_token_id", None)
    vocabulary = getattr(described, "vocab_size", sys.maxsize)
    return named if named is not None and 0 <= named < vocabulary else None
