"""The replay benchmark: what a look at a recorded curve costs, and what regret follows from it."""

from __future__ import annotations

import csv
import sys
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "replay"))

import replay
from curve_table import Gene, Table, read_table
from evolution import Lookup, config_for, evolve
from methods import CORALX, halving, single_objective, two_objectives
from rivals import successive_halving
from scores import mean_table, paired_table, regrets, volumes
from tape import BudgetSpent, Tape

from coralx.errors import UsageError
from coralx.search.space import space_of

REAL = ROOT.parent / "shared" / "data" / "lora_curves" / "fr-en.csv"
HALF, WHOLE = Fraction(1, 2), Fraction(1)


def make_table(*curves: Sequence[float], parameters: Sequence[float] = ()) -> Table:
    """One ordered gene, one configuration for each curve, a checkpoint for each unit of cost."""
    gene = Gene("lora_rank", tuple(float(rank + 1) for rank in range(len(curves))), is_ordered=True)
    return Table(
        genes=(gene,),
        points=tuple((place,) for place in range(len(curves))),
        curves=tuple(map(tuple, curves)),
        costs=tuple(tuple(range(1, len(curve) + 1)) for curve in curves),
        parameters=tuple(parameters) or tuple(float(rank + 1) for rank in range(len(curves))),
    )


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def grid_rows(**further: Any) -> list[dict[str, Any]]:
    """Two models, two ranks, three learning rates; five checkpoints each, the best in the last
    configuration."""
    rows = []
    for place, (model, rank, rate) in enumerate(
        (model, rank, rate) for model in "ab" for rank in (4, 2) for rate in (1e-3, 1e-4, 1e-2)
    ):
        genes = {"base_model": model, "layers": 6, "lora_rank": rank, "learning_rate": rate}
        rows += [
            {"config": f"c{place}", **genes, "checkpoint": at, "bleu": place + at, **further}
            for at in range(1, 6)
        ]
    return rows


# -- the table -------------------------------------------------------------------------------------


def test_table_is_read_as_a_grid_with_lower_as_better(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", grid_rows()), "bleu")
    assert [(gene.name, gene.values) for gene in table.genes] == [
        ("lora_rank", (2.0, 4.0)),
        ("learning_rate", (1e-4, 1e-3, 1e-2)),
        ("choice", ("a", "b")),  # layers do not vary
    ]
    assert table.is_grid
    assert table.points[:2] == ((1, 1, 0), (1, 0, 0))
    assert table.curves[3] == (-4.0, -5.0, -6.0, -7.0, -8.0)
    assert table.parameters[0] == 4 * 6
    assert table.full_training == 5
    assert table.unit == "checkpoints"


def test_direction_follows_the_metric_or_the_flag(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", grid_rows(perplexity=3.0, mine=2.0))
    assert read_table(path, "perplexity").full_loss(0) == 3.0
    assert read_table(path, "mine", direction="maximize").full_loss(0) == -2.0


def test_steps_are_the_cost_where_the_table_has_them(tmp_path: Path) -> None:
    rows = grid_rows()
    for row in rows:
        row["steps"] = 10 * row["checkpoint"] ** 2
    table = read_table(write(tmp_path / "t.csv", rows), "bleu")
    assert table.full_training == 250
    assert table.costs[0] == (10, 40, 90, 160, 250)
    assert table.checkpoint(0, HALF) == 3  # 160 is the first at or beyond 125


def test_where_keeps_one_task(tmp_path: Path) -> None:
    rows = [*grid_rows(task="one"), *({**row, "bleu": 0} for row in grid_rows(task="two"))]
    path = write(tmp_path / "t.csv", rows)
    assert read_table(path, "bleu", where={"task": "two"}).full_loss(11) == 0
    with pytest.raises(UsageError, match="checkpoint 1 twice") as caught:
        read_table(path, "bleu")
    assert "--where" in caught.value.hint


def test_nearest_configuration_answers_for_a_point_that_is_missing(tmp_path: Path) -> None:
    gone = {"c4", "c5"}  # model a, rank 2, learning rates 1e-4 and 1e-2
    rows = [row for row in grid_rows() if row["config"] not in gone]
    table = read_table(write(tmp_path / "t.csv", rows), "bleu")
    assert not table.is_grid
    assert table.config_at(table.points[5]) == 5
    nearest = table.config_at((0, 0, 0))  # one place of three off: model a, rank 2, rate 1e-3
    assert table.points[nearest] == (0, 1, 0)


@pytest.mark.parametrize("share", [Fraction(1, 100), Fraction(1, 4), Fraction(26, 100), WHOLE])
def test_share_is_reached_at_the_first_checkpoint_that_has_it(share: Fraction) -> None:
    table = make_table([0.0] * 4, [0.0] * 40)
    for config in (0, 1):
        place = table.checkpoint(config, share)
        count = len(table.curves[config])
        assert Fraction(place + 1, count) >= share
        assert place == 0 or Fraction(place, count) < share


# -- the books -------------------------------------------------------------------------------------


def test_training_is_paid_for_once_and_continued() -> None:
    tape = Tape(make_table([9, 8, 7, 6], [5, 5]), budget=100)
    spent = []
    for config, share in [(0, HALF), (0, HALF), (0, WHOLE), (0, Fraction(1, 4)), (1, WHOLE)]:
        tape.look(config, share)
        spent.append(tape.spent)
    assert spent == [2, 2, 4, 4, 6]


def test_a_look_beyond_the_budget_ends_the_search_and_costs_nothing() -> None:
    tape = Tape(make_table([9, 8, 7, 6], [5, 5]), budget=3)
    assert tape.look(0, HALF) == 8
    with pytest.raises(BudgetSpent):
        tape.look(0, WHOLE)
    assert tape.spent == 2
    assert tape.look(1, HALF) == 5


def test_asking_for_nothing_new_ends_the_search() -> None:
    tape = Tape(make_table([1], [2]), budget=100)
    with pytest.raises(BudgetSpent):
        deque((tape.look(0, WHOLE) for _ in range(10_000)), maxlen=0)


def test_recommendation_is_the_best_at_the_greatest_share_seen() -> None:
    tape = Tape(make_table([5, 9], [4, 7], [3, 8], [6, 7]), budget=100)
    looks = [(0, HALF), (1, HALF), (2, HALF), (2, WHOLE), (1, WHOLE), (0, WHOLE), (3, WHOLE)]
    for config, share in looks:
        tape.look(config, share)
    # 2 leads at half its curve; once it is through, half a curve counts no more; 3 equals 1
    assert tape.recommended == [(1, 0), (2, 1), (3, 2), (4, 2), (5, 1)]
    assert tape.finished == [(4, 2), (5, 1), (6, 0), (8, 3)]


def test_regret_is_that_of_the_full_result_at_each_budget() -> None:
    table = make_table([5, 9], [4, 7], [3, 8], [6, 6])
    tape = Tape(table, budget=100)
    for config, share in [(0, HALF), (1, HALF), (2, HALF), (2, WHOLE), (1, WHOLE)]:
        tape.look(config, share)
    # a full training costs 2: after 0.4, 1, 3, 4 and 5 checkpoints
    assert regrets(tape, [0.2, 0.5, 1, 1.5, 2, 2.5]) == [3, 3, 1, 2, 2, 1]


def test_volume_grows_to_the_whole_table() -> None:
    table = make_table([5, 4], [5, 3], [5, 2], parameters=[2, 4, 8])
    tape = Tape(table, budget=100)
    for config in (0, 2, 1):
        tape.look(config, HALF)
        tape.look(config, WHOLE)
    none, first, two, everything = volumes(tape, [0.5, 1, 2, 3])
    assert none == 0.0
    assert 0.0 < first < two < everything
    assert everything == pytest.approx(1.0)


def test_tables_hold_means_and_paired_differences() -> None:
    scores = {"one": np.array([[1.0], [2.0], [3.0]]), "two": np.array([[2.0], [2.0], [2.0]])}
    assert "| one | 2.000 ± 1.132 |" in mean_table(scores, [5])  # 1.96 / sqrt(3)
    assert "| two | +0.000 ± 1.132 (1 / 1 / 1) |" in paired_table(scores, "one", [5])


# -- the methods -----------------------------------------------------------------------------------


class Watched(Tape):
    """A tape that keeps every look that was granted."""

    def __init__(self, table: Table, budget: float) -> None:
        super().__init__(table, budget)
        self.looks: list[tuple[int, Fraction]] = []

    def look(self, config: int, share: Fraction) -> float:
        loss = super().look(config, share)
        self.looks.append((config, share))
        return loss


RUNGS = halving([Fraction(1, 5), HALF])


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return read_table(write(tmp_path_factory.mktemp("grid") / "t.csv", grid_rows()), "bleu")


METHODS = [
    (kind, name)
    for kind in (single_objective, two_objectives)
    for name in kind(make_table([2, 1], [3, 2]), RUNGS)
]


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_every_method_keeps_to_the_same_books(
    grid: Table, kind: Callable[..., Any], name: str
) -> None:
    search = kind(grid, RUNGS)[name]
    for budget in (7, 30, 60):
        tape, again = Watched(grid, budget), Watched(grid, budget)
        search(tape, 3)
        search(again, 3)
        assert tape.looks == again.looks
        furthest: dict[int, int] = {}
        for config, share in tape.looks:
            place = grid.checkpoint(config, share)
            furthest[config] = max(furthest.get(config, 0), grid.costs[config][place])
        assert tape.spent == sum(furthest.values()) <= budget
        shares = [share for share, _ in RUNGS]
        assert {share for _, share in tape.looks} <= set(shares)
        assert len(tape.looks) == len(set(tape.looks))  # nothing is trained twice


@pytest.mark.parametrize("name", list(single_objective(make_table([2, 1], [3, 2]), RUNGS)))
def test_every_method_finds_the_best_where_early_figures_tell_it(grid: Table, name: str) -> None:
    tape = Tape(grid, budget=60)
    single_objective(grid, RUNGS)[name](tape, 1)
    assert regrets(tape, [12]) == [0.0]


def test_coralx_searches_the_very_grid(grid: Table) -> None:
    config = config_for(grid, RUNGS)
    lookup, sample = Lookup(grid), space_of(config).sample(500, np.random.default_rng(0))
    assert {lookup.point(genes) for genes in sample} == set(grid.points)
    assert config.evolution.inherit == "off"


@pytest.mark.parametrize("shares", [[HALF], [Fraction(1, 3)], [Fraction(1, 20), Fraction(2, 3)]])
def test_coralx_looks_at_the_rungs_to_the_letter(grid: Table, shares: list[Fraction]) -> None:
    tape = Watched(grid, 60)
    evolve(tape, config_for(grid, halving(shares)), 0)
    assert {share for _, share in tape.looks} == {*shares, WHOLE}
    founders = [config for config, share in tape.looks[:8] if share == shares[0]]
    assert len(set(founders)) == 8
    promoted = {config for config, _ in tape.looks[8:12]}
    losses = {c: grid.curves[c][grid.checkpoint(c, shares[0])] for c in founders}
    assert promoted == set(sorted(founders, key=lambda config: losses[config])[:4])


def test_variants_are_configs_of_their_own(grid: Table) -> None:
    configs = [config_for(grid, RUNGS, **variant.sections) for variant in CORALX]
    assert len({config.model_dump_json() for config in configs}) == len(CORALX)
    assert all(len(config.hyperband_config.training_stages) == 3 for config in configs)


def test_halving_lets_half_of_each_cohort_pass(grid: Table) -> None:
    tape = Watched(grid, 1000)
    successive_halving(tape, 0, halving([Fraction(1, 5), HALF]), cohort=8)
    counts = [sum(share == wanted for _, share in tape.looks) for wanted in (Fraction(1, 5), HALF)]
    assert counts == [8 + 4, 4 + 2]  # twelve configurations: a second cohort of four
    assert sum(share == WHOLE for _, share in tape.looks) == 2 + 1
    assert len(tape.looks) == 12 + 6 + 3


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 9), min_size=1, max_size=6), min_size=2, max_size=8),
    st.integers(0, 99),
    st.integers(1, 40),
)
def test_regret_is_never_negative_and_nothing_is_paid_twice(
    curves: list[list[float]], seed: int, budget: int
) -> None:
    table = make_table(*curves)
    methods = single_objective(table, RUNGS)
    for name in ("CoralX", "CoralX, asynchronous", "random search"):
        tape = Watched(table, budget)
        methods[name](tape, seed)
        assert tape.spent <= min(budget, sum(map(len, curves)))
        assert all(regret >= 0 for regret in regrets(tape, [0.1, 1, 5]))


# -- the command -----------------------------------------------------------------------------------


def test_command_prints_tables_and_writes_every_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "t.csv", grid_rows())
    out = tmp_path / "scores.csv"
    flags = ["--seeds", "2", "--budgets", "1,3", "--methods", "coralx,random s", "--rungs", "20"]
    assert replay.main([str(path), *flags, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "12 configurations, 60 checkpoints" in printed
    assert "last checkpoint counts as 100 %" in printed
    methods = [variant.name for variant in CORALX] + ["random search"]
    for title in ("Regret in bleu", "Hypervolume"):
        part = printed[printed.index(title) :]
        assert all(f"| {name} |" in part for name in methods)
    assert "TPE" not in printed
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 2 * len(methods) * 2 * 2
    assert {row["score"] for row in rows} == {"Regret", "Hypervolume"}


def complaint(
    capsys: pytest.CaptureFixture[str], path: Path, *flags: str, metric: str = "bleu"
) -> str:
    assert replay.main([str(path), "--seeds", "1", "--metric", metric, *flags]) == 2
    return capsys.readouterr().err


def test_command_says_what_is_wrong_with_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = grid_rows(mine=1.0, wrong="")
    path = write(tmp_path / "t.csv", rows)
    assert "no column 'blue' (did you mean 'bleu'?)" in complaint(capsys, path, metric="blue")
    assert "--direction" in complaint(capsys, path, metric="mine")
    assert "wrong '';" in complaint(capsys, path, "--direction", "minimize", metric="wrong")
    assert "0 configurations" in complaint(capsys, path, "--where", "base_model=c")
    assert "no column 'task'" in complaint(capsys, path, "--where", "task=a")
    assert "have the same genes (lora_rank)" in complaint(capsys, path, "--genes", "lora_rank")
    assert "no gene varies among layers" in complaint(capsys, path, "--genes", "layers")
    assert "cannot be read" in complaint(capsys, tmp_path / "absent.csv")
    for row, rank in ((rows[0], "4.5"), (rows[1], "many")):
        row["lora_rank"] = rank
        assert "lora_rank" in complaint(capsys, write(tmp_path / "rank.csv", rows))
    halves = [{**grid_rows()[0], "lora_rank": 2.5}]
    halves += [{**halves[0], "config": "other", "lora_rank": 3.5}]
    assert "whole number" in complaint(capsys, write(tmp_path / "halves.csv", halves))
    bare = [{"config": row["config"], "bleu": 1} for row in rows]
    assert "no column 'checkpoint'" in complaint(capsys, write(tmp_path / "bare.csv", bare))


@pytest.mark.parametrize("flags", [["--rungs", "50,5"], ["--budgets", "0"], ["--seeds", "none"]])
def test_command_refuses_flags_that_mean_nothing(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        replay.main(["t.csv", *flags])
    assert ended.value.code == 2


@pytest.mark.skipif(not REAL.exists(), reason=f"the recorded curves are not at {REAL}")
def test_real_curves_are_a_whole_grid() -> None:
    table = read_table(REAL, "bleu")
    assert [len(gene.values) for gene in table.genes] == [3, 3, 3, 6]
    assert table.is_grid
    assert sum(map(len, table.curves)) == 3509
    assert min(table.full_loss(config) for config in range(len(table))) == -30.76
