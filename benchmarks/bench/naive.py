"""The naive contestant: configurations drawn from the space, each trained to the end by plain
Trainer and PEFT, one after another, with all cores.

    python naive.py FOLDER RESULTS.jsonl

A training is a line of the results; those that are there are not run again. The fixed piece is
trained before and after each, in the same process, outside its clock.
"""

from __future__ import annotations

import datetime
import json
import sys
import time
from pathlib import Path
from typing import Any

from observations import missing_from, naive_rows
from trainer_callbacks import Rung
from trainer_objective import Objective
from workloads import Genes, Setting, drawn, machine


def training(objective: Objective, genes: Genes, folder: Path) -> dict[str, Any]:
    """One training; its clock runs from before the base is loaded to after its evaluation."""
    rungs: list[Rung] = []

    def note(rung: Rung) -> bool:
        rungs.append(rung)
        return True

    began, cpu = time.monotonic(), time.process_time()
    model = objective.train(genes, folder, go_on=note)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    (rung,) = rungs
    return {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu, 3),
        "train_seconds": round(rung.train_seconds, 3),
        "steps": rung.steps,
        "tokens": rung.tokens,
        "parameters": rung.parameters,
        "own_validation": rung.validation,
        "validation": objective.score(model, "validation"),
        "test": objective.score(model, "test"),
    }


def main(folder: Path, results: Path) -> None:
    """Run the trainings that are missing."""
    setting = Setting.read(folder)
    known = naive_rows(results)
    missing = missing_from(known, setting.trainings)
    objective = Objective(setting, threads=setting.cores)
    digest = objective.workload.digest
    if any(row["rows"] != digest for row in known):
        raise SystemExit(f"bench: {results} holds trainings on other rows; move it away")
    results.parent.mkdir(parents=True, exist_ok=True)
    configurations = drawn(objective.workload.space, setting.trainings, setting.seed)
    before = objective.piece()
    for index in missing:
        figures = training(objective, configurations[index], folder)
        after = objective.piece()
        row = {
            "index": index,
            "genes": configurations[index],
            **figures,
            "pieces": [before, after],
            "rows": digest,
            "date": datetime.datetime.now().isoformat(timespec="seconds"),
            "machine": machine(setting),
        }
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        before = after


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
