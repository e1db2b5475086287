"""How noisy figures on few rows are: what `coralx/schedule/tuning_curves.py` takes for granted.

    python benchmarks/fidelity/noise.py

Prints Markdown, from `curves.csv`'s trainings scored on samples of the rows (`samples.csv`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from analyse import read_samples, table

from coralx.schedule.tuning_curves import area_deviation

HERE = Path(__file__).parent


def main() -> None:
    """Print the table."""
    samples = read_samples(HERE / "samples.csv", "validation")
    whole = max(rows for _, _, rows, _ in samples)
    lines = []
    for task, point, rows in sorted({key[:3] for key in samples if key[2] < whole}):
        cells = []
        for name in ("auroc", "eval_loss"):
            full = samples[task, point, whole, 0][name]
            configs = sorted(full)
            drawn = [
                found[name] for key, found in samples.items() if key[:3] == (task, point, rows)
            ]
            truth = np.array([full[config] for config in configs])
            off = np.array([[one[config] for config in configs] for one in drawn]) - truth
            unseen = 1 - rows / whole  # a sample of the rows is compared with all of them
            own = off - off.mean(axis=1, keepdims=True)
            spread = np.sqrt((own**2).sum() / (own.shape[0] * (own.shape[1] - 1)))
            if name == "auroc":
                formula = np.sqrt((area_deviation(truth) ** 2).mean() / rows * unseen)
                cells += [f"{np.sqrt((off**2).mean()):.3f}", f"{formula:.3f}"]
                cells += [f"{1 - (spread / formula) ** 2:.2f}"]
            else:
                row = np.sqrt((off**2).mean(axis=0) * rows / unseen) / truth
                cells += [f"{np.median(row):.2f} ({row.min():.2f} to {row.max():.2f})"]
        lines.append([task, f"{point:g} %", str(rows), *cells])
    header = ["task", "point", "rows", "AUROC off by", "by formula", "shared", "row's loss / mean"]
    print(table(header, lines))


if __name__ == "__main__":
    main()
