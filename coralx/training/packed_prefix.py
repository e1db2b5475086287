"""What lies below the lowest block that any genome of a pack adapts: computed once for all of them.

There all slots' rows are the same, unless something before it differs from genome to genome, such
as dropout. Whether anything does is seen in the first step, in which nothing is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from coralx.training.packed_draws import Draws

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Change = Callable[[torch.Tensor], torch.Tensor]


class SharedPrefix:
    """The blocks of a model below those that the adapters of these `names` adapt."""

    def __init__(self, model: PeftModel, names: Sequence[str]) -> None:
        self._blocks = _blocks(model, names)
        self._is_same: bool | None = None
        """Whether all slots' rows are the same there; None: no step has shown it yet."""
        self._rows = 0
        """Those of all slots, where they are shared at present; else 0."""

    @contextmanager
    def shared(self, slots: int, draws: Draws) -> Iterator[None]:
        """In the block, one step of so many slots goes through the model."""
        with ExitStack() as hooks:
            if len(self._blocks) > 1 and slots > 1:
                self._hook(hooks, slots, draws)
            yield

    def _hook(self, hooks: ExitStack, slots: int, draws: Draws) -> None:
        def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            rows = len(_hidden(args, kwargs))
            self._rows = rows if self._is_same and _is_divisible(args, kwargs, rows) else 0

        def narrow(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
            return _changed(args, kwargs, self._rows, lambda rows: rows[: len(rows) // slots])

        def widen(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
            if self._is_same is None:
                self._is_same = not draws.differ
            narrow_rows = self._rows // slots
            hidden = _hidden(args, kwargs)
            return _changed(
                args,
                kwargs,
                narrow_rows,
                lambda rows: rows.repeat(slots, 1, 1) if rows is hidden else rows,
            )

        *below, lowest = self._blocks
        changes = [(below[0], enter), *((block, narrow) for block in below), (lowest, widen)]
        for block, change in changes:
            handle = block.register_forward_pre_hook(change, with_kwargs=True)
            hooks.callback(handle.remove)


def _blocks(model: PeftModel, names: Sequence[str]) -> list[torch.nn.Module]:
    """The model's blocks up to the lowest one that is adapted; none where it has no list of them.

    Of several lists, the one that holds most of the layers that are adapted.
    """
    adapted = [
        name
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and any(own in module.lora_A for own in names)
    ]
    best: list[torch.nn.Module] = []
    most = 0
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.ModuleList):
            continue
        inside = [path.removeprefix(f"{name}.") for path in adapted if path.startswith(f"{name}.")]
        if len(inside) > most:
            most = len(inside)
            lowest = min(int(path.split(".")[0]) for path in inside)
            best = list(module)[: lowest + 1]
    return best


def _hidden(args: Sequence[Any], kwargs: dict[str, Any]) -> torch.Tensor:
    """The rows that a block computes on."""
    hidden: torch.Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


def _is_divisible(args: Sequence[Any], kwargs: dict[str, Any], rows: int) -> bool:
    """Whether everything that a block is given is of all rows, or the same for each of them."""
    return all(tensor.ndim < 2 or len(tensor) in (1, rows) for tensor in _tensors((args, kwargs)))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _changed(args: tuple[Any, ...], kwargs: dict[str, Any], rows: int, change: Change) -> Arguments:
    """The arguments, with what has so many rows changed."""

    def mapped(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return change(value) if rows and value.ndim > 1 and len(value) == rows else value
        if isinstance(value, tuple | list):
            return type(value)(mapped(part) for part in value)
        return value

    return tuple(map(mapped, args)), {name: mapped(value) for name, value in kwargs.items()}
