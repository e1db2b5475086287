"""What the project promises to those who install it or work on it: versions, hooks, workflow."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.make import run_make
from tests.support.paths import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
HOOKS: dict[str, Any] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_whatever_is_installed_has_a_pinned_version_within_its_bounds(extra: str) -> None:
    for line in EXTRAS[extra] if extra else PROJECT["dependencies"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pinned()[canonicalize_name(wanted.name)]), line


def test_pins_are_sorted_so_that_changes_to_them_can_be_read() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    names = [line.lower() for line in lines if not line.startswith("#")]
    assert names == sorted(names)


def test_every_extra_is_one_that_something_uses() -> None:
    assert EXTRAS.keys() == {"quickstart", "quantization", "unsloth", "dev", "release"}


def test_hooks_run_the_tools_of_the_projects_own_environment() -> None:
    (local,) = HOOKS["repos"]
    assert local["repo"] == "local"
    tools = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in local["hooks"]}
    assert tools == {"ruff", "mypy", "lint-imports"}
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    dev = {Requirement(line).name for line in EXTRAS["dev"]}
    assert {"ruff", "mypy", "import-linter", "pre-commit", "coverage"} <= dev


def test_the_workflow_runs_what_can_be_run_here() -> None:
    steps = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert ".ci/run" in commands
    targets = re.findall(r"^make (.+)$", "\n".join(commands), re.MULTILINE)
    assert targets == ["coverage", "release-check"]
    done = run_make("--dry-run", "--always-make", *targets)
    assert "coverage run -m pytest" in done.stdout
    assert "--mode simulation" in done.stdout


def test_the_gate_runs_unsloths_path_for_gpus_which_is_never_skipped() -> None:
    assert "make test-gpu-path" in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    done = run_make("--dry-run", "--always-make", "test-gpu-path")
    asked = done.stdout.split("--no-deps ")[-1].splitlines()[0].split()
    assert {"triton", "bitsandbytes"} <= set(asked)
    assert set(asked) <= pinned().keys()
    marked, path = done.stdout.rstrip().rsplit(maxsplit=2)[-2:]
    assert marked == "gpu_path"  # where none is so marked, pytest fails
    assert not re.search(r"\b(skip|skipif|xfail|importorskip)\b", (ROOT / path).read_text("utf-8"))
