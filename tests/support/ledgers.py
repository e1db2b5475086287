"""An event of every kind, and folders to be filled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coralx.errors import DamagedRunError
from coralx.records.derivations import Derivation
from coralx.records.events import (
    AttemptFailed,
    BudgetSpent,
    CheckpointRestored,
    DerivationFailed,
    Event,
    FrontCompared,
    FrontMeasured,
    GenerationCompleted,
    GenerationStarted,
    GenomeDerived,
    GenomeFailed,
    MeasurementFailed,
    RunCompleted,
    RunResumed,
    RunStarted,
    StageCompleted,
    StageDecided,
    TrainedBeside,
    WorkerStarted,
    WorkerStopped,
)
from coralx.records.genomes import Genes, Genome
from coralx.records.results import Comparison, Divergence, Interval, Measurement, Trend
from coralx.records.run_facts import Settings
from coralx.records.verdicts import Cut, Fail, Finish, Promote, Stop
from coralx.storage.ledger import Ledger
from tests.support.factories import make_facts, make_genome, make_result

EVENTS: tuple[Event, ...] = (
    RunStarted(
        format=1,
        run="täst",
        mode="simulation",
        seed=2**63 - 1,
        facts=make_facts(),
        settings=Settings(workers=2, threads_per_worker=1, precision="fp32"),
        versions={"python": "3.11"},
        hardware={"cores": 2, "processor": "x"},
        startup_seconds=0.1,
    ),
    WorkerStarted(worker=0, pid=17, device="cpu", base_loads=1, load_seconds=1e-05),
    GenerationStarted(
        0,
        (
            make_genome("a"),
            Genome("b", 1, Genes(target_modules=("query", "value")), ("a",), "a"),
        ),
    ),
    StageCompleted(
        0,
        make_result(
            "a",
            {"auroc": 0.1 + 0.2, "loss_slope": -1e-05, "f1": None},
            loss_trend=Trend(-1e-05, -2e-05, 1e-07),
            checkpoint="/x/a/S0",
        ),
    ),
    StageCompleted(0, make_result("b", divergence=Divergence(3, "loss"))),
    StageCompleted(
        0,
        replace(
            make_result("b", divergence=Divergence(3, "loss", "exploded", 1e300, 0.7)),
            curve=(0.1 + 0.2, 1e-9),
        ),
    ),
    CheckpointRestored(0, make_result("a", checkpoint="/x/a/S0")),
    GenomeFailed(0, "c", "S0", "killed\nby the kernel"),
    StageDecided(
        0,
        "S0",
        (
            Promote("a"),
            Finish("d"),
            Cut("e", place=3, quota=2),
            Stop("b", "loss is not finite", None, 3),
            Fail("c", "died"),
        ),
        not_judged=("a",),
        warnings=("too strict",),
    ),
    GenomeDerived(
        0,
        Genome("d00-00-0a1b", 0, Genes(rank=4), derived=Derivation("truncate", ("a",), rank=4)),
        make_result("d00-00-0a1b", {"auroc": 0.9}, stage="S3", last_step=0),
    ),
    DerivationFailed(
        0,
        Genome(
            "d00-01-0c2d", 0, Genes(), derived=Derivation("soup", ("a", "d"), weights=(0.75, 0.25))
        ),
        "died",
    ),
    GenerationCompleted(0, ("a", "d")),
    RunResumed(0.5, 2, 1.25, {"evolution": {"generations": 3, "elite_fraction": 0.1}}),
    FrontMeasured(Measurement("a", {"auroc": 0.9}, {"auroc": Interval(0.9, None, 1.0)})),
    FrontMeasured(Measurement(None, {}, {}, scores="5c07e5")),
    FrontCompared((Comparison("a", None, "auroc", 0.1, -0.0, 0.2),)),
    MeasurementFailed(None, "a row is too long"),
    AttemptFailed("a", "S0", 1.5),
    WorkerStopped(worker=0, base_loads=1, jobs=4),
    RunCompleted(("a",)),
    TrainedBeside(make_result("_baseline", {"auroc": 0.5})),
    BudgetSpent("budget.max_steps = 5"),
)


def damage_in(path: Path) -> str:
    with pytest.raises(DamagedRunError) as caught:
        Ledger.read(path)
    assert caught.value.exit_code == 4
    return caught.value.message


def fill(folder: Path) -> None:
    (folder / "one.bin").write_bytes(b"\x00\x01")
    (folder / "two.txt").write_text("two", encoding="utf-8")
