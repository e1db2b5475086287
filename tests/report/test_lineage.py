"""Where genomes came from: the lineage in the report, and the tree of the front's ancestry."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from coralx.api import runs as api
from coralx.records.events import (
    Event,
    GenerationStarted,
    GenomeFailed,
    StageCompleted,
    StageDecided,
)
from coralx.records.genomes import Genes, Genome
from coralx.records.results import StageResult
from coralx.records.verdicts import Cut, Fail, Finish, Promote, Replace, Stop
from coralx.report.lineage import ancestry, lineage_of
from coralx.storage.history import History
from coralx.storage.ledger import Ledger
from tests.support.factories import make_genome, make_result, simulated_config


def result(genome: str, stage: str, first: int, last: int, inherited: int = 0) -> StageCompleted:
    made = make_result(genome, {"auroc": 0.5}, stage=stage, last_step=last)
    fields = {**vars(made), "first_step": first, "inherited_steps": inherited}
    return StageCompleted(0, StageResult(**fields))


def test_every_genome_has_its_steps_and_what_became_of_it() -> None:
    """Two stages; b to f leave in every way there is, g has not been judged yet."""
    copy = Genome("x", 0, Genes(), ("a",), continues="a", enters=1)
    heir = Genome("g", 1, Genes(), ("a", "b"), inherits="a")
    history = History(
        [
            GenerationStarted(0, tuple(make_genome(name) for name in "abcde")),
            *(result(name, "S0", 0, 10) for name in "abcd"),
            GenomeFailed(0, "e", "S0", "killed"),
            StageDecided(
                0,
                "S0",
                (
                    Promote("a"),
                    Cut("b", 3, 2),
                    Stop("c", "loss > 1", 2.0, 10),
                    Replace("d", by="x"),
                    Fail("e", "killed"),
                ),
                newborn=(copy,),
            ),
            result("a", "S1", 10, 40),
            result("x", "S1", 10, 40, inherited=10),
            StageDecided(0, "S1", (Finish("a"), Finish("x"))),
            GenerationStarted(1, (heir,)),
            result("g", "S0", 0, 10, inherited=40),
            StageDecided(1, "S0", (Promote("g"),)),
        ]
    )
    found = {entry["genome"]: entry for entry in lineage_of(history)}
    assert list(found) == [*"abcde", "x", "g"]
    told = {
        name: (e["own_steps"], e["lineage_steps"], e["stage"], e["verdict"])
        for name, e in found.items()
    }
    assert told == {
        "a": (40, 40, "S1", "finished"),
        "b": (10, 10, "S0", "cut"),
        "c": (10, 10, "S0", "stopped"),
        "d": (10, 10, "S0", "replaced"),
        "e": (0, 0, "S0", "failed"),
        "x": (30, 40, "S1", "finished"),
        "g": (10, 50, "S0", None),
    }
    assert (found["x"]["continues"], found["x"]["inherits"]) == ("a", None)
    assert (found["g"]["inherits"], found["g"]["parents"]) == ("a", ["a", "b"])
    assert found["g"]["generation"] == 1


@pytest.mark.parametrize("pbt", [0.0, 0.25])
def test_the_report_of_a_search_holds_the_lineage_of_all_its_genomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pbt: float
) -> None:
    monkeypatch.chdir(tmp_path)
    evolution = {"population_size": 8, "generations": 4, "pbt_quantile": pbt}
    outcome = api.evolve(simulated_config(evolution=evolution), "run")
    report = outcome.report
    history = History(Ledger.read_events(outcome.layout.ledger))
    entries = {entry["genome"]: entry for entry in report["lineage"]}
    assert list(entries) == list(history.genomes)
    for name, entry in entries.items():
        donor = entry["inherits"] or entry["continues"]
        assert (entry["lineage_steps"] > entry["own_steps"]) == (donor is not None)
        if entry["inherits"]:
            assert entry["lineage_steps"] == (
                entry["own_steps"] + entries[entry["inherits"]]["lineage_steps"]
            )
        assert entry["own_steps"] == history.own_steps(name)
        assert entry["verdict"] is not None
    assert sum(entry["own_steps"] for entry in entries.values()) == history.trained_steps
    for member in report["front"]:
        entry = entries[member["genome"]]
        assert entry["verdict"] == "finished"
        for key in ("own_steps", "lineage_steps", "parents", "inherits", "generation"):
            assert entry[key] == member[key]
    assert any(entry["inherits"] for entry in entries.values())
    assert any(entry["continues"] for entry in entries.values()) == bool(pbt)


# -- the tree ------------------------------------------------------------------------------------


def entry(name: str, donor: str | None = None, verdict: str | None = "cut") -> dict[str, Any]:
    return {
        "genome": name,
        "inherits": donor,
        "continues": None,
        "own_steps": 10,
        "lineage_steps": 10 if donor is None else 30,
        "verdict": verdict,
    }


def drawn(lineage: list[dict[str, Any]], front: list[str]) -> list[str]:
    tree = ancestry({"lineage": lineage, "front": [{"genome": name} for name in front]})
    if tree is None:
        return []
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(tree)
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_the_tree_goes_down_from_those_trained_from_scratch() -> None:
    lineage = [
        entry("a", verdict="finished"),
        entry("b"),
        entry("c", "a"),
        entry("d", "c"),
        entry("e", "c", verdict=None),
        entry("f", "b"),
        {**entry("x"), "continues": "a", "lineage_steps": 20},
    ]
    assert drawn(lineage, ["d", "c", "e", "b", "x"]) == [
        "Ancestry of the front, by weights: own steps +inherited",
        "└── a: 10, finished",
        "    ├── c: 10 +20, on the front",
        "    │   ├── d: 10 +20, on the front",
        "    │   └── e: 10 +20, on the front",
        "    └── x: 10 +10, on the front",
    ]


def test_there_is_no_tree_where_nothing_was_inherited() -> None:
    lineage = [entry("a"), entry("b"), entry("c", "a")]
    assert drawn(lineage, ["a", "b"]) == []  # a's heir is not on the front
    assert drawn(lineage, []) == []
    assert drawn(lineage, ["b", "c"])[1:] == ["└── a: 10, cut", "    └── c: 10 +20, on the front"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1, 30), min_size=1, max_size=30), st.data())
def test_the_tree_holds_the_fronts_ancestors_each_once(
    donors: list[int], data: st.DataObject
) -> None:
    """Any forest: genome k inherits from an earlier one, or from none."""
    parent = [donor if donor < k else -1 for k, donor in enumerate(donors)]
    lineage = [entry(f"g{k}", f"g{p}" if p >= 0 else None) for k, p in enumerate(parent)]
    places = st.integers(0, len(donors) - 1)
    front = data.draw(st.lists(places, unique=True, max_size=6))
    expected: set[int] = set()
    for k in front:
        if parent[k] >= 0:
            while k >= 0:
                expected.add(k)
                k = parent[k]
    shown = drawn(lineage, [f"g{k}" for k in front])[1:]
    names = [line.split(":")[0].split(" ")[-1] for line in shown]
    assert sorted(names) == sorted(f"g{k}" for k in expected)
    marked = {line.split(":")[0].split(" ")[-1] for line in shown if "on the front" in line}
    assert marked == {f"g{k}" for k in front} & set(names)


def test_a_history_of_nothing_has_no_lineage() -> None:
    events: list[Event] = []
    assert lineage_of(History(events)) == []
