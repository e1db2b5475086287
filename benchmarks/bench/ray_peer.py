"""Ray Tune: random search under ASHA, with checkpoints, a trial a core.

python ray_peer.py FOLDER
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator
from trials import PARTS, REDUCTION, of_this_process
from workloads import Setting, Workload, ranges_and_choices

from coralx.search.space import Space


def space_of(space: Space) -> dict[str, Any]:
    """The space in Ray's terms."""
    ranges, choices = ranges_and_choices(space)
    own: dict[str, Any] = {name: tune.choice(each) for name, each in choices.items()}
    for name, (low, high, log) in ranges.items():
        own[name] = tune.loguniform(low, high) if log else tune.uniform(low, high)
    return own


def trainable(config: dict[str, Any], folder: str) -> None:
    """A trial. Where ASHA stops it, Ray ends this function inside `report`."""

    def report(part: int, auroc: float) -> bool:
        with tempfile.TemporaryDirectory() as place:
            tune.report({"auroc": auroc, "part": part}, checkpoint=tune.Checkpoint(place))
        return True

    finished = of_this_process(folder).run(tune.get_context().get_trial_id(), config, report)
    if finished is not None:
        report(PARTS, finished.auroc)


def main(folder: Path) -> None:
    """Search until it is ended."""
    setting = Setting.read(folder)
    ray.init(num_cpus=setting.cores, include_dashboard=False)
    tuner = tune.Tuner(
        tune.with_parameters(trainable, folder=str(folder)),
        param_space=space_of(Workload(setting).space),
        tune_config=tune.TuneConfig(
            metric="auroc",
            mode="max",
            scheduler=ASHAScheduler(
                time_attr="part", max_t=PARTS, grace_period=1, reduction_factor=REDUCTION
            ),
            search_alg=BasicVariantGenerator(
                max_concurrent=setting.cores, random_state=setting.seed
            ),
            num_samples=-1,
            time_budget_s=setting.seconds,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "ray"), verbose=0),
    )
    tuner.fit()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
