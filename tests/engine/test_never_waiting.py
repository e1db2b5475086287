"""Workers never wait for a decision that is known already, and decisions stay the same."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.config import Config
from coralx.config.runtime import Budget
from coralx.engine.budget import Allowance
from coralx.records.events import (
    BudgetSpent,
    DerivationFailed,
    Event,
    FrontMeasured,
    GenerationCompleted,
    GenerationStarted,
    GenomeDerived,
    GenomeFailed,
    StageCompleted,
    StageDecided,
    TrainedBeside,
)
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Ledger
from coralx.system.files import MANIFEST
from tests.support.factories import simulated_config
from tests.support.many_workers import Fails, Killed, ManyWorkers, engine_of

DECISIONS = (GenerationStarted, StageDecided, GenerationCompleted)
OUTCOMES = (StageCompleted, GenomeFailed, GenomeDerived, DerivationFailed)

AUROC = {"metric": "auroc", "direction": "maximize"}
SIZE = {"metric": "trainable_parameters", "direction": "minimize"}
CALIBRATION = {"metric": "calibration", "direction": "minimize"}
FEW_RANKS = {"rank": {"choices": [4, 8]}, "learning_rate": {"low": 1e-4, "high": 2e-2, "log": True}}


def stages(*rates: float, **last: Any) -> list[dict[str, Any]]:
    """Stages of growing length, which cut at these rates and stop some genomes."""
    budgets = [(0.2, 20), (0.5, 50), (1.0, 100), (2.0, 100)][4 - len(rates) :]
    rule = {"stop_when": ["auroc < 0.72"]}
    return [
        {"name": f"S{place}", "epoch_budget": budget, "data_percentage": share,
         "survival_rate": rate, **(rule if place == 1 else {}), **last}
        for place, (rate, (budget, share)) in enumerate(zip(rates, budgets, strict=True))
    ]  # fmt: skip


def search_config(seed: int = 0, **sections: Any) -> Config:
    hyperband = {"training_stages": stages(1.0, 0.5, 0.75, 1.0), **sections.pop("schedule", {})}
    evolution = {"population_size": 8, "generations": 2, **sections.pop("evolution", {})}
    return simulated_config(
        experiment={"name": "played", "seed": seed},
        hyperband_config=hyperband,
        evolution=evolution,
        **sections,
    )


VARIANTS: dict[str, dict[str, Any]] = {
    "one objective": {"objectives": [AUROC]},
    "two objectives": {"objectives": [AUROC, SIZE]},
    "three objectives": {"objectives": [AUROC, SIZE, CALIBRATION]},
    "ties": {"objectives": [SIZE], "search_space": FEW_RANKS},
    "one metric": {"objectives": [AUROC, SIZE], "schedule": {"training_stages": [
        {**stage, "promote_by": "accuracy"} for stage in stages(0.5, 0.5, 0.5, 1.0)]}},
    "constraints": {"objectives": [AUROC, CALIBRATION], "constraints": ["auroc >= 0.8"]},
    "adaptive rungs": {"objectives": [AUROC, SIZE], "schedule": {"rungs": "adaptive"},
                       "evolution": {"generations": 3}},
    "brackets": {"objectives": [AUROC], "schedule": {"brackets": 2}},
    "rank growth": {"objectives": [AUROC, SIZE], "schedule": {
        "rank_growth": "by-stage", "training_stages": [
        {**stage, "rank_multiplier": 2 if place == 1 else 1}
        for place, stage in enumerate(stages(1.0, 0.5, 0.75, 1.0))]},
        "search_space": {"rank": {"choices": [4, 8, 16]}}},
    "reference points": {"objectives": [AUROC, SIZE, CALIBRATION],
                         "evolution": {"selection": "nsga3"}},
    "copies": {"objectives": [AUROC], "evolution": {"pbt_quantile": 0.25}},
    "derived": {"objectives": [AUROC, SIZE], "evolution": {"derive": {}}},
    "explosions": {"objectives": [AUROC, SIZE], "search_space": FEW_RANKS},
}  # fmt: skip


def decisions(ledger: Ledger) -> list[Event]:
    return [event for event in ledger if isinstance(event, DECISIONS)]


def outcomes(ledger: Ledger) -> set[str]:
    return {repr(event) for event in ledger if isinstance(event, OUTCOMES)}


def failing(seed: int) -> Fails:
    """One job in twelve of the search fails, whoever does it."""
    return lambda name, stage: str(name)[:1] in "gd" and hash_of(f"{seed}{name}{stage}") % 12 == 0


def hash_of(text: str) -> int:
    return sum((place + 1) * ord(letter) for place, letter in enumerate(text))


def played(config: Config, workers: ManyWorkers, ledger: Ledger | None = None) -> Ledger:
    ledger = ledger or Ledger()
    engine_of(config, ledger, workers).search()
    return ledger


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(2, 6), kill=st.integers(1, 40))
def test_whatever_the_order_of_outcomes_the_decisions_are_those_of_one_worker(
    variant: str, seed: int, count: int, kill: int
) -> None:
    config, fails = search_config(seed % 7, **VARIANTS[variant]), failing(seed)
    alone = played(config, ManyWorkers(1, fails=fails))
    together = played(config, ManyWorkers(count, seed, fails=fails))
    assert decisions(together) == decisions(alone)
    assert outcomes(together) == outcomes(alone)
    if variant == "derived":
        return  # of sources: without a run folder they are gone with the process
    cut = Ledger()
    try:
        played(config, ManyWorkers(count, seed, kill, fails), cut)
    except Killed:
        played(config, ManyWorkers(count % 3 + 1, seed + 1, fails=fails), cut)
    assert decisions(cut) == decisions(alone)
    assert outcomes(cut) == outcomes(alone)


@pytest.mark.parametrize("kill", [7, 23])
def test_a_run_folder_keeps_all_that_a_killed_run_needs(kill: int, tmp_path: Path) -> None:
    """And nothing else: who trained ahead has left no checkpoint behind."""
    config = search_config(3, **VARIANTS["derived"])
    kept = []
    for name, workers in (
        ("alone", [ManyWorkers(1)]),
        ("killed", [ManyWorkers(4, kill, kill), ManyWorkers(3)]),
    ):
        layout = RunLayout(tmp_path / name)
        layout.root.mkdir()
        ledger = Ledger()
        for executor in workers:
            with suppress(Killed):
                engine_of(config, ledger, executor, layout).search()
        folders = {path.parent.relative_to(layout.root) for path in layout.root.rglob(MANIFEST)}
        kept.append((decisions(ledger), folders))
    assert kept[0] == kept[1]


def ahead(ledger: Ledger) -> int:
    """How many results came before the decision of the stage before."""
    decided, count = set(), 0
    for event in ledger:
        if isinstance(event, StageDecided):
            decided.add((event.generation, event.stage))
        if isinstance(event, StageCompleted) and event.result.stage != "S0":
            before = f"S{int(event.result.stage[1:]) - 1}"
            count += (event.generation, before) not in decided
    return count


def test_who_is_certain_to_go_on_trains_its_next_stage_at_once() -> None:
    config = search_config(objectives=[AUROC])
    assert ahead(played(config, ManyWorkers(1))) == 0
    assert ahead(played(config, ManyWorkers(3))) > 8  # S0 lets everyone pass


@pytest.mark.parametrize("variant", ["one objective", "two objectives"])
def test_ranks_alone_can_make_a_promotion_certain(variant: str) -> None:
    schedule = {"training_stages": stages(0.5, 0.5, 0.75, 1.0)}
    config = search_config(**{**VARIANTS[variant], "schedule": schedule})
    assert ahead(played(config, ManyWorkers(4))) > 0


def test_the_order_decides_what_a_budget_of_steps_affords() -> None:
    """So nobody is trained ahead then, and the same genomes are trained whatever the workers."""
    config = search_config(objectives=[AUROC])
    allowance = Allowance(Budget(max_steps=2500))
    found = []
    for count in (1, 4):
        ledger = Ledger()
        engine_of(config, ledger, ManyWorkers(count), allowance=allowance).search()
        assert any(isinstance(event, BudgetSpent) for event in ledger)
        found.append((decisions(ledger), outcomes(ledger)))
        assert ahead(ledger) == 0
    assert found[0] == found[1]


def test_a_worker_without_a_job_trains_what_the_front_is_held_against() -> None:
    """While the search goes on; what that came to is the same. Of the test split it sees nothing
    but the untuned base."""
    config = search_config(objectives=[AUROC], runtime={"backend": "simulated", "baseline": True})
    ledgers = []
    for count in (1, 3):
        ledger = Ledger()
        engine_of(config, ledger, ManyWorkers(count, 5)).run()
        ledgers.append(ledger)
    alone, together = ledgers
    assert decisions(together) == decisions(alone)
    assert beside(together) == beside(alone)
    end = max(i for i, event in enumerate(together) if isinstance(event, GenerationCompleted))
    during = list(together)[:end]
    assert any(isinstance(event, TrainedBeside) for event in during)
    measured = [e.measurement.genome for e in during if isinstance(e, FrontMeasured)]
    assert measured == [None]
    assert not engine_of(config, together, ManyWorkers(1)).history.is_test_reused


def beside(ledger: Ledger) -> dict[str, str]:
    kept = [e for e in ledger if isinstance(e, TrainedBeside | FrontMeasured)]
    return {_key(event): repr(event) for event in kept}


def _key(event: TrainedBeside | FrontMeasured) -> str:
    if isinstance(event, TrainedBeside):
        return f"{event.result.genome} {event.result.stage}"
    return f"test {event.measurement.genome}"
