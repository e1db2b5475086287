"""Who takes part, by which command, and how one of them is run and scored."""

from __future__ import annotations

import datetime
import json
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import coralx_contestant as coralx
import observations
from clock import Timed, timed
from observations import Observation, Run, Score
from workloads import HERE, Setting, Workload, is_of, machine

NAIVE = "naive"
FULL = "coralx full"

PEERS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "optuna tpe": ("optuna", "optuna_peer.py", ("tpe",)),
    "optuna nsga2": ("optuna", "optuna_peer.py", ("nsga2",)),
    "ray asha": ("ray", "ray_peer.py", ()),
    "syne tune asha": ("syne_tune", "syne_peer.py", ()),
    "random halving": ("coralx", "halving_peer.py", ()),
}
"""By name: the package that it needs, its script, and what that is told."""

NAMES = (NAIVE, FULL, *PEERS, *(arm for arm in coralx.ARMS if arm != FULL))

FIXED_LIST = (NAIVE, FULL)
"""Those that train a list of configurations to the end: the best is known when all are done."""

FRESH_SECONDS = 120.0
"""For so long a piece that was timed after one contestant is also that before the next."""

SMOKE_SECONDS = 900.0
"""A contestant's in a smoke test, at most: these machines are slow at times."""

MOST_OFF = 1e-3
"""By how much AUROC of CoralX's own and of plain transformers may differ for the same adapter."""


class Failed(Exception):
    """A process of the benchmark did not do what it is for."""


def why_absent(name: str) -> str | None:
    """What a contestant lacks on this machine; None where it can take part."""
    package = PEERS[name][0] if name in PEERS else "coralx"
    return None if find_spec(package) else f"the package {package} is not installed"


def file_of(results: Path, name: str, workload: str, seed: int) -> Path:
    """Where a contestant's results lie."""
    ending = "jsonl" if name == NAIVE else "json"
    return results / workload / f"{name.replace(' ', '-')}-{seed}.{ending}"


@dataclass
class Pieces:
    """Times the fixed piece, in a process of its own."""

    last: tuple[str, float, dict[str, float]] | None = None
    """What it was of, when, and the figures."""

    def take(self, setting: Setting, *, may_be_old: bool) -> dict[str, float]:
        """Seconds and CPU seconds of the piece."""
        key = json.dumps([setting.workload, setting.seed, setting.cores])
        if may_be_old and self.last and self.last[0] == key and self._is_fresh:
            return self.last[2]
        own = replace(setting, folder=f"{setting.folder}-piece")
        figures: dict[str, float] = _measured("piece", own, "piece.json")
        self.last = (key, time.monotonic(), figures)
        return figures

    @property
    def _is_fresh(self) -> bool:
        return self.last is not None and time.monotonic() - self.last[1] < FRESH_SECONDS


def _measured(what: str, setting: Setting, file: str) -> Any:
    """What the scorer says, run as a process of its own."""
    folder = setting.save().parent
    (folder / file).unlink(missing_ok=True)
    command = [sys.executable, str(HERE / "scorer.py"), what, str(folder)]
    done = timed(command, folder, log=f"{what}.log")
    if done.exit_code:
        raise Failed(f"{what} of {setting.workload} failed; see {folder / f'{what}.log'}")
    return json.loads((folder / file).read_text(encoding="utf-8"))


def run_naive(setting: Setting, results: Path) -> None:
    """The naive trainings that are missing, each appended as soon as it is done."""
    folder = setting.save().parent
    file = file_of(results, NAIVE, setting.workload, setting.seed)
    done = timed([sys.executable, str(HERE / "naive.py"), str(folder), str(file)], folder)
    if done.exit_code:
        raise Failed(f"naive training failed; see {folder / 'log'}")


def run(
    name: str,
    setting: Setting,
    budget: float,
    per_training: float,
    pieces: Pieces,
    *,
    is_smoke: bool = False,
) -> Run:
    """A contestant's run with a time of `budget` naive trainings, each of which takes as long as
    `per_training` pieces; timed, then scored. `is_smoke`: until the first adapter is finished."""
    shutil.rmtree(setting.folder, ignore_errors=True)
    before = pieces.take(setting, may_be_old=True)
    limit = SMOKE_SECONDS if is_smoke else budget * per_training * before["seconds"]
    if name == FULL:
        limit = math.inf
    setting = replace(setting, seconds=limit)
    folder = setting.save().parent

    def is_enough() -> bool:
        if not is_smoke or name == FULL:  # so that no measured run has its ledger read meanwhile
            return False
        return any(each.is_finished for each in _observations(name, folder))

    done = timed(_command(name, setting), folder, limit, is_enough)
    after = pieces.take(setting, may_be_old=False)
    seen = _observations(name, folder)
    is_cut_short = done.seconds >= limit or is_enough()
    if not is_cut_short and (done.exit_code or not seen):  # to tell nothing in time is no failure
        raise Failed(f"{name} failed after {done.seconds:.0f} s; see {folder / 'log'}")
    space = Workload(setting).space
    outside = [each.genes for each in seen if name in PEERS and not is_of(space, each.genes)]
    if outside:
        raise Failed(f"{name} trained what is not in the space: {outside[0]}")
    return _recorded(name, setting, done, [before, after], seen)


def _command(name: str, setting: Setting) -> list[str]:
    if name in coralx.ARMS:
        return coralx.command(name, setting)
    _, script, words = PEERS[name]
    return [sys.executable, str(HERE / script), setting.folder, *words]


def _observations(name: str, folder: Path) -> list[Observation]:
    if name in coralx.ARMS:
        return list(coralx.observations(folder))
    return observations.read(folder)


def _recorded(
    name: str,
    setting: Setting,
    done: Timed,
    pieces: Sequence[dict[str, float]],
    seen: Sequence[Observation],
) -> Run:
    adapters = [each.adapter for each in seen if each.adapter is not None]
    folder = Path(setting.folder)
    (folder / "adapters.json").write_text(json.dumps(adapters), encoding="utf-8")
    scored: dict[str, dict[str, float | None]] = _measured("score", setting, "scores.json")
    return Run(
        contestant=name,
        workload=setting.workload,
        seed=setting.seed,
        rows=Workload(setting).digest,
        machine=machine(setting),
        date=datetime.datetime.now().isoformat(timespec="seconds"),
        began=done.began,
        seconds=round(done.seconds, 3),
        limit=None if name == FULL else round(setting.seconds, 3),
        processes=coralx.workers(folder) if name in coralx.ARMS else setting.cores,
        cpu_seconds=round(done.cpu_seconds, 3),
        others_seconds=round(done.others_seconds, 3),
        pieces=list(pieces),
        observations=[_short(each, folder) for each in seen],
        scores={_under(path, folder): Score(**score) for path, score in scored.items()},
    )


def _short(observation: Observation, folder: Path) -> Observation:
    """Without the machine's paths."""
    adapter = observation.adapter
    return replace(observation, adapter=_under(adapter, folder) if adapter else None)


def _under(path: str, folder: Path) -> str:
    place = Path(path)
    return str(place.relative_to(folder)) if place.is_relative_to(folder) else path


def disagreement(run: Run) -> float:
    """The largest difference between a contestant's own AUROC of a finished adapter on validation
    and that of plain transformers in float32."""
    off = [0.0]
    for seen in run.observations:
        score = run.scores.get(seen.adapter or "")
        if score and score.validation is not None and seen.validation is not None:
            off.append(abs(score.validation - seen.validation))
    return max(off)
