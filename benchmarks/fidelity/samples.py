"""Score the recorded predictions again on samples of the rows: writes `samples.csv`.

    python benchmarks/fidelity/samples.py [--scratch FOLDER]

Validation, at the stages' ends: the first rows of a stratified order, as a stage's `eval_limit`
takes them, for several orders; all configurations of a task see the same rows. Test, at the end:
the two halves of the split, for several orders, which tell how much of the full result is chance.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from coralx.data.order import stratified_order
from coralx.metrics.classification import auroc, eval_loss
from coralx.rng import generator

HERE = Path(__file__).parent
COLUMNS = ("task", "config", "split", "point", "rows", "draw", "auroc", "eval_loss")
SIZES = (64, 128, 256, 512)
POINTS = (5, 20)
DRAWS = 10
SEED = 42


def samples_of(scores: Any) -> Iterator[tuple[Any, ...]]:
    """(split, point, rows, draw, AUROC, loss) of one training's recorded scores."""
    labels = scores["labels"]
    for point in POINTS:
        found = scores[f"raw-{point}"].astype(np.float64)
        found /= found.sum(axis=1, keepdims=True)  # the record is in single precision
        for draw in range(DRAWS):
            order = stratified_order(labels.tolist(), generator(SEED, "fidelity-rows", draw))
            for size in SIZES:
                rows = order[:size]
                figures = auroc(found[rows], labels[rows]), eval_loss(found[rows], labels[rows])
                yield "validation", point, size, draw, *figures
        yield "validation", point, len(labels), 0, auroc(found, labels), eval_loss(found, labels)
    found, labels = scores["test"], scores["test_labels"]
    half = len(labels) // 2
    for draw in range(DRAWS):
        order = stratified_order(labels.tolist(), generator(SEED, "fidelity-halves", draw))
        for side, rows in enumerate((order[:half], order[half:])):
            figures = auroc(found[rows], labels[rows]), eval_loss(found[rows], labels[rows])
            yield "test", 100, half, 2 * draw + side, *figures


def main() -> None:
    """Write the table of every training in the scratch folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, default=Path("fidelity-scratch"))
    paths = sorted(parser.parse_args().scratch.glob("*.npz"))
    with (HERE / "samples.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for path in paths:
            task, number = path.stem.rsplit("-", 1)
            for *place, skill, loss in samples_of(np.load(path)):
                writer.writerow([task, int(number), *place, f"{skill:.5f}", f"{loss:.5f}"])


if __name__ == "__main__":
    main()
