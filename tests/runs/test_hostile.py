"""Hostile input: nothing of it is run, written elsewhere, or obeyed by the terminal."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.live import Live
from rich.table import Table

from coralx.api import runs as api
from coralx.cli import main
from coralx.errors import ConfigError, CoralXError, DamagedRunError, UsageError
from coralx.report.formatting import HarmlessConsole
from coralx.report.pareto_table import pareto_csv
from coralx.storage.checkpoints import prune, write_best
from coralx.storage.layout import RunLayout, find_run
from coralx.storage.ledger import Ledger, _checksum
from coralx.system.files import canonical_json
from coralx.text import printable, shown
from tests.support.factories import simulated_config

HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
CELLS = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\u202egood",
    "[red]markup[/]",
    "[/]",
    "<script>alert(1)</script>",
    "=1+1",
    "@SUM(A1)",
    "\\[bold]",
)
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command in this process, in an empty folder: its exit code and all that it shows."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["coralx", *arguments])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as ending:
            code = int(ending.code or 0)
        shown = capsys.readouterr()
        assert not HARMFUL.search(shown.out + shown.err), repr(shown)
        return code, shown.out + shown.err

    return command


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("hyperband_config.training_stages.²=1", "is not one of its positions"),
        ("hyperband_config.training_stages." + "9" * 5_000 + "=1", "is not one of its positions"),
        (".".join("a" * 50_000) + "=1", "is not of the form"),
        ("x" * 100_000, "is not of the form"),
        ("evolution.population_size=" + "9" * 5_000, "a number of 5,000 characters"),
        ("data.train=!!python/object/apply:os.system [id]", "tags are not allowed"),
        ("data.train=" + "[" * 999, "levels deep"),
        ("data.train=\x1b[2J", "the character '\\x1b' is not allowed"),
        ("\x1b[2J.x=1", "unknown key"),
    ],
)
def test_overrides_that_are_meant_to_harm_are_refused_in_words(
    run: Run, override: str, says: str
) -> None:
    stage = "{name: S, epoch_budget: 1, data_percentage: 1, survival_rate: 1}"
    Path("case.yaml").write_text(f"hyperband_config: {{training_stages: [{stage}]}}\n")
    code, output = run("validate", "case.yaml", "--set", override)
    assert code == 2
    assert says in output
    assert len(output) < 3_000


# -- names that become paths ---------------------------------------------------------------------

NAMES = ("", ".", "..", "../x", "a/b", "/etc", "a\x00b", "a\nb", "\x1b[31m", "a\\b", "x" * 300)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_out_of_a_run_is_no_path_in_it(tmp_path: Path, name: str) -> None:
    layout = RunLayout(tmp_path)
    asked: list[Callable[[], Path]] = [
        lambda: layout.checkpoint(name, "S0"),
        lambda: layout.checkpoint("g0", name),
        lambda: layout.best_adapter(name),
    ]
    if name:  # without one it is the untuned base
        asked.append(lambda: layout.scores(name))
    for path in asked:
        with pytest.raises(DamagedRunError, match="is not a valid name of a genome or stage"):
            path()


@pytest.mark.parametrize("name", NAMES)
def test_no_run_is_made_or_found_by_such_a_name(
    run: Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="cannot name a run"):
        api.evolve(simulated_config(), name or " ")
    with pytest.raises(UsageError):
        find_run(name)
    Path("sim.yaml").write_text("data: {steps_per_epoch: 9}\n")
    for arguments in (["evolve", "sim.yaml", "--name", name], ["evolve", "--resume", name]):
        assert run(*arguments, "--mode", "simulation")[0] == 2
    assert run("report", name)[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["sim.yaml"]


def forged(layout: RunLayout, old: str, new: Any) -> None:
    """Put another value for one in a run's ledger, with checksums that fit."""
    lines = []
    for line in layout.ledger.read_text().splitlines():
        entry = json.loads(line.replace(json.dumps(old), json.dumps(new)))
        entry["checksum"] = _checksum(entry)
        lines.append(canonical_json(entry) + "\n")
    layout.ledger.write_text("".join(lines))


@pytest.fixture
def finished(run: Run) -> RunLayout:
    """A finished simulation in runs/sim."""
    Path("sim.yaml").write_text(
        yaml.safe_dump(simulated_config(evolution={"population_size": 4}).model_dump(mode="json"))
    )
    assert run("evolve", "sim.yaml", "--quiet")[0] == 0
    return find_run("sim")


@pytest.mark.parametrize("name", ["../../../up", "/tmp/abs", "a\x1b[31m", "a/b"])
def test_a_forged_ledger_leads_nowhere(run: Run, finished: RunLayout, name: str) -> None:
    best = json.loads(finished.report.read_text())["front"][0]["genome"]
    before = set(finished.root.parent.parent.rglob("*"))
    forged(finished, best, name)
    for arguments in (["report", "sim"], ["evolve", "--resume", "sim"]):
        code, output = run(*arguments)
        assert code == 4, output
        assert "is not a valid name of a genome or stage" in output
    assert set(finished.root.parent.parent.rglob("*")) == before


def test_a_ledger_whose_front_is_unknown_is_damaged(run: Run, finished: RunLayout) -> None:
    entries = Ledger.read(finished.ledger)
    best = json.loads(finished.report.read_text())["front"][0]["genome"]
    text = finished.ledger.read_text()
    kept = [line for line in text.splitlines() if '"GenerationStarted"' not in line]
    assert len(kept) < len(entries)
    for number, line in enumerate(kept):
        entry = json.loads(line) | {"seq": number}
        kept[number] = canonical_json({**entry, "checksum": _checksum(entry)})
    finished.ledger.write_text("\n".join(kept) + "\n")
    code, output = run("report", "sim")
    assert code == 4
    assert "which the run does not have" in output
    assert best.startswith("g")


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"seq": ' + b"9" * 5_000 + b"}",
        b'{"checksum": NaN}',
        b'{"checksum":"","payload":{},"seq":0,"time":"","type":"RunCompleted"}',
        b"\xff\x00",
        b"null",
    ],
)
def test_a_line_that_is_no_event_is_damage(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(DamagedRunError, match="line 1: damaged"):
        Ledger.read(path)


def test_an_event_at_no_time_is_damage(finished: RunLayout) -> None:
    intact, entry = finished.ledger.read_bytes(), Ledger.read(finished.ledger)[0]
    for time_ in ("yesterday", "0001-01-01T00:00:00", 5):
        forged(finished, entry.time, time_)
        with pytest.raises(DamagedRunError, match="line 1: damaged"):
            Ledger.read(finished.ledger)
        finished.ledger.write_bytes(intact)


@pytest.mark.parametrize("value", ["\x1b[31m[red]x", "[/]", "[bold]\u202e"])
def test_what_a_forged_ledger_says_is_shown_and_not_obeyed(
    run: Run, finished: RunLayout, value: str
) -> None:
    for old in ("simulation", "simulated learning curves; nothing is trained"):
        forged(finished, old, value)
    code, output = run("report", "sim")
    assert code == 0
    assert printable(value) in output
    forged(finished, "adapter", value)  # in the config that the ledger records
    code, output = run("report", "sim")
    assert code == 4
    assert "\x1b[31m" not in output


def test_links_in_a_run_folder_lead_no_deletion_out_of_it(tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "photos"
    mine.mkdir(parents=True)
    (mine / "a.jpg").touch()
    linked = RunLayout(tmp_path / "linked")
    linked.root.mkdir()
    linked.best.symlink_to(tmp_path / "mine")
    linked.checkpoints.symlink_to(tmp_path)
    inner = RunLayout(tmp_path / "inner")
    inner.checkpoints.mkdir(parents=True)
    (inner.checkpoints / "g0").symlink_to(tmp_path / "mine")
    for layout in (linked, inner):
        prune(layout, set())
        write_best(layout, [], "S0")
    assert (mine / "a.jpg").exists()


# -- what is shown -------------------------------------------------------------------------------


@given(st.text() | st.sampled_from(CELLS))
def test_printable_text_is_harmless_and_the_rest_of_it_unchanged(text: str) -> None:
    made = printable(text)
    assert not HARMFUL.search(made)
    made.encode()
    assert printable(made) == made
    if text.isprintable():
        assert made == text


def test_a_long_value_is_echoed_in_part() -> None:
    assert shown("x" * 500).endswith("'... (380 characters more)")
    assert len(shown(list(range(500)))) < 200
    assert "thousands of digits" in shown(10**9_999)


@pytest.mark.parametrize("text", CELLS)
def test_errors_are_printable(text: str) -> None:
    for error in (CoralXError(text, text), ConfigError(text, [text], text)):
        assert not HARMFUL.search(f"{error}{error.message}{error.hint}")


@pytest.mark.parametrize("text", CELLS)
def test_no_way_of_printing_passes_control_characters_on(text: str) -> None:
    stream = io.StringIO()
    console = HarmlessConsole(file=stream, width=80)  # without colours: every escape is the text's
    table = Table(title=text.replace("[", "("))
    table.add_column(text.replace("[", "("))
    table.add_row(text.replace("[", "("))
    console.print(text, markup=False)
    console.print(table)
    with Live(table, console=console, auto_refresh=False):
        console.print(text, markup=False)
    try:
        raise ValueError(text)
    except ValueError:
        console.print_exception()
    assert not HARMFUL.search(stream.getvalue())
    assert printable(text).replace("\\x07", "") in stream.getvalue()  # rich drops a bell


@pytest.fixture
def hostile_data(tmp_path: Path, tiny_config: dict[str, Any]) -> dict[str, Any]:
    """The tiny search on a table whose labels and texts are hostile."""
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "other\x1b[31m"])
        for number in range(80):
            label = ("\x1b[31mgood", "[red]bad[/]")[number % 2]
            writer.writerow([f"film {number % 7} {CELLS[number % len(CELLS)]}", label, "=1"])
    tiny_config["data"] = {
        "train": str(path),
        "validation_fraction": 0.3,
        "test_fraction": 0.3,
    }
    stage = {"name": "S0", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 1}
    tiny_config["hyperband_config"] = {"training_stages": [stage]}
    tiny_config["evolution"] = {"population_size": 2, "generations": 1}
    tiny_config["runtime"]["executor"] = "in-process"
    return tiny_config


def test_hostile_cells_go_through_a_whole_run(
    run: Run, hostile_data: dict[str, Any], tmp_path: Path
) -> None:
    config = Path("[red]config[.yaml")
    config.write_text(yaml.safe_dump(hostile_data))
    code, output = run("validate", str(config))
    assert code == 0
    assert str(config) in output
    for arguments in (["evolve", str(config)], ["report"], ["report", "--json"]):
        code, output = run(*arguments)
        assert code == 0, output
    written = [tmp_path / "runs" / "tiny" / name for name in ("report.json", "pareto.csv")]
    assert not any(HARMFUL.search(path.read_text()) for path in written)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labels": ["good", "bad"]}, "'\\x1b[31mgood' (40x), '[red]bad[/]' (40x)"),
        ({"label": "nosuch"}, "'other\\x1b[31m'"),
        ({"label": "text"}, "'film 0 \\x9b31m' (1 row)"),
    ],
)
def test_errors_that_list_what_the_data_holds_are_harmless(
    run: Run, hostile_data: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    hostile_data["data"] |= changes
    Path("hostile.yaml").write_text(yaml.safe_dump(hostile_data))
    code, output = run("evolve", "hostile.yaml")
    assert code == 2
    assert says in output


def test_a_table_of_the_front_holds_no_formulas() -> None:
    modules = ["=cmd|' /C calc'!A0", "q"]
    genes = {"rank": 8, "low": -1.5, "target_modules": modules, "at": "@x", "plain": "q_proj"}
    member = {
        "genome": "g0-0",
        "generation": 0,
        "genes": genes,
        "validation": {"auroc": -0.5},
        "test": None,
        "own_steps": 1,
        "lineage_steps": 1,
    }
    text = pareto_csv({"objectives": [{"metric": "auroc"}], "front": [member], "simulated": False})
    row = next(csv.DictReader(io.StringIO(text)))
    assert row["target_modules"] == "'=cmd|' /C calc'!A0 q"
    assert row["at"] == "'@x"
    assert (row["low"], row["validation_auroc"], row["plain"]) == ("-1.5", "-0.5", "q_proj")
