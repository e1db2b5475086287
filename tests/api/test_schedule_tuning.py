"""Curves of files and of runs, and the schedule that is proposed on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coralx.api.curve_files import read_curves
from coralx.api.quality import Quality, parse_quality, quality_of
from coralx.api.schedule_tuning import tune
from coralx.api.tuned_stages import stages_of, tuning_json
from coralx.cli.several_runs import flagged
from coralx.config.load import parse_config
from coralx.errors import UsageError
from coralx.schedule.tuning_costs import Rung, Schedule
from coralx.schedule.tuning_curves import LOSS, LOSS_SPREAD, METRIC, area_deviation
from tests.support.paths import ROOT
from tests.support.simulations import evolve

AUROC = parse_quality("auroc")
EVERYONE = {"data_percentage": 100, "survival_rate": 1, "stop_when": []}
RECORDING = [
    {"name": "A", "epoch_budget": 0.25, **EVERYONE},
    {"name": "B", "epoch_budget": 1, **EVERYONE},
    {"name": "C", "epoch_budget": 2, **EVERYONE},
]


def config(**sections: Any) -> Any:
    return parse_config(
        {"data": {"limit": 1000}, "evolution": {"population_size": 4}} | sections, ""
    )


@pytest.fixture
def csv_file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "curves.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def ranking_truly(count: int = 10) -> str:
    """Curves that keep their order from the first checkpoint on."""
    lines = ["config,steps,auroc,eval_rows,auroc_standard_error"]
    lines += [
        f"c{number},{step},{0.6 + number / 100 + step / 1000},512,1e-4"
        for number in range(count)
        for step in (10, 50, 100)
    ]
    return "\n".join(lines)


def test_a_file_is_read_as_shares_of_each_training(csv_file: Any) -> None:
    path = csv_file(
        "task,config,steps,total_steps,auroc,eval_loss,eval_rows,test_auroc,batch_size\n"
        "t,a,200,200,0.9,0.4,512,0.88,8\n"
        "t,a,20,200,0.6,0.7,256,,8\n"
        "t,b,20,200,0.7,0.6,256,,8\n"  # diverged: it ends before its time
        "u,a,10,10,0.8,0.5,512,0.81,8\n"
    )
    first, second = read_curves(path, [AUROC], None)
    assert (first.name, second.name) == ("curves.csv, t: auroc", "curves.csv, u: auroc")
    assert first.configurations == ("a", "b")
    assert first.checkpoints == ((Fraction(1, 10), Fraction(1)), (Fraction(1, 10),))
    assert first.full == pytest.approx([0.88, 0.88])  # the worst of those that are known
    assert first.remarks[0].startswith("1 of 2 configurations has no figure at the end")
    assert first.training_rows == 1600
    assert first.tolerance == 0.003
    auroc, loss = first.signals[METRIC], first.signals[LOSS]
    assert auroc.values[0] == pytest.approx([0.6, 0.9])
    assert loss.values[0] == pytest.approx([-0.7, -0.4])  # higher is better
    assert auroc.deviation is not None
    assert loss.deviation is not None
    assert auroc.deviation[0] == pytest.approx(area_deviation(np.array([0.6, 0.9])))
    assert loss.deviation[0] == pytest.approx(LOSS_SPREAD * np.array([0.7, 0.4]))
    assert first.place(1, Fraction(1, 2)) == 0  # nothing comes after a divergence


def test_perplexities_are_compared_by_their_logarithms(csv_file: Any) -> None:
    path = csv_file("config,checkpoint,perplexity\na,1,4.0\na,2,2.0\n")
    (table,) = read_curves(path, [parse_quality("perplexity")], None)
    assert table.full == pytest.approx([-np.log(2.0)])
    assert table.tolerance == 0.01
    assert table.checkpoints == ((Fraction(1, 2), Fraction(1)),)
    assert not table.signals[METRIC].knows_its_noise
    (table,) = read_curves(path, [parse_quality("perplexity")], 0.05)
    assert table.tolerance == 0.05


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ": no row below a line of column names"),
        ("config,steps\na,1\n", ", line 1: no column 'auroc'"),
        ("conf,steps,auroc\na,1,0.5\n", ", line 1: no column 'config' (did you mean 'conf'?)"),
        ("config,auroc\na,0.5\n", ", line 1: no column 'steps', 'step' or 'checkpoint'"),
        ("config,steps,auroc,auroc\na,1,1,1\n", ", line 1: the column 'auroc' comes twice"),
        ("config,steps,auroc\na,1,0,5\n", ", line 2: 4 cells, but line 1 names 3 columns"),
        ("config,steps,auroc\na,1,0.5\na,x,1\n", ", line 3, column 'steps': 'x' is not a whole"),
        ("config,steps,auroc\na,0,0.5\n", ", line 2, column 'steps': '0' is not a whole number"),
        ("config,steps,auroc\na,1,good\n", ", line 2, column 'auroc': 'good' is not a number"),
        ("config,steps,auroc\n,1,0.5\n", ", line 2, column 'config': the cell is empty"),
        ("config,steps,auroc\na,1,0.5\nb,1,1\na,1,1\n", ", line 4, column 'steps': configuration"),
        ("config,steps,total_steps,auroc\na,9,8,1\n", ", line 2, column 'total_steps': 8 is less"),
        ("config,steps,auroc\na,1,\n", ": auroc: no configuration has a figure of 'auroc' at its"),
        ('config,steps,auroc\n"a"b,1,1\n', ": not a CSV file"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_by_line_and_column(
    csv_file: Any, text: str, problem: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read_curves(csv_file(text), [AUROC], None)
    assert problem in caught.value.message
    assert "curves.csv" in caught.value.message


def test_the_metric_to_be_kept_is_the_first_that_training_changes() -> None:
    objectives = [{"metric": "trainable_parameters"}, {"metric": "accuracy"}]
    assert quality_of(config(objectives=objectives)) == Quality("accuracy", "maximize")
    with pytest.raises(UsageError, match="no objective of this config is a figure of quality"):
        quality_of(config(objectives=objectives[:1]))
    assert parse_quality("wer:minimize") == Quality("wer", "minimize")
    assert parse_quality("m:f:maximize") == Quality("m:f", "maximize")
    with pytest.raises(UsageError, match="whether more of it is better is not known"):
        parse_quality("wer")


def test_the_proposal_is_a_block_that_a_config_takes(csv_file: Any) -> None:
    own = config()
    tuning = tune(own, [str(csv_file(ranking_truly()))], [], None)
    assert tuning.proposal.schedule == Schedule((Rung(Fraction(1, 10), 64, 1),))
    assert tuning.proposal.held_out == pytest.approx((0.0,))
    # 4 x (200 + 32 + 5) rows, then 1,800 and the end's, of trainings of 2,000 and the end's
    end = 512 / 2 + 5
    assert tuning.proposal.cost == pytest.approx((4 * 237 + 1800 + end) / (2000 + end))
    stages = stages_of(tuning, tuning.proposal, own)
    assert [stage.get("promote_by") for stage in stages] == ["auroc", None]
    pasted = config(hyperband_config={"training_stages": stages}).hyperband_config
    first, last = pasted.training_stages
    assert first.epoch_budget * first.data_percentage == Fraction(20)
    assert (first.survival_rate, first.eval_limit) == (Fraction(1, 4), 64)
    assert last.epoch_budget == 2
    told = tuning_json(tuning, own)
    assert json.loads(json.dumps(told, allow_nan=False))["proposal"]["training_stages"] == stages
    assert told["proposal"]["cheaper"] == pytest.approx(4 / tuning.proposal.cost)
    # The second stage has 4 steps and cuts nobody.
    assert told["current"]["stages"][1]["going_on"] == 4
    assert told["current"]["stages"][2] == {
        "share": 0.5,
        "eval_limit": 512,
        "going_on": 1,
        "ranked_by": METRIC,
    }


def test_a_config_with_one_objective_need_not_be_told_what_to_rank_by(csv_file: Any) -> None:
    own = config(objectives=[{"metric": "auroc"}])
    tuning = tune(own, [str(csv_file(ranking_truly()))], [], None)
    assert all("promote_by" not in stage for stage in stages_of(tuning, tuning.proposal, own))


def test_no_stage_is_proposed_that_is_too_short_to_tell_anything(csv_file: Any) -> None:
    """A tenth of 2 epochs of 300 rows is 4 steps of 16, half of them 19."""
    own = config(data={"limit": 300})
    tuning = tune(own, [str(csv_file(ranking_truly()))], [], None)
    assert tuning.proposal.schedule.rungs[0].share > Fraction(1, 5)


def test_too_few_curves_are_an_error_that_says_how_many_it_takes(csv_file: Any) -> None:
    with pytest.raises(UsageError, match=r"5 curves with a known end, but .* takes 8 at least"):
        tune(config(), [str(csv_file(ranking_truly(5)))], [], None)
    with pytest.raises(UsageError, match="--tune-schedule needs learning curves"):
        tune(config(), [], [], None)


def test_one_tolerance_does_not_serve_several_metrics(csv_file: Any) -> None:
    qualities = [AUROC, parse_quality("eval_loss")]
    with pytest.raises(UsageError, match="one --tolerance cannot serve several metrics"):
        tune(config(), [str(csv_file(ranking_truly()))], qualities, 0.01)


@pytest.mark.usefixtures("here")
def test_runs_are_tuned_on_and_what_they_do_not_know_is_said() -> None:
    """Of 10 genomes without any cut all ends are known; where rungs cut, those of finishers."""
    evolution = {"population_size": 10, "generations": 1, "inherit": "off"}
    whole = {"training_stages": RECORDING}
    evolve("recorded", evolution=evolution, hyperband_config=whole)
    own = config(objectives=[{"metric": "auroc"}])
    tuning = tune(own, ["recorded"], [], None)
    (table,) = tuning.tables
    assert len(table) == 10
    assert table.checkpoints[0] == (Fraction(1, 8), Fraction(1, 2), Fraction(1))
    assert not table.remarks
    assert {rung.rows for choice in tuning.choices for rung in choice.schedule.rungs} == {512}

    cutting = [stage | {"survival_rate": 0.5} for stage in RECORDING]
    evolve("cut", evolution=evolution, hyperband_config={"training_stages": cutting})
    with pytest.raises(UsageError, match="2 curves with a known end") as caught:
        tune(own, ["cut"], [], None)
    assert "survival_rate: 1.0" in caught.value.hint

    real = config(model={"base": "builtin:minilm"}, objectives=[{"metric": "auroc"}])
    with pytest.raises(UsageError, match="it was simulated"):
        tune(real, ["recorded"], [], None)


def test_a_run_of_an_earlier_version_is_read() -> None:
    with pytest.raises(UsageError, match="1 curve with a known end"):
        tune(config(), [str(ROOT / "tests" / "golden" / "trained")], [], None)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (
            ["c.yaml", "--tune-schedule", "a.csv", "RUN", "--json"],
            ["c.yaml", "--tune-schedule", "a.csv", "--tune-schedule", "RUN", "--json"],
        ),
        (["--tune-schedule", "a.csv", "c.yaml"], ["--tune-schedule", "a.csv", "c.yaml"]),
        (["--tune-schedule", "c.yaml"], ["--tune-schedule", "", "c.yaml"]),
        (["c.yaml", "--tune-schedule"], ["c.yaml", "--tune-schedule", ""]),
        (["c.yaml", "--tune-schedule", "--json"], ["c.yaml", "--tune-schedule", "", "--json"]),
        (
            ["--learn-from", "A", "B", "c.yaml"],
            ["--learn-from", "A", "--learn-from", "B", "c.yaml"],
        ),
    ],
)
def test_several_sources_follow_one_flag(given: list[str], meant: list[str]) -> None:
    assert flagged(given) == meant


def test_files_of_curves_do_not_end_the_flag(csv_file: Any) -> None:
    path = str(csv_file("config,steps,auroc\n"))
    assert flagged(["--tune-schedule", "RUN", path]) == [
        "--tune-schedule",
        "RUN",
        "--tune-schedule",
        path,
    ]


@pytest.mark.usefixtures("here")
def test_the_command_prints_table_expectations_and_block(
    command: Any, here: Path, csv_file: Any
) -> None:
    path = csv_file(ranking_truly())
    (here / "c.yaml").write_text(
        "data: {limit: 1000}\nevolution: {population_size: 4}\n", encoding="utf-8"
    )
    said = command("simulate", "c.yaml", "--tune-schedule", str(path))
    assert said.code == 0
    assert "Curves: curves.csv: auroc (10 configurations, tolerance 0.003)." in said.out
    assert "10 %: 1 (64)" in said.out
    assert "10 curves are few" in said.out + said.err
    assert (
        "    - {name: S0_cut, epoch_budget: 0.2, data_percentage: 100, survival_rate: 0.25, "
        "eval_limit: 64, promote_by: auroc}\n" in said.out
    )
    refused = command("simulate", "c.yaml", "--metric", "auroc")
    assert refused.code == 2
    assert "--metric is for --tune-schedule" in refused.err
