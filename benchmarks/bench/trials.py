"""What all searches of others have in common: trials by the plain objective, a thread each, rungs
after 1, 3 and 9 parts of 27, and an adapter kept of each trial that is finished."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from observations import Observation, append
from trainer_callbacks import Rung
from trainer_objective import Objective
from workloads import Genes, Setting

PARTS = 27
RUNGS = (1, 3, 9)
REDUCTION = 3

Told = Callable[[int, float], bool]
"""Told of a trial's parts of 27 and its AUROC on validation there, whether it goes on."""


class Finished(NamedTuple):
    """A configuration that was trained to the end."""

    auroc: float
    """On validation; 0 where it is undefined."""
    parameters: int


class Trials:
    """Runs trials in this process, one after another."""

    def __init__(self, folder: Path | str) -> None:
        self.setting = Setting.read(folder)
        self.folder = Path(self.setting.folder)
        self.objective = Objective(self.setting, threads=1)
        total = self.objective.workload.total_steps
        self.parts = {math.ceil(total * part / PARTS): part for part in RUNGS}

    def run(
        self,
        name: str,
        genes: Genes,
        go_on: Told,
        *,
        resume: Path | None = None,
        keeps: bool = False,
    ) -> Finished | None:
        """Train a configuration, and keep its adapter; None where it was not finished."""
        last: list[Rung] = []

        def told(rung: Rung) -> bool:
            if rung.is_last:
                last.append(rung)
                return True
            self._note(name, genes, rung, None)
            return go_on(self.parts[rung.step], rung.validation or 0.0)

        place = self.folder / "trials" / name
        model = self.objective.train(
            genes, place, list(self.parts), told, resume=resume, keeps=keeps
        )
        if not last:
            return None
        model.save_pretrained(place / "adapter")
        self._note(name, genes, last[0], str(place / "adapter"))
        return Finished(last[0].validation or 0.0, last[0].parameters)

    def _note(self, name: str, genes: Genes, rung: Rung, adapter: str | None) -> None:
        observation = Observation(
            time=time.time(),
            configuration=name,
            genes=genes,
            step=rung.step,
            validation=rung.validation,
            parameters=rung.parameters,
            is_finished=rung.is_last,
            adapter=adapter,
            steps=rung.steps,
            tokens=rung.tokens,
            train_seconds=rung.train_seconds,
            eval_seconds=rung.eval_seconds,
        )
        append(self.folder, observation)


@cache
def of_this_process(folder: str) -> Trials:
    """Trials of a folder, made once: a search may call many in one process."""
    return Trials(folder)
