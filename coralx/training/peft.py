"""The PEFT backend: trains on CPU, CUDA and MPS. The reference for all others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from coralx.backends.protocol import Say
from coralx.config.schema import Config
from coralx.training.adaptable_layers import linear_names
from coralx.training.adapter_backend import AdapterBackend
from coralx.training.base_model import Base, load
from coralx.training.cpu_layers import use_adapted_layers


class PeftBackend(AdapterBackend):
    """Stock transformers and PEFT."""

    name = "peft"
    has_cpu_layers = True
    freezes_prefix = True

    def load(
        self,
        config: Config,
        labels: Sequence[str],
        device: torch.device,
        dtype: torch.dtype,
        say: Say,
    ) -> Base:
        return load(config, labels, device, dtype, say)

    def wrap(self, config: Config, base: Base, *, recomputes: bool) -> PeftModel:
        if recomputes:
            base.model.gradient_checkpointing_enable({"use_reentrant": False})
            # The base is frozen: without this its first layer's output would have no gradient.
            base.model.enable_input_require_grads()
        template = LoraConfig(
            task_type=base.task_type,
            r=1,  # it is never trained, so as small as may be
            target_modules=linear_names(base.model, base.head)[:1],
            modules_to_save=list(base.head) or None,
        )
        return get_peft_model(base.model, use_adapted_layers(template))
