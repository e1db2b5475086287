"""Syne Tune: random search under ASHA, on its local backend, a trial a core.

python syne_peer.py FOLDER          the search
python syne_peer.py --rank 8 ...    one trial, started by Syne Tune
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from syne_tune import Reporter, StoppingCriterion, Tuner
from syne_tune.backend import LocalBackend
from syne_tune.config_space import choice, loguniform, uniform
from syne_tune.optimizer.baselines import ASHA
from trials import PARTS, REDUCTION, Trials
from workloads import Setting, Workload, ranges_and_choices

from coralx.search.space import Space

JOINT = "+"
FOLDER = "CORALX_BENCH_FOLDER"
"""The environment variable by which trials know the contestant's folder."""


def space_of(space: Space) -> dict[str, Any]:
    """The space in Syne Tune's terms."""
    ranges, choices = ranges_and_choices(space)
    own: dict[str, Any] = {name: choice(_words(each)) for name, each in choices.items()}
    for name, (low, high, log) in ranges.items():
        own[name] = loguniform(low, high) if log else uniform(low, high)
    return own


def _words(values: Sequence[Any]) -> list[Any]:
    """Without spaces, at which Syne Tune cuts the arguments of its trials."""
    return [each.replace(" ", JOINT) if isinstance(each, str) else each for each in values]


def trial(arguments: argparse.Namespace) -> None:
    """One trial. Where ASHA stops it, Syne Tune ends this process."""
    genes = {name: value for name, value in vars(arguments).items() if name in TYPES}
    genes["target_modules"] = genes["target_modules"].replace(JOINT, " ")
    report = Reporter()

    def told(part: int, auroc: float) -> bool:
        report(part=part, auroc=auroc)
        return True

    finished = Trials(os.environ[FOLDER]).run(str(os.getpid()), genes, told)
    if finished is not None:
        told(PARTS, finished.auroc)


def main(folder: Path) -> None:
    """Search until it is ended."""
    setting = Setting.read(folder)
    os.environ |= {"SYNETUNE_FOLDER": str(folder / "syne"), FOLDER: str(folder)}
    scheduler = ASHA(
        space_of(Workload(setting).space),
        metric="auroc",
        do_minimize=False,
        time_attr="part",
        max_t=PARTS,
        grace_period=1,
        reduction_factor=REDUCTION,
        random_seed=setting.seed,
    )
    tuner = Tuner(
        trial_backend=LocalBackend(entry_point=__file__),
        scheduler=scheduler,
        stop_criterion=StoppingCriterion(max_wallclock_time=setting.seconds),
        n_workers=setting.cores,
        sleep_time=0.5,
    )
    tuner.run()


TYPES = {
    "rank": int,
    "alpha_ratio": float,
    "dropout": float,
    "learning_rate": float,
    "target_modules": str,
}


def _trial_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name, kind in TYPES.items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    known, _ = parser.parse_known_args()  # Syne Tune adds some of its own
    return known


if __name__ == "__main__":
    if sys.argv[1].startswith("--"):
        trial(_trial_arguments())
    else:
        main(Path(sys.argv[1]).resolve())
