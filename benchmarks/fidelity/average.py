"""The average of an adapter's weights over its training: cheap to keep, evaluated in place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch


class WeightAverage:
    """An exponential moving average of parameters over optimizer steps, without the bias towards
    its start: divided by 1 - decay^steps, as Adam's moments are (Kingma and Ba 2015)."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float) -> None:
        self._parameters = parameters
        self._sums = [torch.zeros_like(parameter) for parameter in parameters]
        self._decay = decay
        self._steps = 0

    def update(self, *_: Any) -> None:
        """Take the weights in; fits as a hook after the optimizer's step."""
        self._steps += 1
        with torch.no_grad():
            for mean, parameter in zip(self._sums, self._parameters, strict=True):
                mean.lerp_(parameter, 1 - self._decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The parameters hold the average inside, and what they held before after it."""
        held = [parameter.detach().clone() for parameter in self._parameters]
        correction = 1 - self._decay**self._steps
        with torch.no_grad():
            for mean, parameter in zip(self._sums, self._parameters, strict=True):
                parameter.copy_(mean / correction)
        try:
            yield
        finally:
            with torch.no_grad():
                for before, parameter in zip(held, self._parameters, strict=True):
                    parameter.copy_(before)
