"""A run of made-up figures in which adapters were derived, for tests of what its report says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from coralx.config import Config
from coralx.engine.state import RunState
from coralx.records.derivations import Derivation
from coralx.records.events import (
    DerivationFailed,
    Event,
    FrontMeasured,
    GenerationCompleted,
    GenerationStarted,
    GenomeDerived,
    RunCompleted,
    RunStarted,
    StageCompleted,
    StageDecided,
)
from coralx.records.genomes import Genes, Genome
from coralx.records.results import Inheritance, Interval, Measurement, StageResult
from coralx.records.run_facts import Axis, Settings
from coralx.records.verdicts import Cut, Finish, Promote
from coralx.report.summary import summarise
from coralx.storage.history import History
from coralx.storage.ledger import FORMAT, Ledger
from tests.support.factories import make_facts, make_result, simulated_config

STAGES = [
    {"name": "S0", "epoch_budget": 1, "data_percentage": 20, "survival_rate": 1, "eval_limit": 64},
    {"name": "S1", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 1},
]

BOX = (
    Axis("auroc", "maximize", "linear", 0.0, 1.0),
    Axis("trainable_parameters", "minimize", "log", 1e3, 1e6),
)

SIZE = 1000.0
"""Parameters of a genome of rank 1."""


def derived_config(**sections: Any) -> Config:
    return simulated_config(
        evolution={"population_size": 3, "generations": 1, "derive": {"share": 0.1}},
        hyperband_config={"training_stages": STAGES},
        **sections,
    )


def figures(auroc: float, rank: int, error: float | None = 0.01) -> dict[str, float | None]:
    known = {} if error is None else {"auroc_standard_error": error}
    return {"auroc": auroc, "trainable_parameters": SIZE * rank, "eval_loss": 0.5, **known}


def derivation(
    name: str, derived: Derivation, auroc: float, rank: int, **fields: Any
) -> GenomeDerived:
    genome = Genome(name, 0, Genes(rank=rank), derived.sources, derived=derived)
    result = make_result(name, figures(auroc, rank), stage="S1", last_step=0)
    changed = {"train_seconds": 0.0, "inherited_steps": 1000, "judged_steps": 0, **fields}
    return GenomeDerived(0, genome, replace(result, **changed))


DERIVED = (
    derivation(
        "d00-00",
        Derivation("truncate", ("a",), rank=2),
        0.895,
        2,
        inheritance=Inheritance(8, 0.125),
    ),
    derivation("d00-01", Derivation("scale", ("a",), factor=0.75), 0.905, 8),
    derivation("d00-02", Derivation("scale", ("d00-00",), factor=0.8), 0.896, 2),
    derivation("d00-03", Derivation("soup", ("a", "b"), rank=4, weights=(0.5, 0.5)), 0.85, 4),
    derivation(
        "d00-04",
        Derivation("drop", ("d00-03",), count=2, groups=("query", "layer 3")),
        0.84,
        3,
    ),
    derivation("d00-05", Derivation("compress", ("a",), share=0.25), 0.8, 2),
)
TEST: Mapping[str, float] = {"a": 0.88, "d00-01": 0.885, "d00-02": 0.89}


def trained(name: str, auroc: float, rank: int) -> tuple[StageResult, StageResult]:
    first = make_result(name, figures(auroc - 0.1, rank), stage="S0", last_step=200)
    second = make_result(name, figures(auroc, rank), stage="S1", last_step=1000)
    return first, replace(second, first_step=200)


def derived_run(*, derived: tuple[GenomeDerived, ...] = DERIVED) -> list[Event]:
    """Genomes a (rank 8) and b (rank 4) finish, c is cut; all the others are made of the two."""
    genomes = tuple(Genome(n, 0, Genes(rank=r)) for n, r in (("a", 8), ("b", 4), ("c", 4)))
    (a0, a1), (b0, b1) = trained("a", 0.9, 8), trained("b", 0.8, 4)
    c0, _ = trained("c", 0.6, 4)
    tested = [
        FrontMeasured(Measurement(name, {}, {"auroc": Interval(value, value - 0.02, value + 0.02)}))
        for name, value in TEST.items()
    ]
    settings = Settings(1, 1, "fp32", revision=3)
    searched: list[Event] = [
        RunStarted(
            FORMAT,
            "made",
            "hyperband",
            7,
            make_facts(8000),
            settings,
            {},
            {},
            1.0,
            reference=BOX,
        ),
        GenerationStarted(0, genomes),
        *(StageCompleted(0, result) for result in (a0, b0, c0)),
        StageDecided(0, "S0", (Promote("a"), Promote("b"), Cut("c", 3, 2))),
        *(StageCompleted(0, result) for result in (a1, b1)),
        StageDecided(0, "S1", (Finish("a"), Finish("b"))),
        *derived,
        DerivationFailed(
            0,
            Genome("d00-06", 0, Genes(), ("b",), derived=Derivation("truncate", ("b",), rank=1)),
            "no memory",
        ),
    ]
    front = RunState(derived_config(), History(searched)).front()
    return [*searched, GenerationCompleted(0, front), *tested, RunCompleted(front)]


def report_of(events: list[Event], config: Config | None = None) -> dict[str, Any]:
    """The report of a run with these events."""
    ledger = Ledger()
    for event in events:
        ledger.append(event)
    return summarise(config or derived_config(), ledger.entries, None)
