"""What a report says of adapters that were derived without training."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from rich.console import Console

from coralx.records.derivations import Derivation, derivation_json
from coralx.records.events import GenomeDerived, StageCompleted
from coralx.report.derived import origin
from coralx.report.front_table import front_parts
from coralx.report.live import PlainLines
from coralx.report.live_table import board
from coralx.report.pareto_table import pareto_csv
from coralx.report.progress import Standings
from coralx.report.terminal import print_report
from tests.support.derived_runs import (
    DERIVED,
    derivation,
    derived_config,
    derived_run,
    report_of,
)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return report_of(derived_run())


def printed(report: dict[str, Any], width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_report(report, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def entry(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in report["lineage"] if each["genome"] == name)


# -- records -------------------------------------------------------------------------------------


def test_a_member_has_its_operator_its_sources_and_that_operators_own_parameters() -> None:
    made = [derivation_json(event.genome.derived) for event in DERIVED]
    assert made == [
        {"operator": "truncate", "from": ["a"], "rank": 2},
        {"operator": "scale", "from": ["a"], "factor": 0.75},
        {"operator": "scale", "from": ["d00-00"], "factor": 0.8},
        {"operator": "soup", "from": ["a", "b"], "rank": 4, "weights": [0.5, 0.5]},
        {"operator": "drop", "from": ["d00-03"], "count": 2, "groups": ["query", "layer 3"]},
        {"operator": "compress", "from": ["a"], "share": 0.25},
    ]


def test_the_front_says_who_was_derived_and_who_was_trained(report: dict[str, Any]) -> None:
    assert [(m["genome"], m["derived"]) for m in report["front"]] == [
        ("d00-01", {"operator": "scale", "from": ["a"], "factor": 0.75}),
        ("d00-02", {"operator": "scale", "from": ["d00-00"], "factor": 0.8}),
    ]
    plain = report_of(derived_run(derived=()))
    assert [m["derived"] for m in plain["front"]] == [None, None]


def test_lineage_has_steps_of_the_sources_and_the_function_that_was_lost(
    report: dict[str, Any],
) -> None:
    cut = entry(report, "d00-00")
    assert (cut["own_steps"], cut["lineage_steps"], cut["verdict"]) == (0, 1000, "derived")
    assert (cut["parents"], cut["function_lost"]) == (["a"], 0.125)
    assert cut["derived"] == {"operator": "truncate", "from": ["a"], "rank": 2}
    assert (entry(report, "a")["derived"], entry(report, "a")["function_lost"]) == (None, None)


def test_what_could_not_be_derived_is_told(report: dict[str, Any]) -> None:
    assert report["failed"] == [{"genome": "d00-06", "stage": "derivation", "reason": "no memory"}]


# -- cost ----------------------------------------------------------------------------------------


def test_derived_genomes_are_no_trainings_but_their_time_counts(report: dict[str, Any]) -> None:
    plain = report_of(derived_run(derived=()))["efficiency"]
    found = report["efficiency"]
    for key in ("total_genomes", "compared_genomes", "naive_steps", "actual_steps"):
        assert found[key] == plain[key], key
    assert found["stage_breakdown"] == plain["stage_breakdown"]
    assert found["estimated_full_training_time"] == plain["estimated_full_training_time"]
    spent = len(DERIVED) * 0.75
    assert found["beside_training"]["deriving"] == pytest.approx(spent)
    for key in ("total_training_time", "compared_training_time"):
        assert found[key] == pytest.approx(plain[key] + spent), key
    assert (found["derived_genomes"], plain["derived_genomes"]) == (len(DERIVED), 0)
    trained = sum(e.result.seconds for e in derived_run() if isinstance(e, StageCompleted))
    assert found["derivation_share"] == pytest.approx(spent / trained)
    assert plain["derivation_share"] == 0.0


def test_every_scoring_is_a_look(report: dict[str, Any]) -> None:
    """Three genomes at a sample in S0, two in S1, and six derived ones."""
    found = report["efficiency"]
    assert found["validation_looks"] == 5 + 6
    assert found["validation_looks_by"] == {"training": 5, "derivation": 6, "blends": 0}
    assert found["validation_looks_at_samples"] == 3


# -- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("d00-00", "a truncated to rank 2"),
        ("d00-01", "a scaled by 0.75"),
        ("d00-02", "a truncated to rank 2, scaled by 0.8"),
        ("d00-03", "soup of a and b"),
        ("d00-04", "soup of a and b, without query and layer 3"),
        ("d00-05", "a compressed to 25 % of its parameters"),
    ],
)
def test_an_origin_is_told_back_to_what_was_trained_or_to_a_soup(name: str, words: str) -> None:
    known = {event.genome.id: derivation_json(event.genome.derived) for event in DERIVED}
    derived = known[name]
    assert derived is not None
    assert origin(derived, known) == words


def test_a_soup_of_many_and_many_groups_are_told_in_short() -> None:
    soup = derivation_json(Derivation("soup", ("a", "b", "c"), weights=(0.2, 0.3, 0.5)))
    drop = derivation_json(Derivation("drop", ("s",), count=4, groups=("q", "k", "v", "o")))
    assert soup is not None
    assert drop is not None
    words = "soup of a, b and c, without 4 groups of modules"
    assert origin(drop, {"s": soup}) == words


@pytest.mark.parametrize("width", [200, 100, 80, 50])
def test_the_terminal_tells_what_was_derived_and_what_it_brought(
    report: dict[str, Any], width: int
) -> None:
    text = printed(report, width)
    assert all(len(line) <= width for line in text.splitlines())
    flat = " ".join(text.split())
    assert "d00-01: a scaled by 0.75" in flat
    assert "d00-02: a truncated to rank 2, scaled by 0.8" in flat
    brought = "2 of 2 members of the front were derived without training"
    assert f"{brought} (6 looks, 40 % of the training time)." in flat
    assert width < 80 or "d00-01: 0 +1,000, scaled by 0.75, on the front" in text


def test_a_front_without_any_says_what_they_cost() -> None:
    worse = (derivation("d00-00", Derivation("scale", ("a",), factor=0.1), 0.6, 8),)
    flat = " ".join(printed(report_of(derived_run(derived=worse)[:-1])).split())
    assert (
        "of the front were derived without training (1 look, 6.7 % of the training time)." in flat
    )
    assert "derived without training" not in printed(report_of(derived_run(derived=())))


def test_the_table_has_no_learning_rate_for_them(report: dict[str, Any]) -> None:
    console = Console(file=io.StringIO(), width=160, record=True)
    for part in front_parts(report):
        console.print(part)
    rows = [line for line in console.export_text().splitlines() if "│ d00-0" in line]
    assert all("│ derived │" in " ".join(row.split()) for row in rows)
    assert len(rows) == 2


def test_pareto_csv_tells_the_origin(report: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(pareto_csv(report))))
    assert [row["derived"] for row in rows] == [
        "a scaled by 0.75",
        "a truncated to rank 2, scaled by 0.8",
    ]
    plain = pareto_csv(report_of(derived_run(derived=())))
    assert plain.splitlines()[0].endswith(",simulated")


# -- while it runs -------------------------------------------------------------------------------


def test_lines_of_a_run_tell_each_derivation_and_the_sum() -> None:
    console = Console(file=io.StringIO(), width=200)
    view = PlainLines(console)
    view.begin(derived_config())
    for event in derived_run():
        view.on_event(event)
    lines = [line.partition("] ")[2] for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert "d00-02, a truncated to rank 2, scaled by 0.8: auroc 0.8960 (0.8 s)" in lines
    assert "d00-06, b truncated to rank 1, could not be derived: no memory" in lines
    assert "derived without training: 6 adapters, 2 of them on the front" in lines
    assert (
        "      and at most 10 % of the training time for adapters derived without training" in lines
    )


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_the_live_table_shows_them_and_stays_within_the_terminal(width: int) -> None:
    standings = Standings(derived_config())
    for event in derived_run()[:-6]:
        standings.on_event(event)
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(board(standings, "", standings.closing(), width, 20))
    lines = console.export_text().splitlines()
    assert all(len(line.rstrip()) <= width for line in lines)
    row = next(line for line in lines if line.startswith("d00-02"))
    assert "derived" in row
    assert width < 120 or "a truncated to rank 2, scaled by 0.8" in row
    assert "2.0e-04" not in row
    assert standings.closing() == "deriving adapters from those that finished"


def test_the_time_left_counts_no_derivation() -> None:
    config = derived_config()
    with_derived, without = Standings(config), Standings(config)
    for event in derived_run()[:-5]:
        with_derived.on_event(event)
        if not isinstance(event, GenomeDerived):
            without.on_event(event)
    assert with_derived.remaining() == without.remaining()
