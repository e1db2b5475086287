"""CoralX's own search on a table: its real engine, in memory, with an executor that looks results
up instead of training.

Warm starts cannot be replayed from recorded curves, so every config has `inherit: off`; nor can
adapters be derived.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from curve_table import CHOICE, CORALX_GENES, WHOLE, Point, Table
from tape import BudgetSpent, Tape

from coralx.config import Config, parse_config
from coralx.engine.engine import Engine
from coralx.execution.executor import AnyJob, JobOutcome, Listener
from coralx.records.genomes import Genes
from coralx.records.jobs import Job
from coralx.records.results import StageResult
from coralx.records.run_facts import Facts, Settings
from coralx.storage.ledger import Ledger

ROWS = 10**9
"""Imagined training rows: so many that steps cut a curve at any share."""

NEVER_ENDING = 10_000
"""Generations: the budget ends a search, not their number."""

QUALITY, SIZE = "eval_loss", "trainable_parameters"
FIXED = {"rank": [16], "alpha_ratio": [1.0], "dropout": [0.0], "learning_rate": [2e-4]}
"""Genes that CoralX always searches, where the table does not vary them."""


class Lookup:
    """Genes of a config made by `config_for` and the table's points, to and fro."""

    def __init__(self, table: Table) -> None:
        self._genes = table.genes

    def space(self) -> dict[str, Any]:
        """The section `search_space`: the table's values exactly. The choice without a gene of its
        own (a base model, say) stands in `target_modules`, CoralX's gene without an order."""
        space: dict[str, Any] = {name: {"choices": values} for name, values in FIXED.items()}
        for gene in self._genes:
            if gene.name == CHOICE:
                places = range(len(gene.values))
                space["target_modules"] = {"choices": [[str(place)] for place in places]}
                continue
            name = CORALX_GENES[gene.name]
            kind = int if gene.name in WHOLE else float
            space[name] = {"choices": [kind(value) for value in gene.values]}
        return space

    def point(self, genes: Genes) -> Point:
        return tuple(
            int(genes.target_modules[0])
            if gene.name == CHOICE
            else gene.values.index(getattr(genes, CORALX_GENES[gene.name]))
            for gene in self._genes
        )


class TableExecutor:
    """Answers jobs from a tape, one after the other; raises BudgetSpent when it is at its end."""

    settings = Settings(1, 1, "none")

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._lookup = Lookup(tape.table)

    def start(self, config: Config, settings: Settings | None, listener: Listener) -> Facts:
        return Facts(
            backend="table",
            backend_reason="recorded curves; nothing is trained",
            device="none",
            device_count=0,
            precision="none",
            precision_reason="nothing is trained",
            base_parameters=0,
            rows={"train": ROWS, "validation": 0, "test": 0},
        )

    def run(
        self, tasks: Iterable[AnyJob | None], deadline: float | None = None
    ) -> Iterator[JobOutcome]:
        for task in tasks:
            if not isinstance(task, Job):
                raise TypeError("a table has no test split")
            yield self._result(task)

    def close(self) -> None:
        """Nothing was started."""

    def _result(self, job: Job) -> StageResult:
        config = self._tape.table.config_at(self._lookup.point(job.genome.genes))
        share = Fraction(job.last_step, job.horizon.total_steps).limit_denominator(1000)
        loss = self._tape.look(config, share)
        return StageResult(
            genome=job.genome.id,
            stage=job.stage,
            first_step=job.first_step,
            last_step=job.last_step,
            metrics={QUALITY: loss, SIZE: self._tape.table.parameters[config]},
            judged_steps=0,
            loss_trend=None,
            train_seconds=0.0,
            eval_seconds=0.0,
            overhead_seconds=0.0,
            inherited_steps=0,
            checkpoint=None,
        )


def config_for(table: Table, rungs: Sequence[tuple[Fraction, Fraction]], **sections: Any) -> Config:
    """The config of a search on `table`. `rungs` are (share of the budget, survival rate) of each
    stage; `sections` replace or extend keys of the config's sections."""
    stages = [
        {
            "name": f"S{place}",
            "epoch_budget": share,
            "data_percentage": 100,
            "survival_rate": rate,
            "stop_when": [],
        }
        for place, (share, rate) in enumerate(rungs)
    ]
    config: dict[str, Any] = {
        "search_space": Lookup(table).space(),
        "evolution": {"generations": NEVER_ENDING, "inherit": "off", "derive": {"share": 0}},
        "objectives": [{"metric": QUALITY}],
        "hyperband_config": {"training_stages": stages},
    }
    for name, section in sections.items():
        is_mapping = isinstance(section, Mapping)
        config[name] = {**config.get(name, {}), **section} if is_mapping else section
    return parse_config(config, "replay")


def evolve(tape: Tape, config: Config, seed: int) -> None:
    """Search until the tape's budget is spent or the space is exhausted."""
    experiment = config.experiment.model_copy(update={"seed": seed})
    seeded = config.model_copy(update={"experiment": experiment})
    executor = TableExecutor(tape)
    facts = executor.start(seeded, None, print)
    try:
        Engine(seeded, facts, executor, Ledger(), None).search()
    except BudgetSpent:
        return
