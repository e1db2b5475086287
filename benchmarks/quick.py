"""The quickstart's search against training every genome to the end, under the same conditions.

    python benchmarks/quick.py

Runs `configs/quickstart.yaml` as hyperband and with `--mode full`, one after the other, and prints
a table in Markdown. Takes about a quarter of an hour on two cores.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

COLUMNS = (
    "mode",
    "genomes",
    "steps",
    "worker seconds",
    "wall seconds",
    "best validation AUROC",
    "its test AUROC",
)
ROOT = Path(__file__).parents[1]


def run(mode: str, folder: Path) -> dict[str, Any]:
    """The report of one run of the quickstart."""
    command = [sys.executable, "-m", "coralx", "evolve", str(ROOT / "configs" / "quickstart.yaml")]
    print(f"running the quickstart in mode {mode} ...", file=sys.stderr, flush=True)
    flags = ["--mode", mode, "--name", mode, "--set", "training.precision=bf16", *sys.argv[1:]]
    subprocess.run([*command, *flags, "--quiet"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    report: dict[str, Any] = json.loads((folder / "runs" / mode / "report.json").read_text())
    return report


def row(report: dict[str, Any]) -> str:
    """One line of the table."""
    efficiency = report["efficiency"]
    best = max(report["front"], key=lambda member: member["validation"]["auroc"])
    test = best["test"]["auroc"]
    trained = sum(stage["trained_steps"] for stage in efficiency["stage_breakdown"].values())
    cells = [
        report["mode"],
        str(efficiency["total_genomes"]),
        f"{trained:,}",
        f"{efficiency['total_training_time']:,.0f}",
        f"{report['wall_seconds']:,.0f}",
        f"{best['validation']['auroc']:.3f}",
        f"{test['value']:.3f} ({test['low']:.3f} to {test['high']:.3f})",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run both, print the table."""
    with tempfile.TemporaryDirectory() as folder:
        hyperband, full = (run(mode, Path(folder)) for mode in ("hyperband", "full"))
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    print(f"{datetime.date.today()}, {machine}, torch {full['versions']['torch']}:\n")
    print(f"| {' | '.join(COLUMNS)} |")
    print("|" + " --- |" * len(COLUMNS))
    print(row(hyperband))
    print(row(full))
    full_seconds, seconds = (r["efficiency"]["total_training_time"] for r in (full, hyperband))
    estimate = hyperband["efficiency"]["efficiency_ratio"]
    print(f"\nMeasured saving in worker seconds: {full_seconds / seconds:.2f}x;", end=" ")
    print(f"estimated by the hyperband run itself: {estimate:.2f}x.")


if __name__ == "__main__":
    main()
