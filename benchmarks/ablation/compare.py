"""Which settings of the ablation differ from the defaults beyond chance.

    python benchmarks/ablation/compare.py

Paired t-tests over the seeds of `results.csv`, on hypervolume, with Holm's correction for the
number of settings (Holm 1979).
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from scipy.stats import ttest_rel

RESULTS = Path(__file__).parent / "results.csv"


def main() -> None:
    """Print one line a setting, the least probable under chance first."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    with RESULTS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found[row["setting"]][row["seed"]] = float(row["hypervolume"])
    default = found.pop("default")
    seeds = sorted(default)
    tests = []
    for setting, volumes in found.items():
        pairs = [volumes[seed] for seed in seeds], [default[seed] for seed in seeds]
        difference = fmean(ours - theirs for ours, theirs in zip(*pairs, strict=True))
        tests.append((float(ttest_rel(*pairs).pvalue), difference, setting))
    corrected = 0.0
    for place, (p, difference, setting) in enumerate(sorted(tests)):
        corrected = max(corrected, min(1.0, (len(tests) - place) * p))
        print(f"{setting}: {difference:+.3f} in hypervolume, p = {p:.3f}, by Holm {corrected:.3f}")


if __name__ == "__main__":
    main()
