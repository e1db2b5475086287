"""Several adapters of one model in one forward pass, each on rows of its own.

The rows are those of one batch, once for each adapter: slot after slot. A layer of the base sees
all of them at once; what an adapter adds is computed from its slot's rows alone, and so is what a
trained head makes of them (Ye et al. 2023, mLoRA). The gradient of the slots' losses, summed, is
then for each adapter that of its own loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch.nn.functional import pad

from coralx.training.cpu_dropout import dropped
from coralx.training.cpu_layers import AdaptedLinear
from coralx.training.packed_draws import Draws
from coralx.training.packed_prefix import SharedPrefix


class PackedModel:
    """A model that has the adapters of these `names`."""

    def __init__(self, model: PeftModel, names: Sequence[str]) -> None:
        self._model = model
        self._forwards: list[tuple[torch.nn.Module, Callable[..., torch.Tensor]]] = []
        """What differs from adapter to adapter, and how it computes in a step."""
        for module in model.modules():
            if isinstance(module, LoraLayer):
                self._forwards.append((module, partial(self._adapted, module)))
            elif isinstance(module, ModulesToSaveWrapper):
                self._forwards.append((module, partial(self._saved, module)))
        self._prefix = SharedPrefix(model, names)
        self._names: tuple[str, ...] = ()
        """The adapters of the present step, by slot."""
        self._draws = Draws(model.device, ())
        self._outputs: list[torch.Tensor] = []
        """Of each call of the present step, the logits of all slots' rows."""

    @contextmanager
    def step(self, names: Sequence[str], seeds: Sequence[int]) -> Iterator[list[Slot]]:
        """One step of some of the adapters, none of them with DoRA; `seeds` are of what each draws.
        In the block, which is to hold forward and backward pass, the model as each slot sees it."""
        self._names, self._draws, self._outputs = tuple(names), Draws(self._model.device, seeds), []
        before = [vars(module).get("forward") for module, _ in self._forwards]
        for module, forward in self._forwards:
            module.forward = forward
        try:
            with self._prefix.shared(len(names), self._draws):
                yield [Slot(self, self._model, number) for number in range(len(names))]
        finally:
            self._outputs = []
            for (module, _), own in zip(self._forwards, before, strict=True):
                del module.forward
                if own is not None:  # put there by a library
                    module.forward = own

    def logits(self, call: int, batch: Mapping[str, Any]) -> torch.Tensor:
        """The logits of the step's call of that number, from 0, shape (slots, rows, ...). They are
        computed for the first slot that calls; all ask for the same batches in the same order."""
        if call == len(self._outputs):
            repeated = {name: self._repeated(value) for name, value in batch.items()}
            with self._draws:
                logits = self._model(**repeated).logits
            self._outputs.append(logits.unflatten(0, (len(self._names), -1)))
        return self._outputs[call]

    def _repeated(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.repeat(len(self._names), *[1] * (value.ndim - 1))

    def _saved(self, wrapper: Any, x: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        """Each slot's rows through its own copy of a module that is trained in full."""
        parts = []
        for slot, own in enumerate(x.chunk(len(self._names))):
            with self._draws.of(slot):
                parts.append(wrapper.modules_to_save[self._names[slot]](own, *rest, **more))
        return torch.cat(parts)

    def _adapted(self, layer: Any, x: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        """What the base makes of all rows, plus what each slot's adapter makes of its own."""
        result: torch.Tensor = layer.base_layer(x, *rest, **more)
        slots = [slot for slot, name in enumerate(self._names) if name in layer.lora_A]
        if not slots:
            return result
        self._draws.differ = True
        names = [self._names[slot] for slot in slots]
        parts = layer._cast_input_dtype(x, layer.lora_A[names[0]].weight.dtype).chunk(
            len(self._names)
        )
        added = _added(layer, names, [self._dropped(layer, slot, parts[slot]) for slot in slots])
        if len(slots) < len(self._names):
            by_slot = dict(zip(slots, added.unbind(), strict=True))
            nothing = torch.zeros_like(added[0])
            added = torch.stack([by_slot.get(slot, nothing) for slot in range(len(self._names))])
        return (result + added.reshape(result.shape)).to(result.dtype)

    def _dropped(self, layer: Any, slot: int, rows: torch.Tensor) -> torch.Tensor:
        """A slot's rows after its adapter's dropout."""
        dropout = layer.lora_dropout[self._names[slot]]
        if isinstance(dropout, torch.nn.Identity):
            return rows
        with self._draws.of(slot):
            if isinstance(layer, AdaptedLinear):  # which draws by itself, other numbers than torch
                return dropped(rows, dropout.p)
            kept: torch.Tensor = dropout(rows)
        return kept


def _added(layer: Any, names: Sequence[str], rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """What adapters add to a layer's output, each by its own rows: shape (adapters, places of all
    rows, outputs)."""
    downs = [layer.lora_A[name].weight for name in names]
    ups = [layer.lora_B[name].weight for name in names]
    most = max(len(down) for down in downs)
    # Smaller ranks are filled up with zeros, which add nothing.
    a = torch.stack([pad(down, (0, 0, 0, most - len(down))) for down in downs])
    b = torch.stack([pad(up, (0, most - up.shape[1])) for up in ups])
    scales = torch.tensor([layer.scaling[name] for name in names], device=a.device, dtype=a.dtype)
    x = torch.stack([own.reshape(-1, own.shape[-1]) for own in rows])
    return torch.bmm(torch.bmm(x, a.mT) * scales.view(-1, 1, 1), b.mT)


class Slot:
    """The model with one adapter of a step, to the code of a task."""

    def __init__(self, pack: PackedModel, model: PeftModel, number: int) -> None:
        self._pack, self._model, self._number = pack, model, number
        self._calls = 0

    def __call__(self, **batch: Any) -> SimpleNamespace:
        logits = self._pack.logits(self._calls, batch)[self._number]
        self._calls += 1
        return SimpleNamespace(logits=logits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
