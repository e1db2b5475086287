"""The quickstart as shipped: a real encoder, real tweets, the README's promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from coralx.config import load_config
from tests.support.paths import ROOT, SUPPORT

QUICKSTART = ROOT / "configs" / "quickstart.yaml"

pytestmark = pytest.mark.slow


def test_the_quickstart_ends_in_adapters_far_above_the_untuned_model(tmp_path: Path) -> None:
    from coralx.data import builtin
    from coralx.data.splits import load_examples

    _, folder = builtin.find("minilm", builtin.MODELS, "model")
    if folder is None:
        pytest.skip("the quickstart extra is not installed")
    subprocess.run(
        [sys.executable, "-m", "coralx", "evolve", str(QUICKSTART), "--quiet"],
        cwd=tmp_path,
        check=True,
    )
    run = tmp_path / "runs" / "quickstart"
    report = json.loads((run / "report.json").read_text())
    best = report["front"][0]
    assert best["test"]["auroc"]["value"] > report["baselines"]["untuned"]["auroc"] + 0.25
    assert best["test"]["auroc"]["low"] > 0.8
    stages = report["efficiency"]["stage_breakdown"]
    assert stages["S3_finisher"]["genomes_trained"] >= 2 * 3
    assert report["efficiency"]["step_ratio"] > 1.3
    assert all(worker["base_loads"] == 1 for worker in report["workers"])

    config = load_config(run / "config.yaml")
    test = load_examples(config.data, config.experiment.seed, config.model.task).test
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([[example.text, example.label] for example in test]))
    adapters = [str(run / member["adapter"]) for member in report["front"]]
    done = subprocess.run(
        [
            sys.executable,
            str(SUPPORT / "plain_peft.py"),
            str(folder),
            str(rows),
            str(config.model.max_length),
            *adapters,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    stated = [member["test"]["auroc"]["value"] for member in report["front"]]
    assert [float(line) for line in done.stdout.split()] == pytest.approx(stated, abs=1e-3)
