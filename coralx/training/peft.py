"""The PEFT backend: trains on CPU, CUDA and MPS. The reference for all others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from coralx.backends.protocol import Say
from coralx.config.schema import Config
from coralx.training import base_model as bases
from coralx.training.adapter_backend import AdaptingBackend
from coralx.training.base_model import Base


class PeftBackend(AdaptingBackend):
    """Stock transformers and PEFT."""

    name = "peft"

    def load(
        self,
        config: Config,
        labels: Sequence[str],
        device: torch.device,
        dtype: torch.dtype,
        say: Say,
    ) -> Base:
        return bases.load(config, labels, device, dtype, say)

    def wrap(self, config: Config, base: Base) -> PeftModel:
        if bases.checkpoints_gradients(config, base.model.device):
            base.model.gradient_checkpointing_enable({"use_reentrant": False})
            base.model.enable_input_require_grads()
        template = LoraConfig(
            task_type=base.task_type,
            r=1,
            target_modules=bases.linear_names(base.model, base.head)[:1],
            modules_to_save=list(base.head) or None,
        )
        return get_peft_model(base.model, template)
