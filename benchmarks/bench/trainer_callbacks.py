"""What the plain objective has the Trainer do beside training: evaluate after certain steps, ask
whether to go on, and keep time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback


@dataclass(frozen=True)
class Rung:
    """How a configuration does after so many steps, and what was spent since the rung before."""

    step: int
    validation: float | None
    parameters: int
    steps: int
    tokens: int
    train_seconds: float
    eval_seconds: float
    is_last: bool


GoOn = Callable[[Rung], bool]
"""Told of a rung, whether to go on."""


def always(_: Rung) -> bool:
    """Train to the end."""
    return True


@dataclass
class Rungs(TrainerCallback):  # type: ignore[misc]
    """Has the Trainer evaluate after certain steps, and asks whether to go on."""

    steps: list[int]
    model: Any
    go_on: GoOn
    keeps: bool
    since: float = 0.0
    before: tuple[int, int] = (0, 0)
    """Steps and tokens at the rung before."""
    evaluating: float = 0.0
    """Since when, by the monotonic clock."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.since = time.monotonic()
        self.before = (state.global_step, int(state.num_input_tokens_seen))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step in self.steps:
            control.should_evaluate = True
            self.evaluating = time.monotonic()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        now = time.monotonic()
        is_last = state.global_step == self.steps[-1]
        figures = self.model.get_nb_trainable_parameters()
        rung = Rung(
            step=state.global_step,
            validation=metrics["eval_auroc"],
            parameters=figures[0],
            steps=state.global_step - self.before[0],
            tokens=int(state.num_input_tokens_seen) - self.before[1],
            train_seconds=self.evaluating - self.since,
            eval_seconds=now - self.evaluating,
            is_last=is_last,
        )
        if not self.go_on(rung) and not is_last:
            control.should_training_stop = True
            control.should_save = self.keeps
        self.since = time.monotonic()
        self.before = (state.global_step, int(state.num_input_tokens_seen))


@dataclass
class Stopwatch(TrainerCallback):  # type: ignore[misc]
    """Times the steps after the first `warm` ones."""

    warm: int
    began: tuple[float, float] = (0.0, 0.0)
    ended: tuple[float, float] = (0.0, 0.0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.ended = (time.monotonic(), time.process_time())
        if state.global_step == self.warm:
            self.began = self.ended

    def read(self) -> dict[str, float]:
        seconds, cpu = (end - start for start, end in zip(self.began, self.ended, strict=True))
        return {"seconds": round(seconds, 4), "cpu_seconds": round(cpu, 4)}
