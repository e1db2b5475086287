"""A base whose weights bitsandbytes stores in 4 or 8 bits: on a CUDA GPU, or with PEFT on a CPU."""

from __future__ import annotations

import platform
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from coralx.config.schema import Config
from coralx.errors import ConfigError, SetupError
from coralx.system.environment import INSTALL_QUANTIZATION, is_installed

X86 = ("x86_64", "amd64")
WITHOUT_AVX2 = ("DEFAULT", "NO AVX")
"""What torch calls the vector instructions of a processor that has none of AVX2 or later."""


def check_quantization(config: Config, device: torch.device, backend: str) -> None:
    """Raise ConfigError where `backend` cannot store a base in so many bits on the device, and
    SetupError where this machine lacks what that takes."""
    bits = config.runtime.quantization
    if bits == "none":
        return
    if device.type not in ("cuda", "cpu"):
        raise _refusal(
            f"{bits} needs a CUDA GPU or a CPU; this worker trains on {device.type}",
            "Set runtime.quantization: none.",
        )
    if device.type == "cpu" and backend == "unsloth":
        raise _refusal(
            f"{bits} needs a CUDA GPU with Unsloth; this worker trains on a CPU",
            "Set runtime.backend: peft, which trains such a base on a CPU, too.",
        )
    if not is_installed("bitsandbytes"):
        raise SetupError(
            f"runtime.quantization: {bits} needs bitsandbytes, which is not installed",
            f"{INSTALL_QUANTIZATION}; or set runtime.quantization: none.",
        )
    if device.type == "cpu":
        _check_cpu(config, bits)


def _check_cpu(config: Config, bits: str) -> None:
    lacking = ""
    if platform.machine().lower() in X86 and _vectors() in WITHOUT_AVX2:
        lacking = "it has no AVX2, which bitsandbytes needs"
    elif not _has_native_library():
        lacking = "bitsandbytes was installed without its library for this system"
    if lacking:
        raise SetupError(
            f"runtime.quantization: {bits} cannot be used on this CPU: {lacking}",
            "Set runtime.quantization: none, or train on another machine.",
        )
    switch = config.search_space.use_dora
    if bits == "8bit" and switch is not None and True in switch.choices:
        # PEFT 0.21 puts the weight back without its scales once it has taken its norm.
        raise _refusal(
            "8bit cannot be trained with DoRA on a CPU",
            "Set runtime.quantization: 4bit, or search_space.use_dora: {choices: [false]}.",
        )


def _vectors() -> str:
    return str(torch.backends.cpu.get_cpu_capability())


def _has_native_library() -> bool:
    """Whether bitsandbytes found the library that its package brings for most systems; without it,
    it compiles code of its own at every step."""
    from bitsandbytes import cextension  # installed with an extra alone

    return not isinstance(cextension.lib, cextension.ErrorHandlerMockBNBNativeLibrary)


def _refusal(problem: str, way_out: str) -> ConfigError:
    return ConfigError("config", [f"runtime.quantization: {problem}"], way_out)


def quantization_options(config: Config, dtype: torch.dtype) -> dict[str, Any]:
    """How transformers is to have bitsandbytes store the weights: as QLoRA does in 4 bits (Dettmers
    et al. 2023), and computed with in `dtype`. Nothing without quantization."""
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
    return {"quantization_config": quantization}


def keep_differentiable(model: torch.nn.Module) -> None:
    """Keep layers of 4 bits from being repacked when they are first used without gradients.

    On CPUs with AVX512-BF16, bitsandbytes does so for good, for a kernel that computes in bf16 and
    has no backward pass: the gradients of all later training would lack the base's part.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
