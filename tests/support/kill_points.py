"""Kills a simulated search at random operations on files, again during its resumes, and compares.

    python tests/support/kill_points.py POINTS SEED

in an empty folder. Every attempt is a fork that runs the command line and sends itself SIGKILL
right before its n-th operation (opening, renaming, deleting, ... of a file). Prints one JSON
object.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from coralx.backends.simulated import SimulatedBackend
from coralx.cli import main
from coralx.records.events import (
    Event,
    GenerationCompleted,
    GenerationStarted,
    RunCompleted,
    StageCompleted,
    StageDecided,
)
from coralx.storage.ledger import Ledger

CONFIG = """
experiment: {name: killed, seed: 5}
data: {steps_per_epoch: 200}
evolution: {population_size: 6, generations: 3, pbt_quantile: 0.25}
runtime: {backend: simulated}
"""
OPERATIONS = {
    *("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.scandir"),
    *("shutil.rmtree", "shutil.copyfile"),
}
DECISIONS = (GenerationStarted, StageDecided, GenerationCompleted, RunCompleted)
RUN = Path("runs/killed")


@contextmanager
def counted(deadly: int | None, tally: Path) -> Iterator[None]:
    """Count operations below the working folder, and die right before number `deadly`."""
    seen = 0
    here = os.getcwd()

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in OPERATIONS or not isinstance(arguments[0], str | os.PathLike):
            return
        path = os.path.abspath(os.fspath(arguments[0]))
        if not path.startswith(f"{here}/runs"):
            return
        seen += 1
        if seen == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hear)
    yield
    tally.write_text(str(seen))


def attempt(arguments: list[str], deadly: int | None) -> tuple[int, int]:
    """Run the command line in a fork; its exit code or negative signal, and its operations."""
    tally = Path("tally")
    tally.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        with open("output", "ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.fsync = lambda _: None  # nothing here outlives a loss of power
        sys.argv = ["coralx", *arguments]
        code = 0
        try:
            with counted(deadly, tally):
                try:
                    main()
                except SystemExit as ended:
                    code = int(ended.code or 0)
        except BaseException:
            code = 99
        sys.stdout.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(tally.read_text()) if tally.exists() else 0


def logged_trainings(log: Path) -> None:
    """Have every training write down that it began, outside of the run folder."""
    train = SimulatedBackend.train

    def logging(self: SimulatedBackend, job: Any, *rest: Any) -> Any:
        with open(log, "a") as file:
            file.write(f"{job.genome.id} {job.stage}\n")
        return train(self, job, *rest)

    SimulatedBackend.train = logging


def story(folder: Path) -> list[Event]:
    """What was trained and decided, in order."""
    kept: list[Event] = []
    for event in Ledger.read_events(folder / "ledger.jsonl"):
        if isinstance(event, StageCompleted):
            kept.append(replace(event, result=replace(event.result, checkpoint=None)))
        elif isinstance(event, DECISIONS):
            kept.append(event)
    return kept


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a run but those that tell of times and machines."""
    machine = {"ledger.jsonl", "report.json", "run.lock"}
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in found
        if path.name not in machine
    }


def search(kills: list[int]) -> int:
    """Run the search to its end, killed before those operations of its attempts; how often a kill
    hit."""
    hits = 0
    for deadly in [*kills, None]:
        begun = (RUN / "ledger.jsonl").exists() and b"\n" in (RUN / "ledger.jsonl").read_bytes()
        arguments = ["--resume", "killed"] if begun else ["config.yaml", "--name", "killed"]
        code, _ = attempt(["evolve", *arguments], deadly)
        if code == -signal.SIGKILL:
            hits += 1
        elif code != 0:
            raise SystemExit(
                f"exit code {code} after {kills}: {Path('output').read_text()[-3000:]}"
            )
    return hits


def run(points: int, seed: int) -> dict[str, Any]:
    """Kill at so many points; what came of it."""
    rng = random.Random(seed)
    Path("config.yaml").write_text(CONFIG)
    log = Path("trainings")
    logged_trainings(log)
    log.write_text("")
    code, operations = attempt(["evolve", "config.yaml", "--name", "killed"], None)
    assert code == 0, Path("output").read_text()
    whole, whole_files = story(RUN), files(RUN)
    hits, most_repeated, differing = 0, 0, []
    while hits < points:
        shutil.rmtree(RUN)
        log.write_text("")
        Path("output").unlink()
        kills = [rng.randint(1, operations) for _ in range(rng.choice([1, 1, 2, 3]))]
        hit = search(kills)
        hits += hit
        counts = Counter(log.read_text().splitlines())
        repeated = sum(count - 1 for count in counts.values())
        most_repeated = max(most_repeated, repeated - hit)
        if story(RUN) != whole or files(RUN) != whole_files:
            differing.append(kills)
    return {
        "operations": operations,
        "kills": hits,
        "differing": differing,
        "trained_twice_beyond_one_a_kill": most_repeated,
        "trainings": sum(isinstance(event, StageCompleted) for event in whole),
    }


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
