"""The Unsloth backend: language models on one GPU with fused kernels, or on its own CPU backend.

Unsloth replaces parts of transformers and PEFT for the whole process, so nothing else is trained
in a worker that runs this. It must be imported before them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from coralx.errors import SetupError
from coralx.system.environment import INSTALL_UNSLOTH
from coralx.system.files import cache_folder

_OWN_CACHE = cache_folder() / "unsloth" / os.environ.get("CUDA_VISIBLE_DEVICES", "any")
os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(_OWN_CACHE))  # else the working folder
os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")  # else it asks the network
# Compiled layers are compiled anew for each adapter and then fall back, with other roundings and
# other draws of dropout: a resumed stage would not equal one that was never cut.
os.environ.setdefault("UNSLOTH_BLOCK_COMPILE", "0")

try:
    import unsloth  # noqa: F401  isort: skip
except ImportError as error:
    raise SetupError(
        f"Unsloth cannot be imported: {error}",
        f"{INSTALL_UNSLOTH}; or train with --backend peft.",
    ) from None

import torch
from peft import PeftModel, TaskType
from transformers import AutoConfig
from unsloth import FastLanguageModel

from coralx.backends.choice import require_compatible
from coralx.backends.protocol import Say
from coralx.backends.unsloth_support import FUSED_GROUPS, unfused_remarks
from coralx.config.schema import Config
from coralx.records.genomes import Genes
from coralx.training.adaptable_layers import check, linear_names
from coralx.training.adapter_backend import AdapterBackend
from coralx.training.base_model import Base, checkpoints_gradients, give_padding, quiet
from coralx.training.base_source import BaseSource, loading_error, loading_options, locate_base

SHORTEST_OFFLOADED = 512
"""Below this sequence length Unsloth silently takes plain gradient checkpointing."""


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
        self._checkpointing = "unsloth" if checkpoints_gradients(config, device) else False
        try:
            model, tokenizer = self._read(config, source, device, dtype)
        except Exception as error:
            raise loading_error(config, source, error) from None
        on_gpu = device.type == "cuda" and dtype != torch.float32
        self._is_fused = on_gpu and not _is_generic()
        give_padding(model, tokenizer)
        check(config, model, ())
        return Base(
            published_name=source.published_name,
            model=model.requires_grad_(False),
            tokenizer=tokenizer,
            task_type=TaskType.CAUSAL_LM,
            fused_loss=on_gpu,
            notes=(*source.notes, *self._remarks(config, model, device, dtype)),
        )

    def _read(
        self, config: Config, source: BaseSource, device: torch.device, dtype: torch.dtype
    ) -> tuple[Any, Any]:
        """Model and tokenizer, as Unsloth loads them."""
        described = AutoConfig.from_pretrained(source.path, **loading_options(config, source))
        self._max_length = _context(described, config.longest_text)
        model, tokenizer = FastLanguageModel.from_pretrained(
            model_name=source.path,
            max_seq_length=self._max_length,
            dtype=dtype,
            load_in_4bit=config.runtime.quantization == "4bit",
            load_in_8bit=config.runtime.quantization == "8bit",
            use_exact_model_name=True,  # not another upload of the same model
            device_map={"": device.index or 0} if device.type == "cuda" else None,
            use_gradient_checkpointing=self._checkpointing,
            random_state=config.experiment.seed % 2**32,
            trust_remote_code=config.model.trust_remote_code,
            use_safetensors=True,  # other weights are pickled, and unpickling runs code
        )
        return model, tokenizer

    def _remarks(
        self, config: Config, model: Any, device: torch.device, dtype: torch.dtype
    ) -> Iterable[str]:
        if device.type != "cuda":
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

    def wrap(self, config: Config, base: Base) -> PeftModel:
        names = linear_names(base.model, ())
        return FastLanguageModel.get_peft_model(
            base.model,
            r=1,
            lora_alpha=1,
            lora_dropout=0.0,
            bias="none",
            target_modules=sorted({name.rsplit(".", 1)[-1] for name in names}),
            use_gradient_checkpointing=self._checkpointing,
            max_seq_length=self._max_length,
            random_state=config.experiment.seed % 2**32,
        )

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


def _context(described: Any, longest_text: int) -> int:
    """The sequence length to state: long enough for offloaded checkpointing, never longer than the
    base reads, which would change its rotary embedding."""
    limit = getattr(described, "max_position_embeddings", None)
    enough = max(longest_text, SHORTEST_OFFLOADED)
    return max(longest_text, min(enough, limit)) if limit else enough
