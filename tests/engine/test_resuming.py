"""Going on with a run: more generations, damaged or missing files, and who is asked."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from coralx.api import runs as api
from coralx.cli.resume import resumed_config
from coralx.errors import DamagedRunError, Interrupted, UsageError
from coralx.records.events import CheckpointRestored, RunCompleted, RunResumed, code_of
from coralx.storage.history import History
from coralx.storage.layout import RunLayout, find_run
from coralx.system.files import verify_folder
from tests.support.factories import simulated_config
from tests.support.simulated_runs import KillAfter, comparable, events_of, story

THREE = {"evolution": {"population_size": 6, "generations": 3}}
TWO = {"evolution": {"population_size": 6, "generations": 2}}


pytestmark = pytest.mark.usefixtures("here")


def decided(layout: RunLayout) -> list[Any]:
    return [event for event in story(layout) if not isinstance(event, RunCompleted)]


# -- more generations ------------------------------------------------------------------------------


@pytest.mark.parametrize("promotion", ["synchronous", "asynchronous"])
def test_a_finished_run_goes_on_for_more_generations(promotion: str) -> None:
    schedule = {"hyperband_config": {"promotion": promotion}}
    short = api.evolve(simulated_config(**TWO, **schedule), "short")
    config = resumed_config(short.layout, None, ["evolution.generations=3"], None, None)
    longer = api.resume(short.layout, config)
    assert longer.report["completed"]
    assert longer.report["generations"] == 3
    assert longer.report["test_reused"]
    if promotion == "synchronous":  # what it ends with is what three generations end with
        whole = api.evolve(simulated_config(**THREE), "whole")
        assert decided(longer.layout) == decided(whole.layout)
        assert longer.report["front"] == whole.report["front"]
    again = api.resume(longer.layout)
    assert comparable(again.report) == comparable(longer.report)


@pytest.mark.parametrize("events", range(1, 11))
def test_an_extension_that_was_killed_goes_on_too(events: int) -> None:
    short = api.evolve(simulated_config(**TWO), "short")
    config = resumed_config(short.layout, None, ["evolution.generations=3"], None, None)
    with pytest.raises(Interrupted):
        api.resume(short.layout, config, KillAfter(events))
    longer = api.resume(short.layout)
    whole = api.evolve(simulated_config(**THREE), "whole")
    assert decided(longer.layout) == decided(whole.layout)
    assert longer.report["front"] == whole.report["front"]


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("evolution.generations=1", "evolution.generations"),
        ("evolution.population_size=7", "evolution.population_size"),
        ("experiment.seed=4", "experiment.seed"),
        ("runtime.backend=peft", "runtime.backend"),
    ],
)
def test_what_may_not_change_is_refused_by_name(setting: str, named: str) -> None:
    run = api.evolve(simulated_config(**TWO), "run")
    with pytest.raises(UsageError, match=named) as caught:
        resumed_config(run.layout, None, [setting], None, None)
    assert "greater number of generations" in caught.value.hint


# -- files that are damaged or gone ----------------------------------------------------------------


def cut(events: int = 30) -> RunLayout:
    with pytest.raises(Interrupted):
        api.evolve(simulated_config(**THREE), "cut", KillAfter(events))
    return find_run("cut")


def restored(layout: RunLayout) -> list[tuple[str, str]]:
    found = [e.result for e in events_of(layout) if isinstance(e, CheckpointRestored)]
    return [(result.genome, result.stage) for result in found]


@pytest.mark.parametrize("events", [7, 22, 40, 60])
def test_a_run_that_lost_all_its_checkpoints_trains_what_it_needs_again(events: int) -> None:
    whole = api.evolve(simulated_config(**THREE), "whole")
    layout = cut(events)
    shutil.rmtree(layout.checkpoints)
    resumed = api.resume(layout)
    assert restored(layout)
    assert story(layout) == story(whole.layout)
    assert resumed.report["front"] == whole.report["front"]
    there = list(layout.checkpoints.rglob("*.json"))
    for kept in there:  # parents that no child was born of are not needed, and not made again
        same = whole.layout.checkpoints / kept.relative_to(layout.checkpoints)
        assert same.read_bytes() == kept.read_bytes()
    for member in resumed.report["front"]:
        assert layout.checkpoint(member["genome"], "S3_finisher") / "manifest.json" in there


@pytest.mark.parametrize("more", [1, 300, 900])
def test_the_steps_of_what_was_trained_again_count_against_the_budget(more: int) -> None:
    layout = cut()
    before = History(events_of(layout)).trained_steps
    shutil.rmtree(layout.checkpoints)
    limit = [f"budget.max_steps={before + more}"]
    resumed = api.resume(layout, resumed_config(layout, None, limit, None, None))
    assert resumed.report["ended_by"]
    assert History(events_of(layout)).trained_steps <= before + more


def test_a_baseline_that_was_lost_before_it_was_measured_is_trained_again() -> None:
    baseline = {"runtime": {"backend": "simulated", "baseline": True}}
    whole = api.evolve(simulated_config(**TWO, **baseline), "whole")
    kinds = [code_of(event) for event in events_of(whole.layout)]
    last = len(kinds) - kinds[::-1].index("TrainedBeside")
    with pytest.raises(Interrupted):
        api.evolve(simulated_config(**TWO, **baseline), "cut", KillAfter(last))
    layout = find_run("cut")
    (layout.checkpoint("_baseline", "S3_finisher") / "trainer_state.json").write_text("{}")
    resumed = api.resume(layout)
    assert resumed.report["completed"]
    assert resumed.report["baselines"] == whole.report["baselines"]
    verify_folder(layout.checkpoint("_baseline", "S3_finisher"))


def test_a_checkpoint_of_a_finished_front_is_trained_again() -> None:
    whole = api.evolve(simulated_config(**TWO), "whole")
    member = whole.report["front"][0]["genome"]
    path = whole.layout.checkpoint(member, "S3_finisher")
    content = (path / "trainer_state.json").read_bytes()
    (path / "trainer_state.json").write_bytes(b"{}")
    again = api.resume(whole.layout)
    assert restored(whole.layout)[-1] == (member, "S3_finisher")
    assert (path / "trainer_state.json").read_bytes() == content
    assert again.report["front"] == whole.report["front"]


def test_a_config_that_is_gone_is_taken_from_the_ledger() -> None:
    whole = api.evolve(simulated_config(**THREE), "whole")
    layout = cut()
    content = layout.config.read_bytes()
    layout.config.unlink()
    assert api.read_report(layout)["population_size"] == 6
    resumed = api.resume(layout)
    assert layout.config.read_bytes() == content
    assert resumed.report["front"] == whole.report["front"]
    assert isinstance(next(e for e in events_of(layout) if isinstance(e, RunResumed)), RunResumed)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("seed: 3", "seed: 13", "experiment.seed"),
        ("population_size: 6", "population_size: 7", "evolution.population_size"),
        ("evolution:", "evolution", "line"),
    ],
)
def test_a_config_that_was_changed_is_named(before: str, after: str, said: str) -> None:
    layout = cut()
    text = layout.config.read_text()
    seed = yaml.safe_load(text)["experiment"]["seed"]
    before = before.replace("seed: 3", f"seed: {seed}")
    assert before in text
    layout.config.write_text(text.replace(before, after))
    with pytest.raises(Exception, match=said) as caught:
        api.resume(layout)
    assert str(layout.config) in str(caught.value)
    if "seed" in said or "population" in said:
        assert isinstance(caught.value, DamagedRunError)


# -- who is asked ----------------------------------------------------------------------------------

CONFIG = "data: {steps_per_epoch: 100}\nruntime: {backend: simulated}\nexperiment: {name: mine}\n"


def on_a_terminal(arguments: list[str], answer: str) -> tuple[int, str]:
    """Run the command on a pseudo-terminal and answer its question."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "coralx", *arguments],
        stdin=follower, stdout=follower, stderr=follower,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(follower)
    said, deadline = b"", time.monotonic() + 300
    while time.monotonic() < deadline:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                chunk = os.read(leader, 4096)
            except OSError:  # the other side is closed
                break
            said += chunk
            if b"[Y/n]" in said and answer:
                os.write(leader, f"{answer}\n".encode())
                answer = ""
        elif process.poll() is not None:
            break
    os.close(leader)
    return process.wait(300), said.decode(errors="replace")


def test_a_taken_name_is_offered_for_resuming_on_a_terminal(here: Path) -> None:
    with pytest.raises(Interrupted):
        api.evolve(simulated_config(), "mine", KillAfter(9))
    shutil.copy(here / "runs" / "mine" / "config.yaml", here / "mine.yaml")
    code, said = on_a_terminal(["evolve", "mine.yaml", "--name", "mine"], "n")
    assert (code, "Continue it with --resume mine" in said) == (2, True)
    code, said = on_a_terminal(["evolve", "mine.yaml", "--name", "mine"], "y")
    assert (code, "is unfinished. Go on with it?" in said) == (0, True), said
    assert api.read_report(find_run("mine"))["completed"]


def test_an_unfinished_run_is_mentioned_elsewhere(here: Path) -> None:
    (here / "mine.yaml").write_text(CONFIG)
    with pytest.raises(Interrupted):
        api.evolve(simulated_config(), "mine", KillAfter(9))
    done = subprocess.run(
        [sys.executable, "-m", "coralx", "evolve", "mine.yaml"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "To go on with it instead: coralx evolve --resume mine" in done.stderr
    assert (here / "runs" / "mine-2").is_dir()
