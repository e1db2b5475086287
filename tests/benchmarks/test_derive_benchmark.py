"""The benchmark of derived genomes, on simulated curves: its rows, and that it resumes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "derive"))

SMALL = ["evolution.population_size=4", "evolution.generations=1", "runtime.backend=simulated"]


def test_each_arm_has_a_row_and_what_the_table_holds_is_not_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from derive import ARMS, BASELINES, main, read

    settings = [word for setting in SMALL for word in ("--set", setting)]
    table = tmp_path / "table.csv"
    where = ["--results", str(table), "--work", str(tmp_path / "work")]
    command = ["tweets", "--seeds", "1", "--minutes", "1", *where, *settings]
    main(command)
    rows = {row.arm: row for row in read(table)}
    assert list(rows) == [*ARMS, *BASELINES]
    derived, plain = rows["derived"], rows["plain"]
    assert (plain.genomes, plain.steps) == (derived.genomes, derived.steps)
    assert plain.derivation_looks == plain.derived_on_front == 0
    assert derived.looks == plain.looks + derived.derivation_looks > plain.looks
    assert derived.hypervolume > plain.hypervolume > 0
    for arm in BASELINES:
        assert rows[arm].looks == plain.looks + rows[arm].derivation_looks
        assert rows[arm].hypervolume >= plain.hypervolume > 0
    assert "truncate" in rows["plain + truncation"].operators
    before = table.read_bytes()
    capsys.readouterr()
    main(command)
    assert table.read_bytes() == before
    assert "| tweets | plain + soup |" in capsys.readouterr().out
    assert not list((tmp_path / "work" / "runs").iterdir())
