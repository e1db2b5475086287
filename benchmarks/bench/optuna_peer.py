"""Optuna: TPE with a Hyperband pruner, or NSGA-II over AUROC and size, a process a core on one
journal, as its documentation has it for several processes.

    python optuna_peer.py FOLDER tpe|nsga2
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from trials import PARTS, REDUCTION, Trials
from workloads import Genes, Setting, ranges_and_choices

from coralx.search.space import Space

NSGA2_POPULATION = 8
"""Optuna's own default, 50, would be random search for as long as searches last here."""


def study_of(folder: Path, kind: str, seed: int) -> optuna.Study:
    """The study, made by the first process that asks for it."""
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    common: dict[str, Any] = {"storage": storage, "study_name": "bench", "load_if_exists": True}
    if kind == "nsga2":
        sampler = optuna.samplers.NSGAIISampler(population_size=NSGA2_POPULATION, seed=seed)
        return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler, **common)
    return optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.HyperbandPruner(1, PARTS, REDUCTION),
        **common,
    )


def suggested(trial: optuna.Trial, space: Space) -> Genes:
    """A configuration of the trial's."""
    ranges, choices = ranges_and_choices(space)
    genes: Genes = {name: trial.suggest_categorical(name, each) for name, each in choices.items()}
    for name, (low, high, log) in ranges.items():
        genes[name] = trial.suggest_float(name, low, high, log=log)
    return genes


def work(folder: Path, kind: str, worker: int) -> None:
    """One process: trials until it is ended."""
    trials = Trials(folder)
    study = study_of(folder, kind, 1000 * trials.setting.seed + worker)
    space = trials.objective.workload.space

    def objective(trial: optuna.Trial) -> Any:
        genes = suggested(trial, space)

        def go_on(part: int, auroc: float) -> bool:
            if kind == "nsga2":  # Optuna prunes no trial that has two objectives
                return True
            trial.report(auroc, part)
            return not trial.should_prune()

        finished = trials.run(str(trial.number), genes, go_on)
        if finished is None:
            raise optuna.TrialPruned
        return tuple(finished) if kind == "nsga2" else finished.auroc

    study.optimize(objective)


def main(folder: Path, kind: str) -> None:
    """A process a core."""
    study_of(folder, kind, 0)
    command = [sys.executable, __file__, str(folder), kind]
    workers = [
        subprocess.Popen([*command, str(number)]) for number in range(Setting.read(folder).cores)
    ]
    for worker in workers:
        worker.wait()


if __name__ == "__main__":
    if len(sys.argv) > 3:
        work(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    else:
        main(Path(sys.argv[1]), sys.argv[2])
