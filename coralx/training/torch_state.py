"""What a function of the user's may change for all of torch, and how it is put back.

Torch itself is handed in: where it is not loaded there is nothing to put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

Setting = tuple[Callable[[], Any], Callable[[Any], object]]
"""How a setting is read, and how it is put back."""

AUTOCAST_DEVICES = ("cpu", "cuda", "mps")
ATTENTION_KERNELS = ("flash", "mem_efficient", "math", "cudnn")


@contextmanager
def contexts_left(torch: Any) -> Iterator[None]:
    """Contexts that are entered in the block, and left open by it, are left: gradients off,
    inference mode, autocast, devices and other modes, hooks on saved tensors.

    Inference mode has no call that ends it. But who leaves a context of it restores all of the
    thread's autograd state and dispatch keys, whatever has changed them: so the block is put into
    one that changes nothing.
    """
    with_gradients = torch.is_grad_enabled()
    functions = len(torch.overrides._get_current_function_mode_stack())
    dispatches = len(torch.utils._python_dispatch._get_current_dispatch_mode_stack())
    casts = _autocast_depth(torch)
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    with torch.inference_mode(torch.is_inference_mode_enabled()):
        torch.set_grad_enabled(with_gradients)
        try:
            yield
        finally:
            _leave_function_modes(torch, functions)
            torch.set_default_device(None)  # which may bring back a mode that it replaced
            _leave_function_modes(torch, functions)
            _leave_dispatch_modes(torch, dispatches)
            _leave_autocast(torch, casts)
            _leave_hooks(torch, hooks)


def _leave_function_modes(torch: Any, depth: int) -> None:
    while len(torch.overrides._get_current_function_mode_stack()) > depth:
        torch.overrides._pop_mode()


def _leave_dispatch_modes(torch: Any, depth: int) -> None:
    """As torch's own class leaves them: what a user's class does may fail."""
    dispatch = torch.utils._python_dispatch
    while len(modes := dispatch._get_current_dispatch_mode_stack()) > depth:
        dispatch.TorchDispatchMode.__exit__(modes[-1], None, None, None)


def _autocast_depth(torch: Any) -> int:
    """How many contexts of it are open: as long as one is, copies of weights may be cached. Torch
    tells the depth only as it changes it."""
    torch.autocast_increment_nesting()
    return int(torch.autocast_decrement_nesting())


def _leave_autocast(torch: Any, depth: int) -> None:
    while _autocast_depth(torch) > depth:
        torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()


def _leave_hooks(torch: Any, before: Any) -> None:
    autograd = torch._C._autograd
    while autograd._top_saved_tensors_default_hooks(True) not in (before, None):
        autograd._pop_saved_tensors_default_hooks()


def settings(torch: Any) -> Iterator[Setting]:
    """What may be set for the whole process, and stays set."""
    yield torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly
    yield torch.get_default_dtype, torch.set_default_dtype
    yield torch.get_num_threads, torch.set_num_threads
    yield torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    yield torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode
    yield torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled
    for device in AUTOCAST_DEVICES:
        yield partial(torch.get_autocast_dtype, device), partial(torch.set_autocast_dtype, device)
    cuda = torch.backends.cuda
    for kernel in ATTENTION_KERNELS:
        yield getattr(cuda, f"{kernel}_sdp_enabled"), getattr(cuda, f"enable_{kernel}_sdp")
    for flags in (torch.backends.cudnn, torch.backends.mkldnn):
        for name in ("enabled", "deterministic", "benchmark", "allow_tf32"):
            if hasattr(flags, name):
                yield partial(getattr, flags, name), partial(setattr, flags, name)
