"""Does a worker's memory grow with the genomes that it trains? 300 of them through one worker.

    python benchmarks/memory/memory.py [--base tiny|minilm] [--genomes 300]

Adapters of every kind (ranks, modules, alpha, dropout, rsLoRA, DoRA, batch sizes, fresh and
inherited) are trained for a few steps and saved by one real worker process. Prints its resident
memory after every 20 genomes, and exits with 1 if that grew by more than 5 % from the 20th on.
`tiny` is a small random Llama that needs no further package, `minilm` the quickstart's base.
Takes a minute with `tiny` on two cores, several with `minilm`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import psutil

from coralx.config import Config, load_config
from coralx.doctor.check_subject import specimen_config
from coralx.execution.executor import StatusUpdate
from coralx.execution.local import LocalExecutor
from coralx.records.events import WorkerStarted
from coralx.records.genomes import ALL_LINEAR, Genes, Genome
from coralx.records.jobs import Horizon, Job
from coralx.records.results import StageResult

EVERY = 20
ALLOWED = 1.05
STEPS = 3
EVAL_ROWS = 32
BASES = ("tiny", "minilm")
MODULES = {
    "tiny": (("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "o_proj"), ALL_LINEAR),
    "minilm": (("query", "value"), ("query", "key", "value"), ALL_LINEAR),
}
QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def config_for(base: str, folder: Path) -> Config:
    """A config for one worker with one thread on that base."""
    config = load_config(QUICKSTART) if base == "minilm" else specimen_config(folder, large=False)
    fixed = {"workers": 1, "threads_per_worker": 1, "backend": "peft"}
    training = config.training.model_copy(update={"precision": "fp32"})
    runtime = config.runtime.model_copy(update=fixed)
    return config.model_copy(update={"training": training, "runtime": runtime})


def jobs(base: str, count: int, folder: Path) -> Iterator[Job]:
    """Jobs for genomes of all kinds; two of three start from the weights of the one before."""
    rng = Random(0)  # noqa: S311  genes, no secrets
    for number in range(count):
        genes = Genes(
            rank=rng.choice((2, 4, 8, 16, 32)),
            alpha_ratio=rng.choice((1.0, 2.0)),
            dropout=rng.choice((0.0, 0.1)),
            learning_rate=rng.choice((1e-4, 1e-3)),
            target_modules=rng.choice(MODULES[base]),
            batch_size=rng.choice((4, 8, 16)),
            use_rslora=rng.random() < 0.3,
            use_dora=rng.random() < 0.3,
        )
        before = folder / str((number - 1) % 3) if number % 3 else None
        yield Job(
            genome=Genome(f"g00-{number:03}", 0, genes),
            stage="memory",
            first_step=0,
            last_step=STEPS,
            horizon=Horizon(STEPS, 1),
            data_fraction=1.0,
            checkpoint=str(folder / str(number % 3)),
            eval_limit=EVAL_ROWS,
            inherit_from=str(before) if before else None,
            inherit_optimizer=number % 2 == 0,
        )


def curve(base: str, count: int, folder: Path) -> Iterator[int]:
    """Resident bytes of the worker after each genome, while it waits for the next."""
    pids = list[int]()

    def hear(signal: StatusUpdate) -> None:
        if isinstance(signal, WorkerStarted):
            pids.append(signal.pid)

    executor = LocalExecutor("peft")
    try:
        executor.start(config_for(base, folder), None, hear)
        worker = psutil.Process(pids[0])
        for outcome in executor.run(jobs(base, count, folder)):
            if not isinstance(outcome, StageResult) or len(pids) > 1:
                raise RuntimeError(f"a job failed: {outcome}")
            yield worker.memory_info().rss
    finally:
        executor.close()


def growth(sizes: Sequence[int]) -> float:
    """The last size over the one after the first `EVERY` genomes."""
    return sizes[-1] / sizes[EVERY - 1]


def main() -> int:
    """Print the curve and the verdict; 0 if memory stayed, 1 if it grew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", choices=BASES, default="tiny")
    parser.add_argument("--genomes", type=int, default=300)
    given = parser.parse_args()
    sizes = list[int]()
    print("| genomes | resident MiB |\n| --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for size in curve(given.base, given.genomes, Path(folder)):
            sizes.append(size)
            if len(sizes) % EVERY == 0:
                print(f"| {len(sizes)} | {size / 2**20:.1f} |", flush=True)
    grown = growth(sizes)
    verdict = "stays" if grown <= ALLOWED else "GROWS"
    print(f"\nThe worker's memory {verdict}: {100 * (grown - 1):+.1f} % from genome {EVERY} on.")
    return 0 if grown <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
