"""CoralX's own command line as a contestant, and its ledger read as observations."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from observations import Observation
from workloads import HERE, Setting, Workload, drawn, modules_of, written

from coralx.records.events import (
    GenerationStarted,
    GenomeDerived,
    RunStarted,
    StageCompleted,
    StageDecided,
)
from coralx.records.genomes import Genome
from coralx.records.results import StageResult
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Entry, Ledger

RUN = "bench"
ENDLESS = "evolution.generations=1000"
"""A search is ended by its time."""

WITHOUT_DERIVED = "evolution.derive.share=0"
WITHOUT_PRIORS = "search_space.learning_rate={low: 5.0e-5, high: 5.0e-3, log: true}"
"""The range that CoralX takes where a config leaves it out."""

ARMS: dict[str, tuple[str, ...]] = {
    "coralx": (ENDLESS,),
    "coralx without derived": (ENDLESS, WITHOUT_DERIVED),
    "coralx without priors": (ENDLESS, WITHOUT_PRIORS),
    "coralx without either": (ENDLESS, WITHOUT_DERIVED, WITHOUT_PRIORS),
    "coralx full": (),
}


def command(arm: str, setting: Setting) -> list[str]:
    """What a user would type."""
    words = [sys.executable, "-m", "coralx", "evolve", str(HERE / f"{setting.workload}.yaml")]
    words += ["--name", RUN, "--quiet"]
    common = [
        f"experiment.seed={setting.seed}",
        f"training.precision={setting.precision}",
        "runtime.keep_checkpoints=all",
    ]
    for each in (*setting.coralx_settings, *common, *_of_arm(arm, setting)):
        words += ["--set", each]
    return [*words, "--mode", "full"] if arm == "coralx full" else words


def _of_arm(arm: str, setting: Setting) -> list[str]:
    if arm != "coralx full":
        return list(ARMS[arm])
    return [
        f"evolution.population_size={setting.trainings}",
        "evolution.generations=1",
        f"evolution.seed_genomes={_recipes(setting)}",
    ]


def _recipes(setting: Setting) -> str:
    """The naive contestant's configurations, as a list in YAML."""
    recipes = []
    for genes in drawn(Workload(setting).space, setting.trainings, setting.seed):
        words = {**genes, "target_modules": modules_of(genes)}
        recipes.append(words)
    return _flow(recipes)


def _flow(value: Any) -> str:
    """In YAML's flow style, which `--set` reads."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return repr(value) if isinstance(value, float) else str(value)


def workers(folder: Path) -> int:
    """How many the run in `folder` had."""
    ledger = RunLayout(folder / "runs" / RUN).ledger
    first = Ledger.read(ledger)[0].event if ledger.is_file() else None
    return first.settings.workers if isinstance(first, RunStarted) else 1


def observations(folder: Path) -> Iterator[Observation]:
    """What the run in `folder` found out, and when. There is none where it never began."""
    layout = RunLayout(folder / "runs" / RUN)
    if not layout.ledger.is_file():
        return
    genomes: dict[str, Genome] = {}
    last = ""
    for entry in Ledger.read(layout.ledger):
        event = entry.event
        if isinstance(event, RunStarted):
            last = (event.config or {})["hyperband_config"]["training_stages"][-1]["name"]
        elif isinstance(event, GenerationStarted):
            genomes |= {genome.id: genome for genome in event.genomes}
        elif isinstance(event, StageDecided):
            genomes |= {genome.id: genome for genome in event.newborn}
        elif isinstance(event, GenomeDerived):
            yield _observation(entry, event.genome, event.result, layout, is_finished=True)
        elif isinstance(event, StageCompleted):
            genome, result = genomes[event.result.genome], event.result
            is_finished = result.stage == last and result.divergence is None
            yield _observation(entry, genome, result, layout, is_finished=is_finished)


def _observation(
    entry: Entry, genome: Genome, result: StageResult, layout: RunLayout, *, is_finished: bool
) -> Observation:
    genes = {name: written(value) for name, value in asdict(genome.genes).items()}
    remark: str = genome.derived.operator if genome.derived else ""
    if genome.inherits is not None:
        remark = f"inherits {result.inherited_steps} steps"
    return Observation(
        time=entry.timestamp,
        configuration=genome.id,
        genes=genes,
        step=result.last_step,
        validation=result.metrics.get("auroc"),
        parameters=result.metrics.get("trainable_parameters") or 0.0,
        is_finished=is_finished,
        adapter=str(layout.checkpoint(genome.id, result.stage)) if is_finished else None,
        steps=result.steps,
        tokens=result.trained_tokens,
        train_seconds=result.train_seconds,
        eval_seconds=result.eval_seconds,
        remark=remark,
    )
