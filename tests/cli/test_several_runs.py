"""Several runs after one `--learn-from`."""

from __future__ import annotations

from pathlib import Path

import pytest

from coralx.cli.several_runs import flagged

F = "--learn-from"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["c.yaml", F, "a", "b", "d"], ["c.yaml", F, "a", F, "b", F, "d"]),
        ([F, "a", "b", "c.yaml"], [F, "a", F, "b", "c.yaml"]),
        ([F, "a", "c.yml", "--quiet"], [F, "a", "c.yml", "--quiet"]),
        ([F, "a", "b", "--seed", "3", "c.yaml"], [F, "a", F, "b", "--seed", "3", "c.yaml"]),
        ([F, "a", F, "b", "d"], [F, "a", F, "b", F, "d"]),
        ([f"{F}=a", "b", "c.yaml"], [f"{F}=a", F, "b", "c.yaml"]),
        ([F, "a", "--", "c.yaml"], [F, "a", "--", "c.yaml"]),
        (["c.yaml", "--name", "a"], ["c.yaml", "--name", "a"]),
        ([F, "a", "written"], [F, "a", "written"]),  # a file is no run
        ([F], [F]),
    ],
)
def test_each_run_gets_the_flag(here: Path, given: list[str], meant: list[str]) -> None:
    (here / "written").write_text("model: {}\n", encoding="utf-8")
    assert flagged(given) == meant
