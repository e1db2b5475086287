"""In which precision a base model runs faster here: measured, not guessed."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from coralx.config.schema import Config
from coralx.errors import ConfigError

WORTH_IT = 0.9
"""bf16 must take less than this share of fp32's time: it rounds more, which has to pay."""


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which the forward pass runs: bf16 autocast, or nothing for fp32."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def known_precision(
    config: Config, recorded: str | None, device: torch.device
) -> tuple[str, str] | None:
    """The precision and the reason, where it is known before the base is loaded; `recorded` is that
    of a run that is resumed, or of its first worker.

    Raises ConfigError for one that the device does not have.
    """
    precision = recorded or config.training.precision
    if precision == "bf16" and device.type == "cuda" and not _computes_bf16():
        raise ConfigError(
            "config",
            ["training.precision: this GPU does not compute in bf16"],
            "Set training.precision: fp32, or auto.",
        )
    if precision != "auto":
        return precision, "as configured or recorded"
    # Language models are held in bf16 on a GPU, which is decided before there is one to measure.
    if device.type == "cuda" and config.model.task != "sequence-classification":
        if _computes_bf16():
            return "bf16", "the GPU computes in bf16"
        return "fp32", "the GPU does not compute in bf16"
    return None


def _computes_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def base_dtype(config: Config, precision: str | None, device: torch.device) -> torch.dtype:
    """The type in which the frozen weights are held: language models on a GPU in bf16 where they
    are trained so, everything else in float32."""
    is_language_model = config.model.task != "sequence-classification"
    if device.type == "cuda" and is_language_model and precision == "bf16":
        return torch.bfloat16
    return torch.float32


def faster_precision(
    model: torch.nn.Module,
    loss_of: Callable[[Sequence[int]], torch.Tensor],
    batches: Sequence[Sequence[int]],
    device: torch.device,
) -> tuple[str, str]:
    """fp32 or bf16, whichever takes a step of `batches` faster, and the reason in words.

    The two alternate, the first batch warms up and does not count; gradients are thrown away.
    """
    seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
    model.train()
    for batch in batches:
        for precision, times in seconds.items():
            began = time.monotonic()
            with autocast(precision, device):
                loss = loss_of(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.monotonic() - began)
    model.zero_grad(set_to_none=True)
    fp32, bf16 = (statistics.median(times[1:]) for times in seconds.values())
    chosen = "bf16" if bf16 < WORTH_IT * fp32 else "fp32"
    return chosen, f"a step takes {bf16 * 1e3:.0f} ms in bf16, {fp32 * 1e3:.0f} ms in fp32"
