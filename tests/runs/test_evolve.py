"""The main job with real gradients: through the command line, as a user runs it.

One file, however long, as its tests share one run, the only one of the default suite whose driver
and workers python starts afresh and that trains.
"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from coralx.records.events import (
    GenerationStarted,
    RunStarted,
    StageCompleted,
    StageDecided,
    WorkerStarted,
    WorkerStopped,
    code_of,
)
from coralx.records.genomes import Genome
from coralx.records.results import StageResult
from coralx.records.run_facts import Classes
from coralx.records.subjects import HEAD
from coralx.storage.history import History
from coralx.storage.ledger import Ledger
from tests.support.command import coralx, coralx_here
from tests.support.forks import coralx_with_forks, fork_coralx
from tests.support.paths import SUPPORT

PLAIN_PEFT = SUPPORT / "plain_peft.py"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_search: dict[str, Any]) -> Path:
    """A folder with tiny.yaml and the finished run runs/tiny."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_search))
    output = coralx(folder, "evolve", "tiny.yaml", "--set", "runtime.keep_checkpoints=all")
    (folder / "output.txt").write_text(output)
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    return place / "runs" / "tiny"


@pytest.fixture(scope="module")
def report(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "report.json").read_text())
    return found


def test_the_run_folder_holds_what_the_design_says(run: Path, report: dict[str, Any]) -> None:
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml",
        "ledger.jsonl",
        "checkpoints",
        "report.json",
        "pareto.csv",
        "best",
    }
    members = {member["genome"] for member in report["front"]}
    assert {path.name for path in (run / "best").iterdir()} == members
    with (run / "pareto.csv").open() as file:
        assert {row["genome"] for row in csv.DictReader(file)} == members


def test_plain_lines_tell_what_happens(place: Path) -> None:
    output = (place / "output.txt").read_text()
    assert "generation 1 of 2: 4 genomes" in output
    assert "warning: S1_shakeout ends after 5 steps, fewer than the 8 needed" in output
    assert "S1_shakeout: 4 promoted" in output
    assert "S2_serious: 3 promoted, 1 cut" in output
    assert "s left" in output
    assert "Pareto front, measured on the test split" in output
    assert "cheaper in steps" in output
    told = "'bad' (negative) 72/24/24, 'good' (positive) 72/24/24\n"
    assert output.count(told) == 2  # at the beginning, and in the report


def test_the_classes_are_in_the_ledger_the_report_and_beside_each_adapter(
    run: Path, report: dict[str, Any]
) -> None:
    rows = {"train": (72, 72), "validation": (24, 24), "test": (24, 24)}
    (first, *_) = Ledger(run / "ledger.jsonl")
    assert isinstance(first, RunStarted)
    assert first.facts.classes == (Classes("", ("bad", "good"), rows),)
    (classes,) = report["classes"]
    assert (classes["labels"], classes["negative"]) == (["bad", "good"], "bad")
    assert classes["rows"] == {split: list(counts) for split, counts in rows.items()}
    for member in report["front"]:
        about = json.loads((run / "best" / member["genome"] / "coralx.json").read_text())
        assert about["id2label"] == {"0": "bad", "1": "good"}
        assert about["genome"] == member["genome"]


def test_every_worker_loads_the_base_once(run: Path, report: dict[str, Any]) -> None:
    events = list(Ledger(run / "ledger.jsonl"))
    started = [event for event in events if isinstance(event, WorkerStarted)]
    stopped = [event for event in events if isinstance(event, WorkerStopped)]
    assert started
    assert stopped
    assert {event.base_loads for event in started} == {1}
    assert {event.base_loads for event in stopped} == {1}
    assert sum(event.jobs for event in stopped) > len(stopped)
    assert all(worker["base_loads"] == 1 for worker in report["workers"])


def test_efficiency_counts_planned_and_trained_steps(report: dict[str, Any]) -> None:
    efficiency = report["efficiency"]
    # 144 training rows in batches of 8: 18 steps an epoch, so 1.8, 4.5, 18 and 36 planned.
    rows = efficiency["stage_breakdown"]
    assert [row["genomes_trained"] for row in rows.values()] == [8, 8, 8, 6]
    assert [row["planned_steps"] for row in rows.values()] == pytest.approx(
        [8 * 1.8, 8 * 2.7, 8 * 13.5, 6 * 18]
    )
    assert [row["trained_steps"] for row in rows.values()] == [8 * 2, 8 * 3, 8 * 13, 6 * 18]
    assert efficiency["naive_steps"] == 8 * 36
    assert efficiency["actual_steps"] == 252  # as they were trained
    assert efficiency["step_ratio"] == pytest.approx(8 * 36 / 252)
    assert efficiency["efficiency_ratio"] > 0
    times = [row["total_time"] for row in rows.values()]
    beside = efficiency["beside_training"]
    assert beside["start"] > 0
    assert beside["measuring"] > 0
    assert beside["restarts"] == beside["failed_attempts"] == beside["trained_again"] == 0
    spent = sum(times) + beside["start"] + beside["measuring"]
    assert efficiency["total_training_time"] == pytest.approx(spent, abs=0.01)


def test_children_inherit_from_their_better_parent_and_say_so(
    run: Path, report: dict[str, Any]
) -> None:
    events = list(Ledger(run / "ledger.jsonl"))
    genomes = {g.id: g for e in events if isinstance(e, GenerationStarted) for g in e.genomes}
    heirs = {g.id: g for g in genomes.values() if g.inherits}
    assert heirs
    for heir in heirs.values():
        assert heir.inherits == heir.parents[0]
    for event in events:
        if isinstance(event, StageCompleted):
            assert (event.result.inherited_steps > 0) == (event.result.genome in heirs)
    for member in report["front"]:
        assert (member["lineage_steps"] > member["own_steps"]) == (member["genome"] in heirs)


def test_resized_children_inherit_from_any_better_parent_and_record_what_was_lost(
    tmp_path: Path, tiny_search: dict[str, Any]
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_search))
    coralx_here(tmp_path, "evolve", "tiny.yaml", "--quiet", "--set", "runtime.executor=in-process")
    ledger = Ledger.read(tmp_path / "runs/tiny/ledger.jsonl")
    started = [entry.event for entry in ledger if isinstance(entry.event, GenerationStarted)]
    genomes = {genome.id: genome for event in started for genome in event.genomes}
    carried = {
        entry.event.result.genome: entry.event.result.inheritance
        for entry in ledger
        if isinstance(entry.event, StageCompleted) and entry.event.result.inheritance is not None
    }
    heirs = [genome for genome in started[1].genomes if genome.inherits is not None]
    assert set(carried) == {genome.id for genome in heirs}
    resized = 0
    for genome in heirs:
        parent = genomes[str(genome.inherits)].genes
        found = carried[genome.id]
        assert found.parent_rank == parent.rank
        shrinks = genome.genes.rank < parent.rank or found.dropped
        assert (found.error > 0) == bool(shrinks)
        resized += genome.genes.rank != parent.rank or bool(found.dropped or found.added)
    assert resized > 0


@pytest.fixture(scope="module")
def crossing(tmp_path_factory: pytest.TempPathFactory, tiny_search: dict[str, Any]) -> Path:
    """A run in which every child of two parents tries both their checkpoints, ranks grow, and only
    needed checkpoints stay."""
    folder = tmp_path_factory.mktemp("crossing")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_search))
    output = coralx_here(
        folder, "evolve", "tiny.yaml", "--set", "evolution.checkpoint_crossover.merge=1.0",
        "--set", "hyperband_config.rank_growth=published", "--set", "evolution.generations=3",
        "--set", "runtime.executor=in-process",
    )  # fmt: skip
    (folder / "output.txt").write_text(output)
    return folder / "runs" / "tiny"


def results(run: Path) -> list[StageResult]:
    return [e.result for e in Ledger(run / "ledger.jsonl") if isinstance(e, StageCompleted)]


def genomes_of(run: Path) -> dict[str, Genome]:
    events = [e for e in Ledger(run / "ledger.jsonl") if isinstance(e, GenerationStarted)]
    return {genome.id: genome for event in events for genome in event.genomes}


def test_children_of_two_parents_start_from_both_where_that_is_better(crossing: Path) -> None:
    history = History(Ledger(crossing / "ledger.jsonl"))
    genomes = genomes_of(crossing)
    tried = kept = longer = 0
    for result in results(crossing):
        genome = genomes[result.genome]
        if result.stage != "S0_sanity":
            before = history.results[genome.id, "S0_sanity"]
            assert (result.inheritance, result.inherited_steps) == (None, before.inherited_steps)
            continue
        trial = result.inheritance.blend if result.inheritance else None
        assert (trial is not None) == (genome.blend is not None) == (len(genome.parents) == 2)
        if trial is None:
            continue
        tried += 1
        assert genome.parents == (genome.inherits, trial.other)
        assert trial.kept == (trial.blend_loss < trial.parent_loss)
        alone = history.lineage_steps(str(genome.inherits))
        both = history.joint_steps(*genome.parents)
        assert alone <= both  # the other parent may be an ancestor of the better one
        longer += alone < both
        assert result.inherited_steps == (both if trial.kept else alone)
        kept += trial.kept
    assert tried >= 3
    assert longer > 0
    report = json.loads((crossing / "report.json").read_text())
    assert (len(report["blends"]), sum(b["kept"] for b in report["blends"])) == (tried, kept)
    output = (crossing.parents[1] / "output.txt").read_text()
    assert f"Checkpoint crossover, kept for a lower loss: merge {kept} of {tried}" in output


def test_checkpoints_that_no_one_needs_any_more_are_gone_all_the_same(crossing: Path) -> None:
    """The run verified both parents' before each child began; those of the dead were dropped."""
    history = History(Ledger(crossing / "ledger.jsonl"))
    left = {path.parent.name for path in crossing.glob("checkpoints/*/*")}
    report = json.loads((crossing / "report.json").read_text())
    front = {member["genome"] for member in report["front"]}
    assert left <= set(history.populations[2]) | front | {HEAD}
    assert front <= left
    assert len(left) < len(history.genomes)


def test_ranks_grow_to_the_genes_on_entering_the_third_stage(crossing: Path) -> None:
    genomes = genomes_of(crossing)
    for result in results(crossing):
        early = result.stage in ("S0_sanity", "S1_shakeout")
        assert result.rank == genomes[result.genome].genes.rank // (2 if early else 1)
    report = json.loads((crossing / "report.json").read_text())
    for member in report["front"]:
        rank = member["genes"]["rank"]
        assert member["growth"] == [{"stage": "S2_serious", "before": rank // 2, "rank": rank}]
        config = json.loads((crossing / member["adapter"] / "adapter_config.json").read_text())
        assert (config["r"], config["lora_alpha"]) == (rank, member["genes"]["alpha"])
        sizes = {member["validation"]["trainable_parameters"]} | {
            r.metrics["trainable_parameters"]
            for r in results(crossing)
            if r.genome == member["genome"]
        }
        assert len(sizes) == 1  # of the finished adapter, from the first stage on


def test_an_adapter_scores_in_plain_peft_what_the_report_states(
    run: Path, report: dict[str, Any], tiny_base: Path, tmp_path: Path
) -> None:
    """A script that imports nothing of CoralX: transformers, PEFT, scikit-learn."""
    from coralx.config import load_config
    from coralx.data.splits import load_examples

    config = load_config(run / "config.yaml")
    test_rows = load_examples(config.data, config.experiment.seed).test
    rows = tmp_path / "test.json"
    rows.write_text(json.dumps([[example.text, example.label] for example in test_rows]))
    adapters = [str(run / member["adapter"]) for member in report["front"]]
    done = subprocess.run(
        [sys.executable, str(PLAIN_PEFT), str(tiny_base), str(rows), "16", *adapters],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    stated = [member["test"]["auroc"]["value"] for member in report["front"]]
    assert [float(line) for line in done.stdout.split()] == pytest.approx(stated, abs=1e-3)


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_the_front_can_be_read_in_any_terminal(report: dict[str, Any], columns: str) -> None:
    from rich.console import Console

    from coralx.report.terminal import print_report

    console = Console(width=int(columns), record=True, file=io.StringIO())
    print_report(report, console)
    shown = console.export_text()
    for member in report["front"]:
        assert member["genome"] in shown
        assert f"{member['test']['auroc']['value']:.4f}" in shown


def test_report_prints_the_same_from_the_folder_alone(place: Path, report: dict[str, Any]) -> None:
    for name in ("tiny", "runs/tiny", "latest"):
        assert json.loads(coralx_here(place, "report", name, "--json")) == report


def test_resuming_a_completed_run_writes_missing_reports(
    place: Path, run: Path, report: dict[str, Any]
) -> None:
    before = (run / "ledger.jsonl").read_bytes()
    (run / "report.json").unlink()
    coralx_here(place, "evolve", "--resume", "tiny", "--quiet")
    assert json.loads((run / "report.json").read_text()) == report
    assert (run / "ledger.jsonl").read_bytes() == before


def test_full_training_gives_survivors_the_same_adapters(place: Path, run: Path) -> None:
    """A generation-0 genome that passed all stages has, byte for byte, full training's adapter."""
    coralx_here(
        place, "evolve", "tiny.yaml", "--mode", "full", "--name", "full", "--quiet",
        "--set", "evolution.generations=1", "--set", "runtime.workers=1",
        "--set", "runtime.keep_checkpoints=all", "--set", "runtime.executor=in-process",
    )  # fmt: skip
    full = place / "runs" / "full"
    survivors = sorted(path.parent.name for path in run.glob("checkpoints/g00-*/S3_finisher"))
    assert len(survivors) == 3
    assert len(list(full.glob("checkpoints/g00-*/S3_finisher"))) == 4
    for genome in survivors:
        for stage in ("S0_sanity", "S3_finisher"):
            ours, theirs = (
                folder / "checkpoints" / genome / stage / "manifest.json" for folder in (run, full)
            )
            assert ours.read_bytes() == theirs.read_bytes()
    report = json.loads((full / "report.json").read_text())
    assert report["mode"] == "full"
    assert report["efficiency"]["step_ratio"] == 1
    # Its stages save and load in between, which one training in a piece would not.
    assert 0.5 < report["efficiency"]["efficiency_ratio"] <= 1
    assert report["stopped"] == []


def decisions(folder: Path) -> list[StageDecided]:
    return [e for e in Ledger.read_events(folder / "ledger.jsonl") if isinstance(e, StageDecided)]


def metrics(folder: Path) -> dict[tuple[str, str], Any]:
    events = [
        e for e in Ledger.read_events(folder / "ledger.jsonl") if isinstance(e, StageCompleted)
    ]
    return {(e.result.genome, e.result.stage): dict(e.result.metrics) for e in events}


def test_one_worker_decides_as_two_do(place: Path, run: Path) -> None:
    coralx_here(
        place, "evolve", "tiny.yaml", "--name", "alone", "--quiet",
        "--set", "runtime.workers=1", "--set", "runtime.executor=in-process",
    )  # fmt: skip
    assert decisions(place / "runs" / "alone") == decisions(run)
    assert metrics(place / "runs" / "alone") == metrics(run)


EVERYTHING = [
    *("--set", "hyperband_config.brackets=2"),
    *("--set", "evolution.pbt_quantile=0.5"),
    *("--set", "evolution.resize_adapters=true"),
    *("--set", "evolution.checkpoint_crossover.mask=0.5"),
    *("--set", "evolution.checkpoint_crossover.merge=0.5"),
    *("--set", "hyperband_config.rank_growth=published"),
    # so that two of a bracket leave the one stage before the last that is scored
    *("--set", "hyperband_config.training_stages.2.survival_rate=1.0"),
]


def test_one_worker_decides_as_two_do_with_every_strategy_at_once(place: Path) -> None:
    search = ("evolve", "tiny.yaml", "--quiet", *EVERYTHING, "--name")
    coralx_here(place, *search, "every-1", "--set", "runtime.executor=in-process")
    coralx_with_forks(place, *search, "every-2", "--set", "runtime.workers=2")
    alone, together = (place / "runs" / name for name in ("every-1", "every-2"))
    assert decisions(alone) == decisions(together)
    assert metrics(alone) == metrics(together)
    events = list(Ledger(together / "ledger.jsonl"))
    born = [g for e in events if isinstance(e, GenerationStarted) for g in e.genomes]
    assert {genome.bracket for genome in born} == {0, 1}
    copies = [g for e in events if isinstance(e, StageDecided) for g in e.newborn]
    assert copies
    results = [e.result for e in events if isinstance(e, StageCompleted)]
    assert {genome.id for genome in copies} <= {result.genome for result in results}
    assert any(result.inheritance and result.inheritance.blend for result in results)
    assert any(result.rank for result in results)


@pytest.mark.slow
def test_asynchronous_promotion_with_two_workers_survives_a_kill(place: Path) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "coralx", "evolve", "tiny.yaml", "--name", "asha"),
            *("--set", "hyperband_config.promotion=asynchronous"),
        ],
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    killed = place / "runs" / "asha"
    deadline = time.monotonic() + 600
    while not (killed / "ledger.jsonl").exists() or len(metrics(killed)) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = metrics(killed)
    coralx(place, "evolve", "--resume", "asha")
    done = [e.result for e in Ledger(killed / "ledger.jsonl") if isinstance(e, StageCompleted)]
    assert len(done) == len(metrics(killed))  # no completed stage was trained again
    assert before.items() <= metrics(killed).items()
    report = json.loads((killed / "report.json").read_text())
    assert report["completed"]
    assert report["front"]
    for member in report["front"]:
        assert (killed / "best" / member["genome"] / "adapter_model.safetensors").is_file()


def test_a_killed_run_resumes_to_the_same_end(
    place: Path, run: Path, report: dict[str, Any]
) -> None:
    """kill -9 of driver and workers in the middle; one worker now instead of two."""
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = fork_coralx(place, "evolve", "tiny.yaml", "--name", "killed", **quiet)
    killed = place / "runs" / "killed"
    deadline = time.monotonic() + 600
    while not (killed / "ledger.jsonl").exists() or not decisions(killed):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = metrics(killed)
    output = coralx_here(
        place, "evolve", "tiny.yaml", "--resume", "killed",
        "--set", "runtime.workers=1", "--set", "runtime.executor=in-process",
    )  # fmt: skip
    assert "resumed at generation" in output
    assert decisions(killed) == decisions(run)
    assert metrics(killed) == metrics(run)
    assert 0 < len(before) < len(metrics(run))
    done = [e.result for e in Ledger(killed / "ledger.jsonl") if isinstance(e, StageCompleted)]
    assert len(done) == len(metrics(run))  # no completed stage was trained again
    front = json.loads((killed / "report.json").read_text())["front"]
    assert [member["genome"] for member in front] == [m["genome"] for m in report["front"]]
    for member in front:
        adapter = Path("best") / member["genome"] / "adapter_model.safetensors"
        assert (killed / adapter).read_bytes() == (run / adapter).read_bytes()


def test_resuming_after_the_data_changed_is_refused(
    place: Path, reviews: Path, tmp_path: Path
) -> None:
    rows = reviews.read_text().splitlines()
    table = tmp_path / "rows.tsv"
    table.write_text("\n".join(rows[:200]) + "\n")
    arguments = ("--set", "runtime.executor=in-process", "--quiet")
    coralx_here(
        place, "evolve", "tiny.yaml", "--name", "changed", "--set", f"data.train={table}",
        "--set", "budget.max_steps=30", *arguments, code=3,
    )  # fmt: skip
    table.write_text("\n".join(rows[:220]) + "\n")
    output = coralx_here(
        place, "evolve", "--resume", "changed", "--set", "budget.max_steps=60", code=2
    )
    assert "since run 'changed' began, the data changed (it had 40 test rows, 120 train" in output
    assert "base model" not in output


def test_simulation_and_training_write_the_same_kinds_of_events(place: Path, run: Path) -> None:
    coralx_here(
        place, "evolve", "tiny.yaml", "--mode", "simulation", "--name", "simulated", "--quiet",
        "--set", "data.steps_per_epoch=18",
    )  # fmt: skip
    kinds = [
        {code_of(event) for event in Ledger(folder / "ledger.jsonl")}
        for folder in (run, place / "runs" / "simulated")
    ]
    assert kinds[0] - kinds[1] == {"TrainedBeside"}  # the head on the frozen base
    assert kinds[1] <= kinds[0]


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_nothing_else_changes(place: Path, run: Path) -> None:
    """kill -9 of one worker while it trains."""
    process = subprocess.Popen(
        [sys.executable, "-m", "coralx", "evolve", "tiny.yaml", "--name", "maimed"],
        cwd=place,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    maimed = place / "runs" / "maimed" / "ledger.jsonl"
    for line in process.stderr:
        if "S0_sanity: auroc" in line:
            break
    worker = next(event for event in Ledger(maimed) if isinstance(event, WorkerStarted))
    os.kill(worker.pid, signal.SIGKILL)
    output = process.stderr.read()
    assert process.wait() == 0, output
    assert "trying again on a new worker" in output
    assert decisions(maimed.parent) == decisions(run)


def test_a_taken_name_is_refused_and_no_name_gets_a_number(place: Path) -> None:
    output = coralx_here(place, "evolve", "tiny.yaml", "--name", "tiny", code=2)
    assert "--resume tiny" in output
    coralx_here(
        place, "evolve", "tiny.yaml", "--mode", "simulation", "--quiet",
        "--set", "data.steps_per_epoch=18",
    )  # fmt: skip
    assert (place / "runs" / "tiny-2" / "report.json").is_file()


def test_resuming_under_another_config_is_refused_by_name(place: Path) -> None:
    output = coralx_here(
        place, "evolve", "tiny.yaml", "--resume", "tiny", "--set", "training.batch_size=4", code=2
    )
    assert "training.batch_size" in output


def test_input_that_only_a_worker_can_judge_leaves_no_run_folder(place: Path) -> None:
    before = sorted(path.name for path in (place / "runs").iterdir())
    changed = ("--set", "model.max_length=500")
    output = coralx_with_forks(place, "evolve", "tiny.yaml", *changed, code=2)
    assert "model.max_length: 500 is more than the base reads (64 tokens)" in output
    assert sorted(path.name for path in (place / "runs").iterdir()) == before


def test_the_driver_loads_no_training_library(place: Path) -> None:
    script = (
        "import sys\n"
        "from coralx.cli import main\n"
        "for command in sys.argv[1:]:\n"
        "    sys.argv = ['coralx', *command.split()]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert not end.code, command\n"
        "    loaded = {'torch', 'peft', 'transformers', 'datasets', 'sklearn'} & set(sys.modules)\n"
        "    assert not loaded, (command, loaded)"
    )
    commands = ("--help", "report tiny", "validate tiny.yaml", "doctor", "evolve --help")
    subprocess.run(
        [sys.executable, "-c", script, *commands], cwd=place, check=True, capture_output=True
    )


def test_the_first_event_tells_what_the_run_ran_on(run: Path) -> None:
    first = next(iter(Ledger(run / "ledger.jsonl")))
    assert isinstance(first, RunStarted)
    assert first.versions["torch"].startswith("2.")
    assert first.hardware["cores"] >= 1
    assert first.settings.workers == 2
    assert dict(first.facts.rows) == {"train": 144, "validation": 48, "test": 48}
