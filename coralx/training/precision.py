"""In which precision a base model is trained and scored: as the config says, as the hardware
computes, or as measured."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from coralx.config.schema import Config
from coralx.errors import ConfigError

WORTH_IT = 0.9
"""Half precision must take less than this share of fp32's time: it rounds more, which has to
pay."""

MEASURING_SECONDS = 2.0
"""Once this has passed, what was measured so far decides."""

HOPELESS = 3.0
"""Half precision that takes so many times as long in its first step is not tried in another."""

PRODUCT = 256
"""Rows and columns of the matrices that are multiplied first."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def dtype_of(precision: str) -> torch.dtype:
    """The type of an activation: what matrices are multiplied in."""
    return DTYPES[precision]


def bytes_of(precision: str) -> int:
    """Bytes of one such value."""
    return dtype_of(precision).itemsize


def precision_of(dtype: torch.dtype) -> str:
    """The precision in which a base of that type is scored."""
    return next(name for name, known in DTYPES.items() if known == dtype)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which the forward pass runs: autocast, or nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype_of(precision))


def loss_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """What keeps gradients within the narrow range of float16 (Micikevicius et al. 2018, section
    3.2), with torch's own constants; without effect in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def half_precision(device: torch.device) -> str:
    """The 16-bit format that the device computes in: bf16, but fp16 on CUDA devices before Ampere,
    which only emulate bf16."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "fp16"
    return "bf16"


def known_precision(
    config: Config,
    recorded: str | None,
    device: torch.device,
    *,
    held_in_half: bool,
    overflows: bool = False,
) -> tuple[str, str] | None:
    """The precision and the reason, where it is known before the base is loaded; `recorded` is that
    of a run that is resumed, or of its first worker. `held_in_half`: on a GPU the base is, which is
    decided before there is one to measure. `overflows`: such bases are known to in fp16.

    Raises ConfigError for one that the device or the base does not have.
    """
    precision = recorded or config.training.precision
    if precision == "bf16" and half_precision(device) != "bf16":
        raise _unavailable("bf16", "this GPU does not compute in bf16", "fp16, fp32", recorded)
    if precision == "fp16" and device.type not in ("cuda", "cpu"):
        reason = f"fp16 is for CUDA GPUs; this worker trains on {device.type}"
        raise _unavailable("fp16", reason, "bf16, fp32", recorded)
    if precision == "fp16" and overflows and recorded is None:
        reason = f"activations of {config.model.base} overflow in fp16"
        raise _unavailable("fp16", reason, "fp32", recorded)
    if precision != "auto":
        return precision, "as configured or recorded"
    if device.type != "cuda" or not held_in_half:
        return None
    if half_precision(device) == "bf16":
        return "bf16", "the GPU computes in bf16"
    if overflows:
        return "fp32", "the GPU does not compute in bf16, and such bases overflow in fp16"
    return "fp16", "the GPU does not compute in bf16"


def _unavailable(precision: str, reason: str, others: str, recorded: str | None) -> ConfigError:
    if recorded is None:
        return ConfigError(
            "config",
            [f"training.precision: {reason}"],
            f"Set training.precision to {others} or auto.",
        )
    return ConfigError(
        "config",
        [f"training.precision: the run trains in {precision}, but {reason}"],
        "Continue on such a device as it began on (of several kinds of GPUs, name one kind in "
        f"runtime.devices), or start a new run with training.precision: {others.split(',')[0]}.",
    )


def base_dtype(precision: str | None, device: torch.device, *, held_in_half: bool) -> torch.dtype:
    """The type in which the frozen weights are held: that of the precision where the base is held
    so (`held_in_half`) and on a GPU, everything else in float32."""
    if device.type == "cuda" and held_in_half and precision is not None:
        return dtype_of(precision)
    return torch.float32


def faster_precision(
    model: torch.nn.Module,
    loss_of: Callable[[Sequence[int]], torch.Tensor],
    batches: Sequence[Sequence[int]],
    device: torch.device,
) -> tuple[str, str]:
    """fp32 or the device's half precision, whichever takes a step of `batches` faster, and the
    reason in words. No precision in which the base overflows.

    The two alternate, the first batch warms up and does not count; gradients are thrown away. On
    processors that do not compute in half precision a step may take 13 times as long in it: there
    a matrix product is tried first, which takes no time, and a step only where that is no slower.
    """
    half = half_precision(device)
    if device.type == "cpu" and (halved := product_seconds(half)) > (full := product_seconds()):
        return "fp32", (
            f"a matrix product takes {halved * 1e3:.2g} ms in {half}, {full * 1e3:.2g} ms in fp32"
        )
    seconds: dict[str, list[float]] = {"fp32": [], half: []}
    losses = dict.fromkeys(seconds, 0.0)
    model.train()
    began = time.monotonic()
    for batch in batches:
        for precision, times in seconds.items():
            taken, loss = _step(precision, loss_of, batch, device)
            times.append(taken)
            losses[precision] += loss
        on_cpu = device.type == "cpu"  # a GPU's first step loads kernels
        is_hopeless = on_cpu and seconds[half][0] > HOPELESS * seconds["fp32"][0]
        has_counted = len(seconds[half]) > 1
        if is_hopeless or (has_counted and time.monotonic() - began > MEASURING_SECONDS):
            break
    model.zero_grad(set_to_none=True)
    full, halved = (statistics.median(times[1:] or times) for times in seconds.values())
    if math.isfinite(losses["fp32"]) and not math.isfinite(losses[half]):
        return "fp32", f"the base overflows in {half}"
    chosen = half if halved < WORTH_IT * full else "fp32"
    return chosen, f"a step takes {halved * 1e3:.0f} ms in {half}, {full * 1e3:.0f} ms in fp32"


def product_seconds(precision: str = "fp32") -> float:
    """How long a product of two small matrices takes on the CPU, the fastest of three."""
    matrix = torch.ones(PRODUCT, PRODUCT, dtype=dtype_of(precision))
    times = []
    for _ in range(4):
        began = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - began)
    return min(times[1:])


def _step(
    precision: str,
    loss_of: Callable[[Sequence[int]], torch.Tensor],
    batch: Sequence[int],
    device: torch.device,
) -> tuple[float, float]:
    """The seconds that a forward and a backward pass take, and the loss."""
    began = time.monotonic()
    with autocast(precision, device):
        loss = loss_of(batch)
    loss.backward()  # type: ignore[no-untyped-call]
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - began, loss.item()
