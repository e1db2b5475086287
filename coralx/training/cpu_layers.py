"""A base model's frozen linear layers, and LoRA on them, as they are fastest on a CPU.

They compute what torch and PEFT do, in fewer and other operations: matrices in float32 are
multiplied by oneDNN, as torch gives them to MKL, which is half as fast on AMD's processors; frozen
weights are cast to half precision once instead of in every step; and a layer with its adapter is
one operation with a backward pass of its own instead of a dozen that are differentiated one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

import torch
from peft import LoraConfig
from peft.tuners import lora

from coralx.system.containers import memory
from coralx.training import cpu_dropout

REVISION = 4
"""From which on runs have these layers."""

FLOATS = (torch.float32, torch.bfloat16)

HELD_SHARE = 8
"""Half-precision copies may take this part of the free memory; larger bases are cast in each step,
which gives the same bits."""


def install(model: torch.nn.Module, head: Collection[str]) -> None:
    """Have the frozen linear layers and the dropout of a base model computed so from now on. `head`
    names the modules that adapters train and save in full, which stay as they are."""
    layers = [
        module
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear and not _is_within(name, head)
    ]
    values = sum(layer.weight.numel() for layer in layers)
    holds = 2 * values <= memory().free_bytes // HELD_SHARE
    for layer in layers:
        # Of another class from now on, with all that it holds and is known by.
        layer.__class__ = FrozenLinear
        cast(FrozenLinear, layer).holds_half = holds
    cpu_dropout.install(model)


def forget_half(model: torch.nn.Module) -> None:
    """Give back the copies in half precision that trying it has left."""
    for module in model.modules():
        if isinstance(module, FrozenLinear):
            module._half = None


def use_adapted_layers(config: LoraConfig) -> LoraConfig:
    """The description of an adapter, with what PEFT is to put on the layers that were installed."""
    config._register_custom_module({FrozenLinear: AdaptedLinear})
    return config


def _is_within(name: str, modules: Collection[str]) -> bool:
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


class FrozenLinear(torch.nn.Linear):
    """A linear layer whose weights have no gradient."""

    holds_half: bool
    """Whether a copy of its weights in half precision is held."""
    _half: tuple[torch.Tensor, torch.Tensor | None] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dtype = self.dtype_for(x)
        if dtype is None:
            return super().forward(x)
        weight, bias = self.weights_in(dtype)
        if torch.is_grad_enabled() and x.requires_grad:
            y: torch.Tensor = _Frozen.apply(x, weight, bias)  # type: ignore[no-untyped-call]
            return y
        return linear(x.to(dtype), weight, bias)

    def dtype_for(self, x: torch.Tensor) -> torch.dtype | None:
        """The type in which `x` is multiplied, as torch would do it; None where torch has to."""
        dtype = x.dtype
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
        elif dtype != self.weight.dtype:
            return None  # which torch refuses
        is_known = dtype in FLOATS and x.dtype in FLOATS and x.device.type == "cpu"
        return dtype if is_known and x.numel() and not self.weight.requires_grad else None

    def weights_in(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight and bias in that type."""
        if dtype == self.weight.dtype:
            return self.weight, self.bias
        if self._half is not None:
            return self._half
        bias = None if self.bias is None else self.bias.detach().to(dtype)
        half = self.weight.detach().to(dtype), bias
        if self.holds_half:
            self._half = half
        return half


class AdaptedLinear(lora.Linear):  # type: ignore[misc]
    """PEFT's LoRA on a frozen linear layer."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        base, adapter = self.get_base_layer(), self._only_adapter()
        dtype = None if adapter is None or args or kwargs else base.dtype_for(x)
        if dtype is None:
            output: torch.Tensor = super().forward(x, *args, **kwargs)
            return output
        weight, bias = base.weights_in(dtype)
        scale, keep, dropout = self.scaling[adapter], None, self.lora_dropout[adapter]
        if self.training and (rate := getattr(dropout, "p", 0.0)) > 0.0:
            keep = cpu_dropout.kept(x.shape, rate, dtype)
            scale = scale / (1.0 - rate) if rate < 1.0 else 0.0
        down, up = self.lora_A[adapter].weight, self.lora_B[adapter].weight
        y: torch.Tensor = _Adapted.apply(x, keep, weight, bias, down, up, scale)  # type: ignore[no-untyped-call]
        return y

    def _only_adapter(self) -> str | None:
        """The one adapter that is active here, if it is plain LoRA; else PEFT knows what to do."""
        if self.disable_adapters or self.merged:
            return None
        present = [name for name in self.active_adapters if name in self.lora_A]
        if len(present) != 1 or present[0] in self.lora_variant or self.lora_bias[present[0]]:
            return None
        name: str = present[0]
        return name


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """As torch's, of shape (..., outputs)."""
    if x.dtype == torch.float32 and HAS_ONEDNN:
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return y
    return torch.nn.functional.linear(x, weight, bias)


def _has_onednn() -> bool:
    """Whether this build of torch has oneDNN's matrix product, which only its own compiler uses."""
    try:
        one = torch.ones(1, 1)
        return bool(torch.ops.mkldnn._linear_pointwise(one, one, None, "none", [], "") == one)
    except (AttributeError, RuntimeError):
        return False


HAS_ONEDNN = _has_onednn()


def _shaped(y: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """`y`, which nobody else has, in that shape. To torch it is no view, so that models may change
    it in place, as they may change what torch's own layers return."""
    shaped: torch.Tensor = torch.ops.aten._unsafe_view(y, shape)
    return shaped


class _Frozen(torch.autograd.Function):
    """x W^T + b, differentiated by x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
        ctx.weight, ctx.dtype = weight, x.dtype
        y = linear(x.to(weight.dtype), weight, bias)
        return _shaped(y, y.shape)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return linear(gradient, ctx.weight.t(), None).to(ctx.dtype), None, None


class _Adapted(torch.autograd.Function):
    """x W^T + b + s (x * keep) A^T B^T, differentiated by x, A and B. Of shapes (..., inputs),
    (outputs, inputs), (outputs,), and A (rank, inputs), B (outputs, rank)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        keep: torch.Tensor | None,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
    ) -> Any:
        dtype = weight.dtype
        rows = x.to(dtype).reshape(-1, x.shape[-1])
        y = linear(rows, weight, bias)
        read = rows if keep is None else rows * keep.view_as(rows)
        a, b = down.to(dtype), up.to(dtype)
        inner = read @ a.t()
        y.addmm_(inner, b.t(), alpha=scale)
        ctx.save_for_backward(keep, read, inner, a, b)
        ctx.weight, ctx.scale, ctx.shape, ctx.dtype = weight, scale, x.shape, x.dtype
        return _shaped(y, (*x.shape[:-1], len(weight)))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        keep, read, inner, a, b = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])
        to_inner = (rows @ b).mul_(ctx.scale)
        to_down, to_up = to_inner.t() @ read, (rows.t() @ inner).mul_(ctx.scale)
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = linear(rows, ctx.weight.t(), None)
            if keep is None:
                to_x.addmm_(to_inner, a)
            else:
                to_x.addcmul_(to_inner @ a, keep.view_as(read))
            to_x = to_x.view(ctx.shape).to(ctx.dtype)
        return to_x, None, None, None, to_down.float(), to_up.float(), None
