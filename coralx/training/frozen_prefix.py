"""The frozen part of a base below the lowest adapted layer.

No gradient goes through it, and for genomes that adapt but the top it runs without dropout. So the
states that it hands on depend on a text alone: they are computed once for each text, and kept.

They are always those of the text alone, without padding and without neighbours in a batch, whose
sizes would show in the last bits. So it makes no difference whether they were kept, computed again,
or computed by another worker. Everything above, and the masks and position embeddings that it
needs, is computed by the model's own forward pass, in which the layers below do nothing, and the
lowest adapted one is given the states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from peft import PeftModel, TaskType

from coralx.records.genomes import ALL_LAYERS, Genes
from coralx.search.adapted_layers import lowest_layer, stack_of
from coralx.tasks.protocol import padded
from coralx.training.base_model import Base
from coralx.training.out_of_memory import reason_of
from coralx.training.prefix_cache import PrefixCache

TOLERANCE, ROUGH = 1e-4, 0.05
"""By how much of the largest output a model may differ with kept states from what it computes
itself: in float32, and in 16 bits."""

PASSED_ON = {"use_cache", "return_dict"}
"""What a call says that the frozen part needs to be told, too."""

Batch = Mapping[str, Any]


class _Reached(Exception):
    """The forward pass has come to the lowest adapted layer, with these states."""

    def __init__(self, states: torch.Tensor) -> None:
        super().__init__()
        self.states = states


class FrozenPrefix:
    """Switched on for one genome after another. `cache` is where states are kept; None: the frozen
    part is computed in every forward pass. `texts` are some by which a base is tried."""

    def __init__(
        self,
        model: PeftModel,
        base: Base,
        cache: PrefixCache | None,
        texts: Sequence[Sequence[int]],
        scoring: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._model = model
        self._base = base
        self._cache = cache
        self._texts = texts
        self._scoring = scoring
        self._obstacles: dict[int, str] = {}
        """By lowest adapted layer, why states are not kept; empty: they are."""
        self._lowest = 0
        self._is_caching = False
        self._is_recording = False
        self._given: torch.Tensor | None = None
        """The states of the batch that is going through the model, shape (rows, tokens, width)."""
        self._rest: tuple[None, ...] | None = None
        """In place of what layers return beside states, such as attention weights; None: they
        return no tuple."""

    @property
    def modules(self) -> list[torch.nn.Module]:
        """The frozen part of the genome that this is switched on for: no dropout is to happen in
        it."""
        return _before(self._inner, self._stack, self._lowest) if self._lowest else []

    @contextmanager
    def below(self, genes: Genes) -> Iterator[None]:
        """In the block, what lies below the lowest layer that such a genome adapts is frozen; of
        one that adapts `all` layers, nothing is."""
        lowest = 0
        if genes.layers != ALL_LAYERS and genes.adapts_base:
            lowest = lowest_layer(genes.layers, self._base.layers)
        if lowest == 0:
            yield
            return
        with ExitStack() as switched_on:
            self._lowest = lowest
            switched_on.callback(self._switch_off)
            for undo in self._hooks():
                switched_on.callback(undo)
            if self._cache is not None and lowest not in self._obstacles:
                self._obstacles[lowest] = self._obstacle()
            self._is_caching = self._cache is not None and not self._obstacles[lowest]
            yield

    @contextmanager
    def computing(self) -> Iterator[None]:
        """In the block, the frozen part is computed in every forward pass, as it is where a model
        is put to use."""
        before, self._is_caching = self._is_caching, False
        try:
            yield
        finally:
            self._is_caching = before

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why the states of the genome at hand are not kept, if they should be."""
        obstacle = self._obstacles.get(self._lowest)
        if not obstacle:
            return ()
        return (f"the frozen layers are computed in every step: {obstacle}",)

    def _switch_off(self) -> None:
        self._lowest, self._is_caching = 0, False

    # -- the model's forward pass ------------------------------------------------------------------

    @property
    def _inner(self) -> torch.nn.Module:
        inner: torch.nn.Module = self._model.get_base_model()
        return inner

    @property
    def _stack(self) -> str:
        return str(stack_of(self._base.linear, self._base.layers))

    def _hooks(self) -> Iterator[Callable[[], None]]:
        """Put this into the model's forward pass; how to take each part out again."""
        layers = list(self._inner.get_submodule(self._stack).children())
        for layer in layers[: self._lowest]:
            own = layer.__dict__.get("forward")  # a library may have put one there
            layer.forward = self._frozen(layer.forward)
            yield partial(_restore, layer, own)
        lowest = layers[self._lowest]
        yield lowest.register_forward_pre_hook(self._enter, with_kwargs=True).remove
        yield self._model.register_forward_pre_hook(self._begin, with_kwargs=True).remove
        yield self._model.register_forward_hook(self._end, always_call=True).remove

    def _frozen(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A frozen layer's forward pass."""

        def run(*args: Any, **kwargs: Any) -> Any:
            if self._given is not None:
                states = args[0] if args else kwargs["hidden_states"]
                return states if self._rest is None else (states, *self._rest)
            with torch.no_grad():
                output = forward(*args, **kwargs)
            self._rest = (None,) * (len(output) - 1) if isinstance(output, tuple) else None
            return output

        return run

    def _enter(
        self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """What the lowest adapted layer is given."""
        if self._is_recording:
            raise _Reached(args[0] if args else kwargs["hidden_states"])
        if self._given is None:
            return None
        if args:
            return (self._given, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self._given}

    def _begin(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._is_caching and not args and _is_whole(kwargs):
            self._given = self._states(kwargs)

    def _end(self, *_: Any) -> None:
        self._given = None

    # -- states ------------------------------------------------------------------------------------

    def _states(self, batch: Batch) -> torch.Tensor:
        """Those of a batch, zeros where it is padded."""
        ids, mask = batch["input_ids"], batch.get("attention_mask")
        tokens = ids.cpu().numpy()
        longest = tokens.shape[1]
        lengths = [longest] * len(tokens) if mask is None else mask.sum(dim=1).tolist()
        rows = [
            self._of_text(row[:length].tobytes(), ids[place, :length], batch)
            for place, (row, length) in enumerate(zip(tokens, lengths, strict=True))
        ]
        states = rows[0].new_zeros(len(rows), longest, rows[0].shape[-1])
        for place, row in enumerate(rows):
            states[place, : len(row)] = row
        return states.to(ids.device)

    def _of_text(self, text: bytes, ids: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The states of a text, shape (tokens, width), on the CPU."""
        kind = ids.device.type
        in_half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        key = self._lowest, in_half, text
        known = self._cache.get(key) if self._cache is not None else None
        if known is None:
            known = self._computed(ids, batch).cpu()
            if self._cache is not None:
                self._cache.put(key, known)
        return known

    def _computed(self, ids: torch.Tensor, batch: Batch) -> torch.Tensor:
        told = {name: batch[name] for name in PASSED_ON & batch.keys()}
        alone = ids[None].contiguous()
        around = _around(self._inner, self._stack)
        was_training = [module.training for module in around]
        for module in around:
            module.training = False  # else some draw random numbers, which others then do not get
        self._is_recording = True
        try:
            with torch.no_grad():
                self._inner(input_ids=alone, attention_mask=torch.ones_like(alone), **told)
        except _Reached as reached:
            return reached.states[0].detach()
        finally:
            self._is_recording = False
            for module, training in zip(around, was_training, strict=True):
                module.training = training
        raise ValueError("its layers are not called one after the other")

    # -- whether a base can be treated so ----------------------------------------------------------

    def _obstacle(self) -> str:
        """Why the base cannot be given kept states; empty if it can."""
        if getattr(self._inner, "is_gradient_checkpointing", False):
            return "activations are computed again in the backward pass"
        try:
            with torch.no_grad(), self._scoring():
                plain, kept = self._outputs(is_caching=False), self._outputs(is_caching=True)
        except Exception as error:  # whatever a base of another kind makes of it
            return reason_of(error)
        bound = TOLERANCE if plain.dtype == torch.float32 else ROUGH
        if not (plain - kept).abs().max() <= bound * plain.abs().max():
            return "the base does not compute the same with states that were kept"
        return ""

    def _outputs(self, *, is_caching: bool) -> torch.Tensor:
        """The model's outputs for a short and a long text, while training: where the frozen part
        draws random numbers, other ones are drawn above it."""
        texts = sorted(self._texts, key=len)
        batch = padded([texts[0], texts[-1]], self._base.padding, self._model.device)
        self._model.train()
        for module in self.modules:
            module.eval()
        told = {"use_cache": False} if self._base.task_type == TaskType.CAUSAL_LM else {}
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)
            self._is_caching = is_caching
            try:
                logits: torch.Tensor = self._model(**batch, **told).logits
            finally:
                self._is_caching = False
        # A language model has logits for every token, those of padding included.
        return logits[batch["attention_mask"].bool()] if logits.ndim == 3 else logits


def _is_whole(batch: Batch) -> bool:
    """Whether a call is for texts that are padded on the right, if at all, and for nothing else."""
    extra = {"input_ids", "attention_mask", "labels", "logits_to_keep", *PASSED_ON}
    if any(value is not None for name, value in batch.items() if name not in extra):
        return False
    if batch.get("input_ids") is None or batch.get("use_cache"):
        return False
    mask = batch.get("attention_mask")
    return mask is None or bool((mask.ndim == 2) and (mask[:, :-1] >= mask[:, 1:]).all())


def _around(model: torch.nn.Module, stack: str) -> list[torch.nn.Module]:
    """The modules that the list of layers lies in, from the model down, and the list itself."""
    parts = stack.split(".")
    return [model.get_submodule(".".join(parts[:end])) for end in range(len(parts) + 1)]


def _before(model: torch.nn.Module, stack: str, lowest: int) -> list[torch.nn.Module]:
    """What a model computes before the layer of that number: by the order in which models list
    their modules, whatever stands before the list of layers, and the layers below."""
    found, around = list[torch.nn.Module](), _around(model, stack)
    for outer, inner in pairwise(around):
        children = list(outer.children())
        found += children[: children.index(inner)]
    return [*found, *list(around[-1].children())[:lowest]]


def _restore(layer: torch.nn.Module, forward: Callable[..., Any] | None) -> None:
    del layer.forward
    if forward is not None:
        layer.forward = forward
