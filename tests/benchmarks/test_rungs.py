"""The rung benchmark: families are what their names say, and verdicts keep to their bounds."""

from __future__ import annotations

import csv
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from tests.support.paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "replay"))
sys.path.insert(0, str(ROOT / "benchmarks" / "rungs"))

import contest
from families import CHECKPOINTS, FAMILIES, HELD_OUT, TUNING, Family, crossing, table_of
from verdicts import ADAPTIVE, FIXED, RANDOM, Contest, ratio_of, verdict_table

AT_5, AT_50 = CHECKPOINTS // 20 - 1, CHECKPOINTS // 2 - 1


def agreement(family: Family, checkpoint: int) -> float:
    """Rank correlation of the figures at a checkpoint with the final ones."""
    curves = np.asarray(table_of(family, 3).curves)
    return float(spearmanr(curves[:, checkpoint], curves[:, -1]).statistic)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_draws_a_grid_of_losses_from_its_seed(family: Family) -> None:
    table = table_of(family, 3)
    assert table.is_grid
    assert 150 <= len(table) <= 300
    assert np.isfinite(table.curves).all()
    assert np.min(table.curves) > 0
    assert table_of(family, 3) == table
    assert table_of(family, 4).curves != table.curves


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_early_figures_say_what_the_family_says_they_do(family: Family) -> None:
    early, middle = agreement(family, AT_5), agreement(family, AT_50)
    if family.ranks_truly:
        assert min(early, middle) > 0.75
    match family.mechanism.__name__:
        case "early_noise":
            assert abs(early) < 0.2
            assert (middle > 0.9) == (family.strength < 0.5)
        case "reversed_early":
            assert early < -0.6
        case "crossing" | "learning_rate_first":
            assert early < middle
        case "double_descent":
            assert middle < early


def test_tuning_and_held_out_families_share_no_family() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names) == len(TUNING) + len(HELD_OUT)
    assert not any(family.is_held_out for family in TUNING)
    assert all(family.is_held_out for family in HELD_OUT)
    mechanisms = [{family.mechanism for family in part} for part in (TUNING, HELD_OUT)]
    assert len(mechanisms[1] - mechanisms[0]) >= 5


def test_the_published_rungs_stand_at_their_shares_of_200_per_cent() -> None:
    shares = [share for share, _ in contest.PUBLISHED]
    assert shares == [Fraction(points, 200) for points in (5, 20, 100, 200)]


def test_a_ratio_of_regrets_is_of_means_and_has_an_interval_from_the_seeds() -> None:
    mine, theirs = np.array([1.0, 2.0, 3.0, 2.0]), np.array([1.0, 1.0, 1.0, 1.0])
    ratio, low, high = ratio_of(mine, theirs)
    assert ratio == 2.0
    assert 1.0 <= low < 2.0 < high <= 3.0
    nothing = np.zeros(4)
    assert ratio_of(nothing, nothing)[0] == 1.0
    assert ratio_of(mine, nothing)[0] == float("inf")


def made_up(regret: float, *, ranks_truly: bool = True) -> str:
    """The verdicts on adaptive rungs of this regret, where the other two have 1."""
    others = 1.0 if regret > 0 else regret
    columns = {RANDOM: others, FIXED: others, ADAPTIVE: regret}
    scores = {name: np.full((3, 2), value) for name, value in columns.items()}
    made = Contest("made up", "tuning", ranks_truly, scores)
    return verdict_table([made], (20.0, 40.0)).splitlines()[-1]


def test_verdicts_say_where_a_bound_is_exceeded() -> None:
    within, over, far = "1.05 (1.05 to 1.05)", "1.20 (1.20 to 1.20)", "1.40 (1.40 to 1.40)"
    assert made_up(1.05) == f"| made up | tuning | {' | '.join([within] * 4)} |"
    listed = [over, over, f"{over} **over**", f"{over} **over**"]
    assert made_up(1.2) == f"| made up | tuning | {' | '.join(listed)} |"
    listed = [f"{far} **over**", f"{far} **over**", "-", "-"]
    assert made_up(1.4, ranks_truly=False) == f"| made up | tuning | {' | '.join(listed)} |"
    assert made_up(float("nan")) == "| made up | tuning | - | - | - | - |"


def test_a_contest_prints_its_tables_and_writes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.csv"
    options = ["--families", "crossing 1", "--methods", "random,CoralX", "--seeds", "2"]
    assert contest.main([*options, "--processes", "1", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "| crossing 1 | tuning | " in text
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wanted = [name for name in contest.methods() if "halving" not in name]
    assert {row["method"] for row in rows} == set(wanted)
    assert len(rows) == len(wanted) * len(contest.BUDGETS)
    family = Family(crossing, 1.0)
    played = [contest.play(family, [FIXED], seed)[FIXED] for seed in (0, 1)]
    means = [float(row["regret"]) for row in rows if row["method"] == FIXED]
    assert means == pytest.approx(np.mean(played, axis=0), rel=1e-5)


def test_an_unknown_family_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert contest.main(["--families", "nonesuch"]) == 2
    assert "no family is left" in capsys.readouterr().err
