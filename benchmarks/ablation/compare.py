"""Which settings of the ablation differ from the defaults of their time beyond chance.

    python benchmarks/ablation/compare.py [--steps 600]

Paired t-tests over the tasks and seeds of `results.csv` that a setting and `default` share, on
hypervolume, with Holm's correction for the number of settings (Holm 1979).
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from scipy.stats import ttest_rel

RESULTS = Path(__file__).parent / "results.csv"


def main() -> None:
    """Print one line a setting, the least probable under chance first."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=600, help="of the searches to compare")
    steps = parser.parse_args().steps
    found: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    with RESULTS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if int(row["budget"]) == steps:
                found[row["setting"]][row["task"], row["seed"]] = float(row["hypervolume"])
    default = found.pop("default")
    tests = []
    for setting, volumes in found.items():
        shared = sorted(default.keys() & volumes.keys())
        ours, theirs = [volumes[key] for key in shared], [default[key] for key in shared]
        differences = [our - their for our, their in zip(ours, theirs, strict=True)]
        better = sum(difference > 0 for difference in differences)
        p = float(ttest_rel(ours, theirs).pvalue)
        said = f"{setting}: {fmean(differences):+.3f} in hypervolume"
        tests.append((p, f"{said}, better in {better} of {len(shared)}, p = {p:.3f}"))
    corrected = 0.0
    for place, (p, said) in enumerate(sorted(tests)):
        corrected = max(corrected, min(1.0, (len(tests) - place) * p))
        print(f"{said}, by Holm {corrected:.3f}")


if __name__ == "__main__":
    main()
