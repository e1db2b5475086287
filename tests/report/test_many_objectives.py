"""A front of many objectives, of several tasks, and of figures with units, in the terminal."""

from __future__ import annotations

from typing import Any

import pytest

from coralx.api import runs as api
from coralx.report.formatting import figure, with_interval
from coralx.report.front_comparison import comparison_lines
from coralx.report.front_table import task_lines
from tests.support.factories import simulated_config
from tests.support.reports import LENIENT, interval, shown

FIVE = ["task_skill", "safety", "false_positive_cost", "calibration", "robustness"]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("width", [60, 80, 120, 160, 200])
def test_five_objectives_are_not_cut_short_in_any_terminal(width: int) -> None:
    objectives = [{"metric": metric} for metric in FIVE]
    data = {"steps_per_epoch": 200, "attacks": ["swap"], "group": "g"}
    report = api.evolve(
        simulated_config(
            data=data,
            objectives=objectives,
            hyperband_config=LENIENT,
            runtime={"backend": "simulated", "baseline": True, "verify_front": True},
        )
    ).report
    for found in (one["test"][metric] for one in report["front"] for metric in FIVE):
        found |= {"low": found["value"] - 0.02, "high": found["value"] + 0.02}
    text = shown(report, width)
    before = text[: text.index("Efficiency")]
    for one in report["front"]:
        assert one["genome"] in before
        assert all(f"{one['test'][metric]['value']:.4f}" in before for metric in FIVE)
        assert all(f"-{one['test'][metric]['high']:.3f}" in before for metric in FIVE)
    assert "default_recipe" in before
    assert "…" not in before
    assert max(map(len, text.splitlines())) <= width
    assert ("┃" in before) == (width >= 120)


@pytest.mark.usefixtures("here")
def test_what_each_task_makes_of_a_member_stands_below_the_front() -> None:
    tasks = {name: {"train": f"{name}.csv", "limit": 100} for name in ("toxicity", "spam")}
    report = api.evolve(
        simulated_config(
            data={"steps_per_epoch": 200, "tasks": tasks},
            objectives=[{"metric": "task_skill"}, {"metric": "auroc@toxicity"}],
            constraints=["auroc@spam >= 0.1"],
        )
    ).report
    assert report["front"]
    assert [line.split(":")[0] for line in task_lines(report)] == [
        f"auroc by task, {one['genome']}" for one in report["front"]
    ]
    for one in report["front"]:
        test = one["test"]
        line = (
            f"auroc by task, {one['genome']}: spam {test['auroc@spam']['value']:.4f}, "
            f"toxicity {test['auroc@toxicity']['value']:.4f}"
        )
        assert line in task_lines(report)
        assert line in shown(report)
    named = [*report["objectives"], {"metric": "auroc@spam", "direction": "maximize"}]
    assert task_lines({**report, "objectives": named}) == []
    assert "auroc@" in shown(report)


def test_tasks_of_language_models_are_told_by_their_loss() -> None:
    losses = {"eval_loss@chat": 1.5, "eval_loss@code": None}
    one = {"genome": "a", "validation": losses, "test": None}
    assert task_lines({"objectives": [{"metric": "eval_loss"}], "front": [one]}) == [
        "eval_loss by task, a: chat 1.5000, code -"
    ]


def test_bytes_and_milliseconds_are_readable() -> None:
    assert figure(2_032_192, "memory") == "1.94 MiB"
    assert figure(150_528, "adapter_bytes") == "147.00 KiB"
    assert figure(0, "adapter_bytes") == "0.00 KiB"
    assert figure(5 * 2**40, "memory") == "5,120.00 GiB"
    assert figure(10.7, "latency_ms") == "10.70"
    assert (figure(0, "trainable_parameters"), figure(0, "auroc")) == ("0", "0.0000")
    assert figure(None, "memory") == "-"
    spread = {"value": 2 * 2**20, "low": 2**20, "high": 3 * 2**20}
    assert with_interval(spread, "memory") == "2.00 MiB [dim]1.00-3.00[/]"
    assert with_interval(spread, "memory", below=True) == "2.00 MiB\n[dim]1.00-3.00[/]"
    assert with_interval(interval(12.0, 1.0), "latency_ms") == "12.00 [dim]11.50-12.50[/]"
    assert with_interval({"value": None, "low": 0.0, "high": 1.0}) == "-"


def test_what_holds_on_several_objectives_is_said_in_one_line() -> None:
    def pair(metric: str, *, alike: bool) -> dict[str, Any]:
        return {"first": "a", "second": "b", "metric": metric, "indistinguishable": alike}

    report = {
        "objectives": [{"metric": metric} for metric in FIVE],
        "front_pairs": [pair(metric, alike=metric != "safety") for metric in FIVE],
        "front_against_baselines": [],
    }
    assert comparison_lines(report) == [
        "On task_skill, false_positive_cost, calibration and robustness the test split cannot tell "
        "apart: a and b.",
        "On safety the test split tells all members of the front apart.",
        f"Each at 95 %, not corrected for the number of comparisons ({len(FIVE)}).",
    ]
