"""Record the learning curves of random configurations, each trained once over its whole horizon.

    python benchmarks/fidelity/record.py --liar ../shared/data/liar [--scratch FOLDER]

Draws configurations from the quickstart's search space, trains MiniLM with each on two tasks for
one epoch, and evaluates it on the way: the weights as they are and, at the stages' ends, their
exponential moving averages. Scores by row go to the scratch folder, one pair of files a training;
figures go to `curves.csv` beside this file. What the scratch folder holds is not trained again.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from average import WeightAverage
from numpy.typing import NDArray

from coralx.backends.protocol import no_beat
from coralx.config.load import parse_config, parse_yaml
from coralx.config.schema import Config
from coralx.metrics.classification import auroc, eval_loss
from coralx.records.genomes import Genes, Genome
from coralx.records.jobs import Job
from coralx.rng import generator
from coralx.schedule.stages import horizon_of, schedule_of
from coralx.search.space import space_of
from coralx.tasks.protocol import Encoded, Scores
from coralx.training.inference import predict
from coralx.training.initial_weights import StageStart
from coralx.training.loop import Trace, Trainer
from coralx.training.peft import PeftBackend
from coralx.training.precision import autocast

HERE = Path(__file__).parent
QUICKSTART = HERE.parents[1] / "configs" / "quickstart.yaml"
POINTS = (2.5, 3.75, 5.0, 7.5, 10.0, 15.0, 20.0, 40.0, 70.0, 100.0)
"""Where a curve is evaluated, in per cent of the horizon."""
STAGE_ENDS = (5.0, 20.0)
"""Where averages are evaluated, too, and the whole validation split instead of its beginning."""
DECAYS = (0.9, 0.98)
ROWS = 1920
EVAL_ROWS = 512
TRAIN_LOSSES = 50
SEED = 42
TASKS: dict[str, dict[str, Any]] = {
    "tweets": {
        "train": "builtin:tweets",
        "validation_fraction": 1024 / 22812,
        "test_fraction": 2000 / 22812,
    },
    "liar": {
        "train": "train.tsv",
        "header": False,
        "text": 2,
        "label": 1,
        "labels": {
            "real": ["true", "mostly-true", "half-true"],
            "fake": ["pants-fire", "false", "barely-true"],
        },
        "validation_fraction": 1024 / 10269,
        "test_fraction": 2000 / 10269,
    },
}


def config_of(task: str, liar: Path) -> Config:
    """The quickstart's config with the task's data, and stages that end at 5, 20 and 100 %."""
    values = parse_yaml(QUICKSTART.read_text(encoding="utf-8"), str(QUICKSTART))
    data = dict(TASKS[task])
    if task == "liar":
        data["train"] = str(liar / data["train"])
        values["data"] = data
    else:
        values["data"] |= data
    values["data"]["limit"] = ROWS
    values["training"]["precision"] = "bf16"
    values["hyperband_config"]["training_stages"] = [
        {"name": f"S{i}", "epoch_budget": 1, "data_percentage": end, "survival_rate": 1}
        for i, end in enumerate((*STAGE_ENDS, 100))
    ]
    return parse_config(values, f"fidelity {task}")


class Recorder(PeftBackend):
    """The PEFT backend, evaluating at many points of one training."""

    def open(self, config: Config) -> None:
        """Load data and base."""
        self.prepare(config, None, 1, lambda text: print(text, flush=True))
        stages = schedule_of(config.hyperband_config)
        steps = len(self._material.train.ids) // config.training.batch_size
        self._horizon = horizon_of(stages, steps, config.training.warmup_ratio)

    def record(
        self, genes: Genes, number: int
    ) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
        """One row a point, and the scores of each evaluation by name."""
        genome = Genome(f"fidelity-{number:02d}", 0, genes)
        job = Job(genome, "fidelity", 0, 0, self._horizon, 1.0, None)
        with self._adapter(genome, job.trained_shape):
            trainer = self._training.trainer(job, StageStart(0))
            averages = [WeightAverage(trainer.parameters, decay) for decay in DECAYS]
            for average in averages:
                trainer.optimizer.register_step_post_hook(average.update)
            scores: dict[str, NDArray[Any]] = {"labels": self._split("validation").labels}
            return list(self._curve(job, trainer, averages, scores)), scores

    def _split(self, name: str) -> Encoded:
        """The rows of a split; a run of one task has one part."""
        (part,) = self._material.parts
        return part.splits[name].rows

    def _curve(
        self,
        job: Job,
        trainer: Trainer,
        averages: Sequence[WeightAverage],
        scores: dict[str, NDArray[Any]],
    ) -> Iterator[dict[str, Any]]:
        """Train from point to point; ends where the training diverges."""
        total = self._horizon.total_steps
        losses: list[float] = []
        seconds = 0.0
        for checkpoint, point in enumerate(POINTS, start=1):
            last = math.ceil(total * point / 100)
            job = replace(job, first_step=job.last_step, last_step=last)
            trace = Trace()
            trainer.run(
                job, trace, lambda _: None, no_beat, keep=lambda: None, keep_seconds=math.inf
            )
            losses += trace.losses
            seconds += trace.seconds
            if trace.divergence is not None:
                return
            row: dict[str, float | None] = {"checkpoint": checkpoint, "point": point}
            row["steps"] = last
            ends_stage = point in STAGE_ENDS
            row |= self._score("", f"raw-{point:g}", None if ends_stage else EVAL_ROWS, scores)
            if ends_stage:
                for average, decay in zip(averages, DECAYS, strict=True):
                    with average.in_place():
                        name = f"ema{round(100 * decay)}"
                        row |= self._score(f"{name}_", f"{name}-{point:g}", EVAL_ROWS, scores)
            row["train_loss"] = float(np.mean(losses[-TRAIN_LOSSES:]))
            row["train_seconds"] = seconds
            if point == 100:
                test = self._split("test")
                final = self._predict(test)
                row |= {"test_auroc": auroc(final, test.labels)}
                row |= {"test_loss": eval_loss(final, test.labels)}
                scores |= {"test": final, "test_labels": test.labels}
            yield row
        scores["train_losses"] = np.asarray(losses)

    def _score(
        self, prefix: str, name: str, limit: int | None, scores: dict[str, NDArray[Any]]
    ) -> dict[str, float | None]:
        """AUROC and loss on the first EVAL_ROWS rows; the scores of `limit` are kept."""
        data = self._split("validation").first(limit)
        found = self._predict(data)
        scores[name] = found.astype(np.float32)
        judged, labels = found[:EVAL_ROWS], data.labels[:EVAL_ROWS]
        return {
            f"{prefix}auroc": auroc(judged, labels),
            f"{prefix}eval_loss": eval_loss(judged, labels),
        }

    def _predict(self, data: Any) -> Scores:
        (part,) = self._material.parts
        return predict(self._model, part.task, data, lambda: autocast("bf16", self._device))

    def common(self, genes: Genes) -> dict[str, Any]:
        """The columns that are the same in every row of a training."""
        shape = self._base.model.config
        modules = genes.target_modules
        return {
            "base_model": "all-MiniLM-L6-v2",
            "hidden_size": shape.hidden_size,
            "layers": shape.num_hidden_layers,
            "lora_rank": genes.rank,
            "alpha_ratio": genes.alpha_ratio,
            "dropout": genes.dropout,
            "target_modules": modules if isinstance(modules, str) else "+".join(modules),
            "learning_rate": genes.learning_rate,
            "batch_size": genes.batch_size,
            "dataset_size": len(self._material.train.ids),
            "warmup_steps": self._horizon.warmup_steps,
            "total_steps": self._horizon.total_steps,
            "eval_rows": EVAL_ROWS,
        }


def collect(scratch: Path, target: Path) -> None:
    """Write every training's rows into one table, by task and configuration."""
    rows = [row for path in sorted(scratch.glob("*.json")) for row in json.loads(path.read_text())]
    figures = ("auroc", "eval_loss", "ema90_auroc", "ema90_eval_loss", "ema98_auroc")
    last = ("ema98_eval_loss", "train_loss", "test_auroc", "test_loss", "train_seconds")
    first = [name for name in rows[0] if name not in {*figures, *last}]
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*first, *figures, *last], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _cell(row.get(name)) for name in writer.fieldnames})


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def main() -> None:
    """Train what the scratch folder lacks, and write the table after each training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--liar", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=Path("fidelity-scratch"))
    parser.add_argument("--configs", type=int, default=20)
    given = parser.parse_args()
    given.scratch.mkdir(parents=True, exist_ok=True)
    recorders = {task: Recorder() for task in TASKS}
    for task, recorder in recorders.items():
        recorder.open(config_of(task, given.liar))
    space = space_of(config_of("tweets", given.liar))
    for number, genes in enumerate(space.sample(given.configs, generator(SEED, "fidelity"))):
        for task, recorder in recorders.items():
            path = given.scratch / f"{task}-{number:02d}.json"
            if path.exists():
                continue
            began = time.monotonic()
            rows, scores = recorder.record(genes, number)
            np.savez_compressed(path.with_suffix(".npz"), allow_pickle=False, **scores)
            common = {"task": task, "config": number, **recorder.common(genes)}
            path.write_text(json.dumps([common | row for row in rows]))
            collect(given.scratch, HERE / "curves.csv")
            taken = time.monotonic() - began
            result = rows[-1].get("test_auroc") if rows else None
            print(f"{path.stem}: {taken:.0f} s, test AUROC {result}, {genes}", flush=True)


if __name__ == "__main__":
    main()
