"""Random numbers of several genomes whose rows go through the model together: each draws its own.

Alone, a genome's dropout comes from torch's one generator, seeded per step. Here that generator is
put into a genome's state for as long as that genome's rows are drawn for, so that each draws what
it draws alone: in the base's dropout, in attention, and in its adapter's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import dropout, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from coralx.training.cpu_dropout import dropped

Work = Callable[..., torch.Tensor]


class Draws(TorchFunctionMode):
    """In its context, whatever drops out values does so for each slot's share of the rows. Rows of
    a slot lie next to each other, slots in the order of their `seeds`."""

    def __init__(self, device: torch.device, seeds: Sequence[int]) -> None:
        super().__init__()
        self._generator = _generator_of(device)
        self._states = [self._seeded(seed) for seed in seeds]
        self._slot: int | None = None
        """Whose rows alone are drawn for at present; None: all slots'."""
        self.differ = False
        """Whether the slots' rows may differ by now."""

    def __torch_function__(
        self,
        func: Work,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._slot is not None or not _draws(func, args, kwargs):
            return func(*args, **kwargs)
        self.differ = True
        parts = []
        for slot in range(len(self._states)):
            with self.of(slot):
                parts.append(func(*(self._share(v, slot) for v in args), **self._own(kwargs, slot)))
        return torch.cat(parts)

    @contextmanager
    def of(self, slot: int) -> Iterator[None]:
        """In the block, that slot draws, for rows which are all its own."""
        self._slot = slot
        self._generator.set_state(self._states[slot])
        try:
            yield
        finally:
            self._states[slot] = self._generator.get_state()
            self._slot = None

    def _seeded(self, seed: int) -> torch.Tensor:
        self._generator.manual_seed(seed)
        return self._generator.get_state()

    def _own(self, kwargs: Mapping[str, Any], slot: int) -> dict[str, Any]:
        return {name: self._share(value, slot) for name, value in kwargs.items()}

    def _share(self, value: Any, slot: int) -> Any:
        """A slot's rows of a tensor; one that all rows have in common as it is."""
        if not isinstance(value, torch.Tensor) or value.ndim == 0 or len(value) == 1:
            return value
        rows, rest = divmod(len(value), len(self._states))
        return value if rest else value[slot * rows : (slot + 1) * rows]


def _draws(func: Work, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call of torch draws random numbers; as far as models do in training."""
    if func is dropped:
        return bool(args[1])
    if func is dropout:
        return bool(kwargs.get("p", 0.5) and kwargs.get("training", True))
    if func is scaled_dot_product_attention:
        return bool(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0))
    return False


def _generator_of(device: torch.device) -> torch.Generator:
    """The one that dropout on the device draws from."""
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        return torch.cuda.default_generators[device.index or 0]
    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    return torch.default_generator
