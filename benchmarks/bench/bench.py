"""CoralX against naive training and the searches that others use, side by side.

    python benchmarks/bench/bench.py [--workloads tweets liar smollm2] [--seeds 1 2 3]
                                     [--only NAME ...] [--trainings 32] [--budget 8]
                                     [--data FOLDER] [--results FOLDER] [--work FOLDER]
                                     [--set KEY=VALUE ...] [--summary | --smoke]

README.md says what is compared and how. What the results folder holds is not run again: naive
training goes on training by training, a contestant that was interrupted begins anew. `--summary`
only prints what there is.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import replays
from chart import draw
from contestants import (
    MOST_OFF,
    NAIVE,
    NAMES,
    Failed,
    Pieces,
    disagreement,
    file_of,
    run,
    run_naive,
    why_absent,
)
from curves import Curve, Naive, curve_of
from observations import Run, missing_from, naive_rows
from tables import as_json, remarks, table
from workloads import NAMES as WORKLOADS
from workloads import ROOT, Setting, cores, precision

from coralx.errors import CoralXError

SMOKE = ("data.limit=64", "data.validation_fraction=0.0045", "data.test_fraction=0.0045")
"""64 training rows, 103 of each other split; so each stage has a step or more."""


def setting_for(workload: str, seed: int, name: str, given: argparse.Namespace) -> Setting:
    """What a contestant is told; its time is set later."""
    return Setting(
        workload=workload,
        seed=seed,
        data=str(given.data),
        overrides=tuple(given.settings),
        precision=precision(),
        cores=cores(),
        trainings=given.trainings,
        seconds=0.0,
        folder=str(given.work / workload / f"{name.replace(' ', '-')}-{seed}"),
    )


def naive_of(workload: str, seed: int, given: argparse.Namespace) -> Naive | None:
    """The naive trainings that are there, in the order in which they were asked for."""
    rows = naive_rows(file_of(given.results, NAIVE, workload, seed))
    wanted = [row for row in rows if row["index"] < given.trainings]
    return Naive(wanted) if wanted else None


def run_missing(given: argparse.Namespace) -> list[str]:
    """Every contestant's run that the results lack, seed by seed; what failed, in words."""
    pieces, failed = Pieces(), []
    for seed in given.seeds:
        for workload in given.workloads:
            for name in given.only:
                setting = setting_for(workload, seed, name, given)
                try:
                    if name == NAIVE:
                        _run_naive(setting, given)
                    elif why_absent(name) is None:
                        _run_other(name, setting, given, pieces)
                except Failed as error:
                    failed.append(f"{workload}, seed {seed}: {error}")
                    _say(failed[-1])
    return failed


def _run_naive(setting: Setting, given: argparse.Namespace) -> None:
    rows = naive_rows(file_of(given.results, NAIVE, setting.workload, setting.seed))
    missing = missing_from(rows, given.trainings)
    if missing:
        _say(f"{setting.workload}, seed {setting.seed}: {len(missing)} naive trainings")
        run_naive(setting, given.results)


def _run_other(name: str, setting: Setting, given: argparse.Namespace, pieces: Pieces) -> None:
    file = file_of(given.results, name, setting.workload, setting.seed)
    if file.is_file():
        return
    naive = naive_of(setting.workload, setting.seed, given)
    if naive is None:
        raise Failed(f"{name}: naive training is to be timed first")
    _say(f"{setting.workload}, seed {setting.seed}: {name}")
    outcome = run(name, setting, given.budget, naive.per_training, pieces, is_smoke=given.smoke)
    outcome.save(file)
    _say(f"  its AUROC differs from plain transformers' by {disagreement(outcome):.1e} at most")
    shutil.rmtree(setting.folder, ignore_errors=True)  # checkpoints


def _say(text: str) -> None:
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


# -- what came out -----------------------------------------------------------------------------


def runs_of(workload: str, seed: int, given: argparse.Namespace) -> list[Run]:
    """The runs that are there."""
    files = [file_of(given.results, name, workload, seed) for name in NAMES if name != NAIVE]
    return [Run.load(file) for file in files if file.is_file()]


def curves_of(workload: str, given: argparse.Namespace) -> list[Curve]:
    """A curve for every run of a workload."""
    curves = []
    for seed in given.seeds:
        naive = naive_of(workload, seed, given)
        if naive is not None:
            curves.append(naive.curve(seed))
            curves += [curve_of(each, naive) for each in runs_of(workload, seed, given)]
    return curves


def summary(given: argparse.Namespace) -> Iterator[str]:
    """The table of each workload; writes JSON and SVG beside the results."""
    everything = {}
    for workload in given.workloads:
        curves = curves_of(workload, given)
        if not curves:
            continue
        naive = [n for seed in given.seeds if (n := naive_of(workload, seed, given))]
        yield f"\n## {workload}\n"
        yield _about(naive, given)
        yield ""
        yield from table(curves, given.budget)
        yield ""
        yield from remarks(curves)
        everything[workload] = as_json(curves)
        draw(curves, workload, given.results / f"{workload}.svg")
    path = given.results / "bench.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


def _about(naive: Sequence[Naive], given: argparse.Namespace) -> str:
    """Where and on what naive training was recorded."""
    machine = naive[0].rows[0]["machine"]
    dates = sorted(row["date"][:10] for each in naive for row in each.rows)
    counts = ", ".join(str(len(each.rows)) for each in naive)
    best = ", ".join(f"{each.best['validation']:.3f} / {each.best['test']:.3f}" for each in naive)
    words = ", ".join(f"{key} {value}" for key, value in machine.items())
    return (
        f"Naive trainings recorded: {counts} of {given.trainings} a seed, {dates[0]} to "
        f"{dates[-1]} ({words}). Their best on validation / its test: {best}."
    )


def _replays(given: argparse.Namespace) -> Iterator[str]:
    """The tables of the replays; without their data, that they are missing."""
    try:
        yield from replays.tables(given.data, given.replay_seeds)
    except (CoralXError, OSError) as error:
        yield f"\nNo replays of recorded trainings, for lack of their data: {error}"


def disagreements(given: argparse.Namespace) -> Iterator[str]:
    """CoralX's figures that plain transformers do not confirm."""
    for workload in given.workloads:
        for seed in given.seeds:
            for each in runs_of(workload, seed, given):
                off = disagreement(each)
                if each.contestant.startswith("coralx") and off > MOST_OFF:
                    yield f"{workload}, seed {seed}: {each.contestant} is off by {off:.1e} AUROC"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, print what there is; the exit code."""
    given = _options(arguments)
    # Ended as by Ctrl-C, so that no contestant is left running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = [] if given.summary else run_missing(given)
    print(f"{datetime.date.today()}, {cores()} cores, times in naive trainings")
    print("\n".join(summary(given)))
    for name in NAMES:
        if (absent := why_absent(name)) is not None:
            print(f"\n{name} did not take part: {absent}.")
    if given.replay_seeds:
        print("\n".join(_replays(given)))
    wrong = [*failed, *disagreements(given)]
    for line in wrong:
        print(f"bench: {line}", file=sys.stderr)
    return 1 if wrong else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    build = ROOT / "build" / "bench"
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME")
    parser.add_argument("--trainings", type=int, default=32, help="of the naive contestant")
    parser.add_argument("--budget", type=float, default=8.0, help="of the others, in trainings")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--results", type=Path, help="default: benchmarks/results")
    parser.add_argument("--work", type=Path, help="for checkpoints; default: build/bench/work")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--replay-seeds", type=int, default=20, help="of the replays; 0: none")
    parser.add_argument("--summary", action="store_true", help="only print what there is")
    parser.add_argument("--smoke", action="store_true", help="all of it on a few rows of tweets")
    given = parser.parse_args(arguments)
    if given.smoke:
        given.workloads, given.seeds, given.trainings = ["tweets"], [1], 3
        given.settings = [*SMOKE, *given.settings]
        given.replay_seeds = min(2, given.replay_seeds)
    place = build / "smoke" if given.smoke else build
    kept = place / "results" if given.smoke else ROOT / "benchmarks" / "results"
    given.results, given.work = given.results or kept, given.work or place / "work"
    for name in ("data", "results", "work"):
        setattr(given, name, getattr(given, name).resolve())
    return given


if __name__ == "__main__":
    sys.exit(main())
