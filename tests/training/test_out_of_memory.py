"""Out of memory for real: under a limit that the kernel keeps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import SUPPORT

pytest.importorskip("torch")

LIMITED = SUPPORT / "memory_limit.py"
ROWS = 512


def trained(tiny_config: dict[str, Any], folder: Path, spare: int) -> dict[str, Any]:
    table = folder / "rows.csv"
    text = " ".join(["good bad the film was not very fine"] * 8)
    table.write_text("text,label\n" + f"{text},good\n{text},bad\n" * ROWS)
    tiny_config["model"]["max_length"] = 64
    tiny_config["data"] = {"train": str(table), "labels": ["bad", "good"]}
    tiny_config["training"] = {"batch_size": ROWS, "precision": "fp32"}
    path = folder / "config.json"
    path.write_text(json.dumps(tiny_config))
    done = subprocess.run(
        [sys.executable, str(LIMITED), str(path), str(folder), str(spare)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_batch_that_does_not_fit_is_trained_in_parts(
    tiny_config: dict[str, Any], tmp_path: Path
) -> None:
    found = trained(tiny_config, tmp_path, 120)
    assert found["plenty"]["micro_batch"] is None
    assert 1 < found["little"]["micro_batch"] < ROWS
    assert found["little"]["loss"] == pytest.approx(found["plenty"]["loss"], rel=0.2)
