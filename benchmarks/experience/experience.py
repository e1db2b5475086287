"""Trainings that experience saves: LIAR after tweets, and tweets after LIAR, trained for real.

    python benchmarks/experience/experience.py [--seeds 1 2 3] [--data ../shared/data]
        [--folder build/experience] [--results results.csv] [--only liar] [--set KEY=VALUE ...]

Each task is searched without experience, with that of the other task's run, and with a copy of that
run whose genes were dealt out anew to its genomes: useless experience. Every genome that finished
is a row of `--results`, with all that the search had trained by then. An interrupted benchmark goes
on: runs that are complete in `--folder` are not trained again, and others are resumed.

Printed is how many trainings (steps over those of one genome that goes to the end) each took until
the best validation AUROC of the search without experience, and until 99 % of it.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from pathlib import Path
from statistics import fmean, median

from coralx.records.events import Event, GenerationStarted, StageCompleted, StageDecided
from coralx.records.genomes import Genome
from coralx.rng import generator
from coralx.storage.history import History
from coralx.storage.layout import RunLayout, is_run
from coralx.storage.ledger import Ledger

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OTHER = {"liar": "tweets", "tweets": "liar"}
ARMS = ("none", "experience", "shuffled")
LAST = "S3_finisher"
SHARES = (1.0, 0.99)
"""Of the best AUROC without experience."""


@dataclass(frozen=True)
class Finished:
    """A genome that went through all stages."""

    task: str
    seed: int
    arm: str
    genome: str
    auroc: float
    learning_rate: float
    steps: int
    """That the search had trained by then, this genome's last stage among them."""
    full: int
    """Steps of one genome that goes to the end."""


def run(
    task: str, seed: int, arm: str, folder: Path, data: Path, overrides: Sequence[str]
) -> RunLayout:
    """One search, its run folder under `folder`; what is complete is left as it is."""
    layout = RunLayout(folder / "runs" / f"{task}-{arm}-{seed}")
    if is_run(layout.root):
        if History(Ledger.read_events(layout.ledger)).completed is not None:
            return layout
        call(["evolve", "--resume", str(layout.root)], folder)
        return layout
    settings = [f"experiment.seed={seed}", *overrides]
    if task == "liar":
        for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
            settings.append(f"data.{split}={(data / 'liar' / f'{name}.tsv').resolve()}")
    command = ["evolve", str(HERE / f"{task}.yaml"), "--name", layout.name]
    command += chain.from_iterable(("--set", setting) for setting in settings)
    if arm != "none":
        earlier = folder / "runs" / f"{OTHER[task]}-none-{seed}"
        if arm == "shuffled":
            earlier = shuffled(RunLayout(earlier), folder / "shuffled", seed).root
        command += ["--learn-from", str(earlier)]
    call(command, folder)
    return layout


def call(command: Sequence[str], folder: Path) -> None:
    """`coralx` with these arguments, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    print(" ".join(command[:4]), file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "coralx", *command, "--quiet"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode not in (0, 3):  # a search without a result is a result here
        raise SystemExit(f"coralx {' '.join(command)} ended with exit code {done.returncode}")


def shuffled(layout: RunLayout, folder: Path, seed: int) -> RunLayout:
    """A copy of a run's ledger in which its genomes have each other's genes, dealt by lot: all
    results are real, and say nothing of the genes that they stand beside."""
    copy = RunLayout(folder / layout.name)
    if is_run(copy.root):
        return copy
    copy.root.mkdir(parents=True)
    events = Ledger.read_events(layout.ledger)
    genomes = list(History(events).genomes.values())
    order = generator(seed, "shuffled").permutation(len(genomes))
    dealt = {
        genome.id: replace(genome, genes=genomes[place].genes)
        for genome, place in zip(genomes, order, strict=True)
    }
    ledger = Ledger(copy.ledger)
    for event in events:
        ledger.append(with_genomes(event, dealt))
    return copy


def with_genomes(event: Event, dealt: dict[str, Genome]) -> Event:
    """The event with these genomes in place of its own of the same id."""
    if isinstance(event, GenerationStarted):
        return replace(event, genomes=tuple(dealt[genome.id] for genome in event.genomes))
    if isinstance(event, StageDecided):
        return replace(event, newborn=tuple(dealt[genome.id] for genome in event.newborn))
    return event


def finished(layout: RunLayout, task: str, seed: int, arm: str) -> list[Finished]:
    """The genomes that finished, in the order in which they did."""
    events = Ledger.read_events(layout.ledger)
    history = History(events)
    rows, steps = [], 0
    for event in events:
        if not isinstance(event, StageCompleted):
            continue
        result = event.result
        steps += result.steps
        auroc = result.metrics.get("auroc")
        if result.stage == LAST and auroc is not None:
            rate = history.genomes[result.genome].genes.learning_rate
            rows.append(
                Finished(task, seed, arm, result.genome, auroc, rate, steps, result.last_step)
            )
    return rows


def trainings(rows: Sequence[Finished], goal: float) -> float | None:
    """Until an AUROC of `goal`; None where it was not reached."""
    return next((row.steps / row.full for row in rows if row.auroc >= goal), None)


def table(rows: Sequence[Finished], seeds: Sequence[int]) -> list[str]:
    """What the rows say, in Markdown. A goal that was not reached counts as all that was
    trained."""
    lines = [
        "| task | experience | goal | trainings, by seed | median | mean, to none | best AUROC |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for task in OTHER:
        runs = {
            (arm, seed): [r for r in rows if (r.task, r.arm, r.seed) == (task, arm, seed)]
            for arm in ARMS
            for seed in seeds
        }
        known = [seed for seed in seeds if all(runs[arm, seed] for arm in ARMS)]
        for share in SHARES:
            base: list[float] = []
            for arm in ARMS if known else ():
                found, shown = [], []
                for seed in known:
                    own = runs[arm, seed]
                    goal = share * max(row.auroc for row in runs["none", seed])
                    took = trainings(own, goal)
                    found.append(own[-1].steps / own[-1].full if took is None else took)
                    shown.append(f"{found[-1]:.1f}{'' if took is not None else ' (not reached)'}")
                base = base or found
                best = fmean(max(row.auroc for row in runs[arm, seed]) for seed in known)
                lines.append(
                    f"| {task} | {arm} | {share:.0%} | {', '.join(shown)} | {median(found):.1f} | "
                    f"{fmean(found) / fmean(base):.2f} | {best:.4f} |"
                )
    return lines


def write(path: Path, rows: Sequence[Finished]) -> None:
    """The rows as a table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Finished)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def main() -> None:
    """Train what is missing, write the rows, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "experience")
    parser.add_argument("--results", type=Path, default=HERE / "results.csv")
    parser.add_argument("--only", choices=list(OTHER), nargs="+", default=list(OTHER))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    chosen = parser.parse_args()
    rows: list[Finished] = []
    for seed in chosen.seeds:
        for task in OTHER:  # what others learn from comes first
            run(task, seed, "none", chosen.folder, chosen.data, chosen.set)
        for task in chosen.only:
            for arm in ARMS:
                layout = run(task, seed, arm, chosen.folder, chosen.data, chosen.set)
                rows += finished(layout, task, seed, arm)
        write(chosen.results, rows)
    print("\n".join(table(rows, chosen.seeds)))


if __name__ == "__main__":
    main()
