"""Random search with successive halving: cohorts of 27, of which a third goes on from each rung, a
process a core; trials are paused by the Trainer's own checkpoints.

    python halving_peer.py FOLDER
"""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from pathlib import Path

from trials import PARTS, REDUCTION, RUNGS, of_this_process
from workloads import Genes, Setting, Workload, drawn


def _advance(folder: Path, name: str, genes: Genes, part: int) -> tuple[str, float]:
    """Train to that many parts, from where the trial was paused; its AUROC there."""
    trials = of_this_process(str(folder))
    seen: list[float] = []

    def go_on(reached: int, auroc: float) -> bool:
        seen.append(auroc)
        return reached < part

    kept = trials.folder / "trials" / name
    checkpoints = sorted(kept.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    finished = trials.run(
        name, genes, go_on, resume=checkpoints[-1] if checkpoints else None, keeps=True
    )
    return name, finished.auroc if finished else seen[-1]


def main(folder: Path) -> None:
    """Cohort after cohort, until it is ended."""
    setting = Setting.read(folder)
    space = Workload(setting).space
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(setting.cores, spawn) as pool:
        for cohort in count():
            everyone = drawn(space, (cohort + 1) * PARTS, setting.seed)
            genes = {str(n): everyone[n] for n in range(cohort * PARTS, (cohort + 1) * PARTS)}
            alive = list(genes)
            for part in (*RUNGS, PARTS):
                jobs = [pool.submit(_advance, folder, name, genes[name], part) for name in alive]
                by_score = sorted((job.result() for job in jobs), key=lambda pair: -pair[1])
                alive = [name for name, _ in by_score[: max(1, len(alive) // REDUCTION)]]


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
