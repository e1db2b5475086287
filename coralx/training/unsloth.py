"""The Unsloth backend: language models on one GPU with fused kernels, or on its own CPU backend.

Unsloth replaces parts of transformers and PEFT for the whole process, so nothing else is trained
in a worker that runs this. It must be imported before them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from coralx.backends.unsloth_support import FUSED_GROUPS, unfused_remarks, unimportable
from coralx.system.files import cache_folder

_OWN_CACHE = cache_folder() / "unsloth" / os.environ.get("CUDA_VISIBLE_DEVICES", "any")
os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(_OWN_CACHE))  # else the working folder
os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")  # else it asks the network
# Compiled layers are compiled anew for each adapter and then fall back, with other roundings and
# other draws of dropout: a resumed stage would not equal one that was never cut.
os.environ.setdefault("UNSLOTH_BLOCK_COMPILE", "0")
# Else layer inputs in float32 are rounded to bf16 where they are offloaded. There are none but
# where the base is held in float32, and whoever asks for that wants it.
os.environ.setdefault("UNSLOTH_OFFLOAD_FP32", "exact")

try:
    from unsloth import FastLanguageModel
    from unsloth_zoo.gradient_checkpointing import (
        patch_unsloth_smart_gradient_checkpointing,
        unpatch_unsloth_smart_gradient_checkpointing,
    )
except Exception as error:  # whatever its patches of other libraries meet, besides its own
    raise unimportable(error) from None

import torch
from peft import PeftModel, TaskType
from transformers import AutoConfig

from coralx.backends.choice import require_compatible, require_decoder
from coralx.backends.memory_estimate import SHORTEST_OFFLOADED
from coralx.backends.protocol import Say
from coralx.backends.unsloth_models import fused_types
from coralx.config.metric_catalogue import CAUSAL
from coralx.config.schema import Config
from coralx.errors import ConfigError
from coralx.records.genomes import Genes
from coralx.training.adaptable_layers import check, linear_names
from coralx.training.adapter_backend import AdapterBackend
from coralx.training.base_model import Base, give_padding, quiet
from coralx.training.base_source import BaseSource, loading_error, loading_options, locate_base
from coralx.training.unsloth_classifier import HEADS, complete, loading_report


class UnslothBackend(AdapterBackend):
    """Unsloth's FastLanguageModel. `default` wraps all linear layers, so that the fused kernels are
    installed on all of them; genomes are plain PEFT adapters beside it."""

    name = "unsloth"

    def load(
        self,
        config: Config,
        labels: Sequence[str],
        device: torch.device,
        dtype: torch.dtype,
        say: Say,
    ) -> Base:
        require_compatible(config, self.name)
        source = locate_base(config, say)
        quiet()
        self._on_gpu = device.type == "cuda"
        classifies = config.model.task not in CAUSAL
        try:
            described = AutoConfig.from_pretrained(source.path, **loading_options(config, source))
            if classifies:
                self._require_heads(config, described.model_type)
            with loading_report() as report:
                model, tokenizer = self._read(config, source, described, len(labels), device, dtype)
        except Exception as error:
            raise unloadable(config, source, error) from None
        in_half = self._on_gpu and dtype != torch.float32
        self._is_fused = in_half and not _is_generic()
        base = Base(
            published_name=source.published_name,
            model=model.requires_grad_(False),
            tokenizer=tokenizer,
            task_type=TaskType.CAUSAL_LM,
            fused_loss=in_half,
            fused_kernels=self._is_fused,
            notes=(*source.notes, *self._remarks(config, model, dtype)),
        )
        if classifies:
            base = complete(base, config, source, described, report, len(labels))
        else:
            give_padding(model, tokenizer)
        check(config, model, base.head)
        return base

    def _require_heads(self, config: Config, kind: str) -> None:
        """Raise ConfigError where no classifier can be made of the base."""
        require_decoder(config, kind)
        if not self._on_gpu:
            raise ConfigError(
                "config",
                [
                    "runtime.backend: unsloth classifies sequences on a GPU alone; this worker has "
                    "none, and Unsloth's CPU backend loads no classification heads"
                ],
                "Set runtime.backend: peft (or auto).",
            )

    def _read(
        self,
        config: Config,
        source: BaseSource,
        described: Any,
        classes: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> tuple[Any, Any]:
        """Model and tokenizer, as Unsloth loads them."""
        self._max_length = _context(described, config.longest_text)
        extra, bits = dict[str, Any](), config.runtime.quantization
        if config.model.task not in CAUSAL:
            # A head for other classes is made anew instead of refused.
            extra = {"num_labels": classes, "ignore_mismatched_sizes": True}
        is_written = described.model_type not in fused_types().names or bits == "8bit"
        if is_written and not config.runtime.block_compile:
            # Unsloth writes code of its own for such a base. It is not to be compiled, as above.
            os.environ.setdefault("UNSLOTH_COMPILE_DISABLE", "partial")
        model, tokenizer = FastLanguageModel.from_pretrained(
            model_name=source.path,
            max_seq_length=self._max_length,
            dtype=dtype,
            load_in_4bit=bits == "4bit",
            load_in_8bit=bits == "8bit",
            use_exact_model_name=True,  # not another upload of the same model
            device_map={"": device.index or 0} if self._on_gpu else None,
            use_gradient_checkpointing=False,  # see wrap
            random_state=config.experiment.seed % 2**32,
            trust_remote_code=config.model.trust_remote_code,
            use_safetensors=True,  # other weights are pickled, and unpickling runs code
            **extra,
        )
        # Of a base that also reads images, it is the processor of both.
        return model, getattr(tokenizer, "tokenizer", tokenizer)

    def _remarks(self, config: Config, model: Any, dtype: torch.dtype) -> Iterable[str]:
        if not self._on_gpu:
            yield "Unsloth runs its CPU backend: transformers and PEFT, without fused kernels"
        elif dtype == torch.float32:
            yield "the base is held in float32: Unsloth's fused kernels are not used"
        elif not self._is_fused:
            is_8bit = config.runtime.quantization == "8bit"
            what = "weights in 8 bits" if is_8bit else f"{model.config.model_type} models"
            yield f"Unsloth has no fused kernels for {what}: PEFT's forward is used"
        else:
            for group in FUSED_GROUPS:
                if any(_has_bias(model, name) for name in group):
                    yield f"{'+'.join(group)} have biases: PEFT's forward is used there"

    def wrap(self, config: Config, base: Base, *, recomputes: bool) -> PeftModel:
        names = linear_names(base.model, (*base.head, *HEADS))
        self._offloads = self._on_gpu and recomputes and self._max_length >= SHORTEST_OFFLOADED
        if self._offloads and not self._is_fused:
            # Its generic path does this while loading, and then alone.
            patch_unsloth_smart_gradient_checkpointing(dtype=base.model.dtype)
        return FastLanguageModel.get_peft_model(
            base.model,
            r=1,
            lora_alpha=1,
            lora_dropout=0.0,
            bias="none",
            target_modules=sorted({name.rsplit(".", 1)[-1] for name in names}),
            use_gradient_checkpointing="unsloth" if self._offloads else recomputes,
            max_seq_length=self._max_length,
            random_state=config.experiment.seed % 2**32,
        )

    def dropped(self) -> None:
        """Give back the memory through which layer inputs went: on the host as much as the largest
        batch so far took, which for a base of 8B may be gigabytes a worker."""
        if self._offloads:
            # Its own reset keeps what its first 200 buffers have grown to: as many as any base has
            # layers.
            unpatch_unsloth_smart_gradient_checkpointing()
            # What was page-locked goes to torch's cache first; earlier releases cannot empty that.
            empty = getattr(torch.accelerator, "empty_host_cache", None)
            if empty is not None and torch.accelerator.is_available():
                torch.accelerator.synchronize()  # what is still copied from would stay
                empty()
            patch_unsloth_smart_gradient_checkpointing(dtype=self._base.model.dtype)

    def new_scaler(self) -> torch.amp.GradScaler:
        scaler = super().new_scaler()
        if scaler.is_enabled():
            # Its fused loss takes the gradient in the forward pass already, where float16 needs the
            # scale as much; there it goes by this name.
            self._model.get_base_model().accelerator_scaler = scaler
        return scaler

    def notes_on(self, genes: Genes) -> tuple[str, ...]:
        return unfused_remarks(genes) if self._is_fused else ()


def _is_generic() -> bool:
    """Whether the model just loaded is one that Unsloth has no fused LoRA kernels for: held in 8
    bits, or of an architecture without a path of its own."""
    return os.environ.get("UNSLOTH_USE_NEW_MODEL") == "1"


def _has_bias(model: Any, leaf: str) -> bool:
    """Whether the model's projections of that name add a bias, which no fused kernel does."""
    named = (module for name, module in model.named_modules() if name.endswith(f".{leaf}"))
    return getattr(next(named, None), "bias", None) is not None


def unloadable(config: Config, source: BaseSource, error: Exception) -> Exception:
    """What to raise where Unsloth cannot load the base."""
    if isinstance(error, ConfigError):
        return error
    if "valid pad token" in str(error):
        return ConfigError(
            "config",
            [
                f"model.base: {config.model.base}: its tokenizer has no token that Unsloth can pad "
                "with: none to pad with, no reserved one, none for unknown words"
            ],
            "Train with --backend peft, which pads with the token that ends a text; or give the "
            "tokenizer a padding token that the base has an embedding for, and save it.",
        )
    return loading_error(config, source, error)


def _context(described: Any, longest_text: int) -> int:
    """The sequence length to state: that of the longest text, but never more than the base reads,
    which would change its rotary embedding."""
    limit = getattr(described.get_text_config(), "max_position_embeddings", None)
    return min(longest_text, limit) if limit else longest_text
