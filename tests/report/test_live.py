"""The live table on terminals of any size: what it keeps, what it drops, and in which order."""

from __future__ import annotations

import io
import itertools
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from coralx.api import runs as api
from coralx.execution.executor import StatusUpdate
from coralx.records.events import Event, GenerationStarted, RunStarted, StageCompleted, StageDecided
from coralx.records.genomes import Genes
from coralx.records.results import Progress
from coralx.records.run_facts import Settings
from coralx.records.verdicts import Cut, Promote
from coralx.report.line_wrapping import cut, cut_in_the_middle, folded, packed
from coralx.report.live import LiveTable, Silent
from coralx.report.live_table import board
from coralx.report.opening import opening_lines
from coralx.report.progress import Standings, short_names
from coralx.report.table_layout import fitting
from tests.support.factories import make_facts, make_genome, make_result, simulated_config

LEFT = "about 12 min 30 s left"
SIZES = [(80, 24), (40, 24), (60, 12), (120, 50), (200, 24), (30, 10), (80, 8), (20, 6)]


def standings_of(count: int, training: int, id_: str = "g00-{:02d}-a1b2", **sections: Any) -> Any:
    """A generation in its second stage: `training` genomes in training, a quarter of the rest cut,
    the others waiting."""
    config = simulated_config(
        evolution={"population_size": max(2, count), "generations": 2}, **sections
    )
    standings = Standings(config)
    genes = Genes(target_modules=("q_proj", "k_proj", "v_proj", "o_proj"))
    names = [id_.format(number) for number in range(count)]
    standings.on_event(GenerationStarted(0, tuple(make_genome(name, genes) for name in names)))
    first, second = (stage.name for stage in standings.stages[:2])
    figures = {"auroc": 0.5, "eval_loss": 0.7, "trainable_parameters": 147456.0}
    for name in names:
        standings.on_event(StageCompleted(0, make_result(name, figures, stage=first)))
    cuts = (count - training) // 4
    gone = names[:cuts]
    verdicts = [Cut(n, 9, 4) if n in gone else Promote(n) for n in names]
    standings.on_event(StageDecided(0, first, tuple(verdicts)))
    for name in names[count - training :]:
        standings.on_progress(Progress(name, second, 44, 108, 0.6931, 0.1))
    return standings


def drawn(renderable: Any, width: int, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, record=True)
    console.print(renderable)
    return [line.rstrip() for line in console.export_text().rstrip("\n").splitlines()]


# -- what is shown -------------------------------------------------------------------------------


def test_eight_genomes_fit_a_common_terminal_with_all_that_is_said_of_them() -> None:
    lines = drawn(board(standings_of(8, 2), "", LEFT, 80, 23), 80)
    waiting = "16/16       2.0e-04  q_proj+k_…oj+o_proj  0.5000         S1 waiting"
    assert lines == [
        "generation 1 of 2 · S1_shakeout · 0.0 s elapsed · about 12 min 30 s left",
        "genome       rank/alpha  lr       modules               auroc   loss  state",
        "g00-00-a1b2  16/16       2.0e-04  q_proj+k_…oj+o_proj  0.5000         S0 cut",
        *(f"g00-0{number}-a1b2  {waiting}" for number in range(1, 6)),
        *(
            f"g00-0{number}-a1b2  16/16       2.0e-04  q_proj+k_…oj+o_proj  0.5000  0.693  "
            "S1 44/108"
            for number in (6, 7)
        ),
    ]


@pytest.mark.parametrize(("count", "training"), [(8, 2), (32, 4), (100, 8), (2, 2), (1, 1)])
@pytest.mark.parametrize("id_", ["g00-{:03d}-a1b2", "a-genome-of-someones-own-with-a-name-{:03d}"])
def test_at_any_size_it_fits_and_whoever_trains_is_there(
    count: int, training: int, id_: str
) -> None:
    standings = standings_of(count, training, id_)
    for width, height in SIZES:
        lines = drawn(board(standings, "", LEFT, width, height), width, height)
        assert len(lines) <= height
        assert max(map(cell_len, lines)) <= width
        in_training = [line for line in lines if "S1 44/108" in line]
        if width >= 30 and height >= training + 5:
            assert len(in_training) == training
            assert all("0.5000" in line for line in in_training)
            tails = {id_.format(number)[-3:] for number in range(count - training, count)}
            assert {line.split()[0][-3:] for line in in_training} == tails
        shown = sum(bool(re.match(r"\S+ .*S\d ", line)) for line in lines)
        if shown < count and height >= 8:
            assert lines[-1].startswith("and ")
            if not lines[-1].endswith("…"):
                assert shown + sum(map(int, re.findall(r"\d+", lines[-1]))) == count


def test_who_is_out_is_folded_before_who_waits_and_that_before_who_trains() -> None:
    standings = standings_of(12, 3)
    said = [drawn(board(standings, "", LEFT, 80, height), 80)[-1] for height in (14, 13, 11, 9, 7)]
    assert said[0].endswith("S1 44/108")
    assert said[1:] == [
        "and 2 cut",
        "and 2 waiting, 2 cut",
        "and 4 waiting, 2 cut",
        "and 6 waiting, 2 cut",
    ]


def test_columns_go_in_the_order_of_their_worth() -> None:
    """Modules first, then rank, rate, loss; figure and state stay."""
    standings = standings_of(3, 1)
    titles = []
    for width in range(100, 29, -1):
        found = next(
            line for line in drawn(board(standings, "", LEFT, width, 20), width) if "state" in line
        )
        titles.append(tuple(found.split()))
    order = [key for key, _ in itertools.groupby(titles)]
    assert order == [
        ("genome", "rank/alpha", "lr", "modules", "auroc", "loss", "state"),
        ("genome", "rank/alpha", "lr", "auroc", "loss", "state"),
        ("genome", "lr", "auroc", "loss", "state"),
        ("genome", "auroc", "loss", "state"),
        ("genome", "auroc", "state"),
    ]


def test_a_long_name_of_a_metric_takes_no_column_away() -> None:
    objectives = [{"metric": "trainable_parameters"}, {"metric": "auroc"}]
    standings = standings_of(3, 1, objectives=objectives)
    lines = drawn(board(standings, "", LEFT, 80, 20), 80)
    assert "147,456" in lines[-1]
    assert "traina…eters" in lines[-4]


def test_stages_are_called_by_the_part_that_tells_them_apart() -> None:
    assert short_names(["S0_sanity", "S1"]) == {"S0_sanity": "S0", "S1": "S1"}
    assert short_names(["go_a", "go_b"]) == {"go_a": "go_a", "go_b": "go_b"}


class Sizes(Silent):
    """Looks at the table whenever something happens."""

    def __init__(self, width: int, height: int) -> None:
        self.size = width, height
        self.states: set[str] = set()

    def begin(self, config: Any) -> None:
        self.standings = Standings(config)

    def look(self) -> None:
        lines = drawn(board(self.standings, "", LEFT, *self.size), *self.size)
        assert len(lines) <= self.size[1]
        training = [g for g, b in self.standings.brief.items() if b.kind == "training"]
        for genome in training:
            assert any(line.startswith(genome) for line in lines)
        self.states |= {brief.kind for brief in self.standings.brief.values()}

    def on_event(self, event: Event) -> None:
        self.standings.on_event(event)
        self.look()

    def on_signal(self, signal: StatusUpdate) -> None:
        if isinstance(signal, Progress):
            self.standings.on_progress(signal)
            self.look()


@pytest.mark.parametrize("promotion", ["synchronous", "asynchronous"])
def test_through_a_whole_run_no_row_in_training_is_missing(
    promotion: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evolution = {"population_size": 8, "generations": 2}
    schedule = {"promotion": promotion}
    view = Sizes(80, 9)
    api.evolve(simulated_config(evolution=evolution, hyperband_config=schedule), "run", view)
    assert {"training", "waiting", "evaluated", "finished", "cut"} <= view.states


# -- text that fits ------------------------------------------------------------------------------


def test_opening_lines_break_between_words_and_behind_slashes() -> None:
    path = "/home/somebody/projects/of/last/year/models/a-base-model-of-some-size"
    config = simulated_config(model={"base": path})
    settings = Settings(2, 4, "none")
    event = RunStarted(1, "sim", "simulation", 7, make_facts(), settings, {}, {}, 0.0)
    for line in (*opening_lines(config, event), f"base {path}", f"is it {path}? yes"):
        for width in (80, 60, 40):
            parts = folded(line, width)
            assert all(cell_len(part) <= width for part in parts)
            assert "".join("".join(parts).split()) == "".join(line.split())
            whole = set(re.split(r"[\s/]+", line))
            assert all(set(re.split(r"[\s/]+", part)) - {""} <= whole for part in parts)


def test_a_figure_stays_with_its_unit() -> None:
    line = "generation 1 of 2, about 12 min 09 s left, (3.5 GiB) and 40 %."
    for width in range(14, 60):
        joined = "\n".join(folded(line, width))
        assert all(part in joined for part in ("12 min 09 s", "(3.5 GiB)", "40 %."))


def test_what_has_no_room_on_any_line_is_broken_where_it_must_be() -> None:
    parts = folded("x " + "y" * 50, 20)
    assert [len(part) for part in parts[1:]] == [20, 20, 16]
    assert "".join(part.strip() for part in parts) == "x" + "y" * 50
    assert folded("\x1b[31mred", 40) == [r"\x1b[31mred"]
    assert folded("漢字" * 4, 10) == ["  漢字漢字"] * 2


def test_parts_are_packed_and_names_are_cut_in_the_middle() -> None:
    assert packed(["one", "two", "three"], 9) == ["one · two", "three"]
    assert cut("abcdef", 4) == "abc…"
    assert cut_in_the_middle("abcdefgh", 5) == "ab…gh"
    assert [cell_len(cut_in_the_middle("漢字漢字漢", width)) for width in range(1, 11)] == list(
        range(1, 11)
    )


@pytest.mark.parametrize("width", [120, 60, 30])
def test_a_table_of_any_width_loses_no_cell(width: int) -> None:
    table = Table(title="Titles", title_justify="left")
    for name in ("stage", "planned steps", "trained steps", "time"):
        table.add_column(name)
    table.add_row("S0_sanity", "1,234.5", "2,345", "2 min 25 s")
    table.add_row("S1", "", "77", "1.0 s")
    lines = drawn(fitting(table), width)
    assert max(map(cell_len, lines)) <= width
    words = " ".join(lines).split()
    assert {"S0_sanity", "1,234.5", "2,345", "77"} <= {word.strip(",:┃│") for word in words}


def test_the_view_draws_what_is_told_above_the_table(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = io.StringIO()
    with LiveTable(Console(file=seen, width=50, height=20, force_terminal=True)) as live:
        api.evolve(simulated_config(), "live", live)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.getvalue()).splitlines()
    plan = next(n for n, line in enumerate(lines) if line.strip().startswith("plan:"))
    assert lines[plan].rstrip().endswith("(genomes x total")
