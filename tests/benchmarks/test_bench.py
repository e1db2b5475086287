"""The benchmark against naive training and other searches: its arithmetic, and that it resumes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

BENCH = ROOT / "benchmarks" / "bench"
sys.path.insert(0, str(BENCH))

PIECE = {"seconds": 2.0, "cpu_seconds": 4.0}


def naive_row(index: int, validation: float, test: float, **other: Any) -> dict[str, Any]:
    """A naive training of 60 seconds, in which the piece took 2."""
    figures = {"seconds": 60.0, "cpu_seconds": 120.0, "train_seconds": 50.0, "tokens": 1000}
    pieces = {"pieces": [PIECE, PIECE], "rows": "r", "machine": {"precision": "bf16"}}
    scores = {"validation": validation, "test": test, "parameters": 1e5, "steps": 10}
    return {"index": index, **figures, **pieces, **scores, **other}


def seen(seconds: float, name: str, step: int, validation: float, **other: Any) -> Any:
    from observations import Observation

    is_finished = step == 27
    return Observation(
        time=1000.0 + seconds,
        configuration=name,
        genes={},
        step=step,
        validation=validation,
        parameters=1e5,
        is_finished=is_finished,
        adapter=name if is_finished else None,
        steps=9,
        tokens=300,
        train_seconds=15.0,
        eval_seconds=5.0,
        **other,
    )


def run_of(observations: list[Any], scores: dict[str, tuple[float, float]], **other: Any) -> Any:
    """A run on a machine that is at half the speed of the naive trainings'."""
    from observations import Run, Score

    run = Run(
        contestant="optuna tpe",
        workload="tweets",
        seed=1,
        rows="r",
        machine={"cores": 2, "precision": "bf16"},
        date="",
        began=1000.0,
        seconds=240.0,
        limit=240.0,
        processes=2,
        cpu_seconds=480.0,
        others_seconds=0.0,
        pieces=[{"seconds": 3.0, "cpu_seconds": 6.0}, {"seconds": 5.0, "cpu_seconds": 10.0}],
        observations=observations,
        scores={name: Score(*pair) for name, pair in scores.items()},
    )
    return replace(run, **other)


@pytest.fixture
def naive() -> Any:
    from curves import Naive

    return Naive([naive_row(0, 0.90, 0.80), naive_row(1, 0.95, 0.85), naive_row(2, 0.85, 0.99)])


def test_naive_training_is_the_unit_and_its_best_is_known_when_all_are_done(naive: Any) -> None:
    curve = naive.curve(1)
    assert naive.per_training == 30.0  # pieces
    assert [each.time for each in curve.finished] == [1.0, 2.0, 3.0]
    assert curve.decided == curve.reached.time == 3.0
    assert (curve.reached.validation, curve.reached.test) == (0.95, 0.85)
    assert naive.target == pytest.approx(0.945)


def test_a_slow_hour_during_one_training_does_not_make_it_count_more(naive: Any) -> None:
    from curves import Naive

    slow = [{key: 10 * value for key, value in PIECE.items()}] * 2
    rows = [*naive.rows, naive_row(3, 0.9, 0.9, seconds=600.0, cpu_seconds=1200.0, pieces=slow)]
    assert Naive(rows).curve(1).end == pytest.approx(4.0)


def test_seconds_are_divided_by_those_of_the_piece_before_and_after(naive: Any) -> None:
    from curves import curve_of

    curve = curve_of(run_of([seen(180.0, "a", 27, 0.7)], {"a": (0.946, 0.84)}), naive)
    # The piece took 4 seconds on average, so a naive training takes 120.
    assert curve.seconds == 120.0
    assert curve.reached.time == curve.decided == 1.5
    assert (curve.reached.validation, curve.reached.test) == (0.946, 0.84)
    assert curve.end == 2.0
    # 480 CPU seconds in 240; a training takes 30 pieces of 8 CPU seconds.
    assert curve.by_cpu == pytest.approx(1.5)
    assert curve.utilisation == pytest.approx(20.0 / 480.0)
    # 300 tokens in 15 seconds of each of two processes, the piece at 4 s; 1000 in 50 s, at 2 s.
    assert curve.token_rate == pytest.approx((2 * 300 / 15 * 4) / (1000 / 50 * 2))
    assert curve.doubts == ("the piece took 3.0 s before and 5.0 s after",)


def test_what_is_told_after_its_time_does_not_count(naive: Any) -> None:
    from curves import curve_of

    late = curve_of(run_of([seen(241.0, "a", 27, 0.95)], {"a": (0.95, 0.84)}), naive)
    assert (late.reached, late.decided, late.by_cpu, late.finished) == (None, None, None, ())
    assert late.volume(9.0) == 0.0
    assert late.best(9.0) is None
    silent = curve_of(run_of([], {}), naive)
    assert (silent.reached, silent.end, silent.steps, silent.utilisation) == (None, 2.0, 0, 0.0)


def test_quality_is_what_plain_transformers_score_not_what_a_contestant_says(naive: Any) -> None:
    from curves import curve_of

    told = [seen(60.0, "a", 27, 0.99), seen(120.0, "b", 27, 0.90)]
    curve = curve_of(run_of(told, {"a": (0.90, 0.84), "b": (0.95, 0.80)}), naive)
    assert curve.reached.configuration == "b"
    assert curve.best(0.5).configuration == "a"
    assert curve.best(1.0).test == 0.80  # the best on validation, also where it is worse on test


def test_the_decision_falls_when_the_delivered_configuration_takes_the_lead_for_good(
    naive: Any,
) -> None:
    from curves import curve_of

    told = [
        seen(12.0, "a", 1, 0.7),
        seen(24.0, "b", 1, 0.6),  # a still leads
        seen(36.0, "a", 3, 0.7),
        seen(48.0, "b", 3, 0.8),  # b leads ...
        seen(60.0, "c", 9, 0.5),  # ... loses it to what is trained further ...
        seen(72.0, "b", 9, 0.9),  # ... and leads for good
        seen(96.0, "a", 9, 0.8),
        seen(120.0, "b", 27, 0.95),
        seen(132.0, "a", 27, 0.99),
    ]
    curve = curve_of(run_of(told, {"b": (0.95, 0.8), "a": (0.99, 0.9)}), naive)
    assert curve.reached.configuration == "b"
    assert curve.decided == pytest.approx(0.6)
    assert curve.reached.time == 1.0


def test_a_fixed_list_hands_over_its_best_when_all_are_trained(naive: Any) -> None:
    from curves import curve_of

    told = [seen(60.0, "a", 27, 0.95), seen(120.0, "b", 27, 0.9)]
    scores = {"a": (0.95, 0.8), "b": (0.9, 0.8)}
    curve = curve_of(run_of(told, scores, contestant="coralx full", limit=None), naive)
    assert (curve.reached.configuration, curve.reached.time, curve.decided) == ("a", 1.0, 1.0)


def test_hypervolume_at_equal_seconds_is_of_the_front_on_validation(naive: Any) -> None:
    from curves import curve_of

    told = [
        replace(seen(60.0, "large", 27, 0.9), parameters=1e7),
        replace(seen(120.0, "small", 27, 0.8), parameters=1e5),
        replace(seen(180.0, "worse", 27, 0.7), parameters=1e6),
    ]
    scores = {"large": (0.9, 1.0), "small": (0.8, 0.75), "worse": (0.7, 0.99)}
    curve = curve_of(run_of(told, scores), naive)
    assert curve.volume(0.4) == 0.0
    assert curve.volume(0.5) == 0.0  # of the largest size, so it spans nothing
    # Half the quality's range by half the size's; what is dominated on validation adds nothing.
    assert curve.volume(1.0) == curve.volume(2.0) == pytest.approx(0.25)


def test_a_busy_machine_and_what_is_not_the_same_are_named(naive: Any) -> None:
    from curves import curve_of

    pieces = [PIECE, {**PIECE, "cpu_seconds": 1.0}]
    machine = {"cores": 2, "precision": "fp32"}
    other = {"others_seconds": 96.0, "pieces": pieces, "rows": "other", "machine": machine}
    assert curve_of(run_of([seen(9.0, "a", 1, 0.9)], {}, **other), naive).doubts == (
        "others kept 0.4 cores busy",
        "the piece had 0.5 of 2 cores",
        "it had other rows than naive training",
        "naive training had precision bf16",
    )


def test_the_table_has_medians_ranges_and_what_never_came(naive: Any) -> None:
    from curves import curve_of
    from tables import as_json, remarks, table

    curves = []
    for seed, end in enumerate((60.0, 120.0, 250.0)):
        told = [seen(30.0, "a", 1, 0.9), seen(end, "a", 27, 0.95)]
        curves.append(naive.curve(seed))
        curves.append(curve_of(run_of(told, {"a": (0.95, 0.84)}, seed=seed), naive))
    lines = list(table(curves, 2.0))
    title = [cell.strip() for cell in lines[0].split("|")]
    row = dict(zip(title, [cell.strip() for cell in lines[3].split("|")], strict=True))
    assert row["contestant"] == "optuna tpe"
    assert row["time to finished adapter"] == "1 (0.5 to > 2)"
    assert row["naive / it"] == "3.0 (0.0 to 6.0)"
    assert row["its test"] == "0.840 (- to 0.840)"
    assert row["seeds"] == "3"
    assert len(list(remarks(curves))) == 3
    assert not math.isnan(as_json(curves)[1]["seconds"])


def test_a_line_of_the_chart_begins_where_every_seed_has_an_adapter(naive: Any) -> None:
    from chart import line_of
    from curves import curve_of

    first = curve_of(run_of([seen(60.0, "a", 27, 0.9)], {"a": (0.9, 0.8)}), naive)
    told = [seen(120.0, "a", 27, 0.9), seen(180.0, "b", 27, 0.95)]
    other = curve_of(run_of(told, {"a": (0.9, 0.6), "b": (0.95, 0.7)}), naive)
    assert line_of([first, other]) == [(1.0, 0.7), (1.5, 0.75), (2.0, 0.75)]


def test_naive_training_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    from observations import missing_from, naive_rows

    file = tmp_path / "naive-1.jsonl"
    assert missing_from(naive_rows(file), 2) == [0, 1]
    file.write_text(json.dumps({"index": 0}) + "\n" + json.dumps({"index": 2}) + '\n{"index": 1')
    assert missing_from(naive_rows(file), 4) == [1, 3]


def test_configurations_of_a_longer_list_begin_with_the_shorter_one() -> None:
    from workloads import Setting, Workload, drawn, is_of, modules_of

    setting = Setting("tweets", 1, "", (), "fp32", 1, 3, 0.0, "")
    space = Workload(setting).space
    three, four = drawn(space, 3, 1), drawn(space, 4, 1)
    assert four[:3] == three
    assert drawn(space, 3, 2) != three
    for genes in four:
        assert is_of(space, genes)
        assert modules_of(genes) in ("all-linear", ["query", "value"])
    for wrong in ({"target_modules": "query"}, {"rank": 3}, {"learning_rate": 1.0}):
        assert not is_of(space, {**three[0], **wrong})


def test_all_that_a_contestant_started_counts_and_is_gone_afterwards(tmp_path: Path) -> None:
    """In a process of its own, as the clock ends all children of the process that it runs in."""
    starts = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {!r}])"
    burns = "sum(range(10**7)); open('burnt', 'w'); import time; time.sleep(600)"
    script = f"""
import sys
sys.path.insert(0, {str(BENCH)!r})
from pathlib import Path
from clock import timed
here = Path({str(tmp_path)!r})
command = [sys.executable, "-c", {starts.format(burns)!r} + "; import time; time.sleep(600)"]
done = timed(command, here, is_enough=(here / "burnt").exists)
import psutil
print(done.cpu_seconds > 0.02, psutil.Process().children(recursive=True))
"""
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert told.stdout == "True []\n"


@pytest.mark.slow
def test_the_smoke_run_has_a_row_for_every_contestant_that_can_take_part(tmp_path: Path) -> None:
    from contestants import NAMES, why_absent

    results = tmp_path / "results"
    command = [sys.executable, str(BENCH / "bench.py"), "--smoke", "--replay-seeds", "0"]
    command += ["--results", str(results), "--work", str(tmp_path / "work")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # Not 0 where plain transformers do not confirm CoralX's AUROC.
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        is_there = f"| {name} |" in done.stdout
        assert is_there == (why_absent(name) is None)
        assert is_there or f"{name} did not take part" in done.stdout
    assert (results / "tweets.svg").read_text().startswith("<?xml")
    assert [
        curve["contestant"] for curve in json.loads((results / "bench.json").read_text())["tweets"]
    ]
