"""An NVIDIA GPU that is not there, for Unsloth's path for GPUs with every tensor on the CPU.

CUDA is faked before Unsloth is imported, so that it installs its fused kernels; Triton interprets
them. What is replaced must be there, so that no library can rename it unnoticed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.utils.checkpoint
from torch.utils._device import _device_constructors

GIB = 1 << 30


def environment(cache: Path) -> dict[str, str]:
    """What must be set before Unsloth and Triton are imported; `cache` is a folder for Unsloth."""
    return {
        "CUDA_VISIBLE_DEVICES": "",  # on a machine with a GPU, it is left alone
        "TRITON_INTERPRET": "1",
        "UNSLOTH_ALLOW_CPU": "1",  # leave TRL's trainers alone
        "UNSLOTH_COMPILE_DISABLE": "1",
        "UNSLOTH_COMPILE_LOCATION": str(cache),
        "UNSLOTH_DISABLE_DOUBLE_BUFFER": "1",  # needs CUDA's events
        "UNSLOTH_DISABLE_PINNED_MEMORY": "1",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "UNSLOTH_RMSNORM_MULTIROW": "0",  # checks itself bit by bit, which the interpreter fails
    }


def put(owner: Any, **values: Any) -> None:
    """Replace attributes that are there. Raises AttributeError for one that is not."""
    for name, value in values.items():
        getattr(owner, name)
        setattr(owner, name, value)


def install() -> None:
    """Fake the GPU, import Unsloth, and let it and our backend take the GPU's path."""
    _answer_for_gpu()
    _stay_on_cpu()
    _mend_interpreter()
    _believe_in_gpu()


def _answer_for_gpu() -> None:
    """Answer what Unsloth asks about the GPU with an A100's figures."""
    properties = SimpleNamespace(
        name="Faked", major=8, minor=0, total_memory=80 * GIB, multi_processor_count=108
    )
    answers: dict[str, Any] = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_capability": (8, 0),
        "get_device_name": properties.name,
        "get_device_properties": properties,
        "mem_get_info": (80 * GIB, 80 * GIB),
        "memory_allocated": 0,
        "max_memory_allocated": 0,
        "memory_reserved": 0,
        "max_memory_reserved": 0,
        "synchronize": None,
        "empty_cache": None,
        "is_current_stream_capturing": False,
        "default_stream": SimpleNamespace(cuda_stream=0),
    }
    for name, answer in answers.items():
        put(torch.cuda, **{name: lambda *_, answer=answer, **__: answer})
    put(torch.cuda, is_bf16_supported=lambda including_emulation=True: True)  # noqa: ARG005
    # A build of torch without CUDA has none.
    torch._C._cuda_getCurrentRawStream = lambda index=0: 0  # noqa: ARG005
    # As root, Unsloth would run ldconfig to find the CUDA libraries that are missing here.
    put(os, geteuid=lambda: 1000)


def _stay_on_cpu() -> None:
    """Turn what Unsloth makes or casts on the GPU to the CPU."""

    def on_cpu(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, device: Any = None, **kwargs: Any) -> Any:
            is_gpu = isinstance(device, int) or str(device).startswith("cuda")
            return make(*args, device="cpu" if is_gpu else device, **kwargs)

        return made

    _device_constructors()  # remembers the originals, for `with torch.device(...)`
    for name in ("empty", "zeros", "ones", "full", "tensor", "arange"):
        put(torch, **{name: on_cpu(getattr(torch, name))})
    for name in ("custom_fwd", "custom_bwd"):  # backward runs under forward's autocast
        given = getattr(torch.amp, name)
        turned = lambda *args, given=given, **_: given(*args, device_type="cpu")  # noqa: E731
        put(torch.amp, **{name: turned})


def _mend_interpreter() -> None:
    """Triton's interpreter holds bf16 as 16-bit integers and, up to 3.9 at least, adds and
    multiplies those. Compute in float32 and round, as the hardware does."""
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def widened(given: Any) -> Any:
        if not isinstance(given, TensorHandle) or given.dtype.scalar != tl.bfloat16:
            return given
        return TensorHandle((given.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def rounded(given: Any) -> Any:
        numbers = torch.from_numpy(np.ascontiguousarray(given.data)).to(torch.bfloat16)
        bits = numbers.view(torch.int16).numpy().view(np.uint16)
        return TensorHandle(bits.reshape(given.data.shape), tl.bfloat16)

    def mended(compute: Callable[..., Any]) -> Callable[..., Any]:
        def computed(self: Any, *args: Any) -> Any:
            wide = [widened(arg) for arg in args]
            found = compute(self, *wide)
            is_bf16 = any(a is not w for a, w in zip(args, wide, strict=True))
            return rounded(found) if is_bf16 and found.data.dtype == np.float32 else found

        return computed

    for name in ("binary_op", "unary_op", "ternary_op", "create_fma"):
        put(InterpreterBuilder, **{name: mended(getattr(InterpreterBuilder, name))})
    cast = InterpreterBuilder.cast_impl

    def cast_impl(self: Any, given: Any, kind: Any) -> Any:
        wide = widened(given)
        if kind.scalar == tl.bfloat16:
            return given if wide is not given else rounded(cast(self, given, tl.float32))
        return wide if wide is not given and kind.scalar == tl.float32 else cast(self, wide, kind)

    put(InterpreterBuilder, cast_impl=cast_impl)


def _believe_in_gpu() -> None:
    """Let our backend and Unsloth take the GPU's path with a base on the CPU."""
    ours: Any = import_module("coralx.training.unsloth")  # sets what Unsloth reads when imported

    from bitsandbytes.functional import dequantize_4bit
    from unsloth.kernels import utils
    from unsloth.models import llama

    from coralx.training.quantization import keep_differentiable

    load, from_pretrained = ours.UnslothBackend.load, ours.FastLanguageModel.from_pretrained

    def load_as_on_gpu(self: Any, config: Any, labels: Any, _: Any, *rest: Any) -> Any:
        return load(self, config, labels, SimpleNamespace(type="cuda", index=0), *rest)

    def on_cpu(**kwargs: Any) -> Any:
        model, tokenizer = from_pretrained(**{**kwargs, "device_map": {"": "cpu"}})
        keep_differentiable(model)  # no GPU needs that
        return model, tokenizer

    put(ours.UnslothBackend, load=load_as_on_gpu)
    put(ours.FastLanguageModel, from_pretrained=on_cpu)

    def build_rope(self: Any, index: int) -> None:  # the original asks for torch.device(index)
        size = self.current_rope_size
        self._set_cos_sin_cache(
            self._rope_cache_rows(), torch.device("cpu", index), self._rope_cache_dtype
        )
        self.current_rope_size = size
        self._rope_cache_versions[index] = self._rope_cache_version

    put(llama._PerDeviceRopeCache, _build_rope_cache=build_rope)
    # Where answers are put together, one for each GPU.
    put(llama._LazyDeviceScratch, __getitem__=lambda self, _: self._make("cpu"))

    def dequantized(W: Any, quant_state: Any = None, out: Any = None, **_: Any) -> Any:  # noqa: N803
        if quant_state is None:
            return W
        return dequantize_4bit(W, quant_state, out=out)

    put(utils, _fast_dequantize_bnb=dequantized)
