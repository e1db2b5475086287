"""How long the driver takes for a search in which training costs nothing.

    python benchmarks/driver/driver.py [--populations 100 300 1000] [--generations 5 10 20]
                                       [--objectives 2|3] [--selection nsga2|nsga3]

Runs `coralx evolve --mode simulation` on the quickstart's config, each in a process and a folder of
its own (under TMPDIR), ledger and simulated checkpoints written as ever. Prints seconds of the
processor and of the clock, memory beyond that of the smallest search, and by which power of the
number of genomes the processor's seconds grow: least squares over the logarithms, 1.0 is linear.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"

THIRD = (
    'objectives=[{"metric": "auroc"}, {"metric": "trainable_parameters"}, '
    '{"metric": "calibration"}]'
)

RUN = """
import json, resource, sys, time
from coralx.cli import main
began = time.monotonic()
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime, time.monotonic() - began
    print(json.dumps([*seconds, used.ru_maxrss]))
"""


@dataclass(frozen=True)
class Cost:
    """What one search took."""

    population: int
    generations: int
    processor: float
    """Seconds."""
    clock: float
    """Seconds."""
    memory: float
    """The most that it held, in KB."""

    @property
    def genomes(self) -> int:
        return self.population * self.generations


def search(population: int, generations: int, settings: Sequence[str]) -> Cost:
    """One search. Raises CalledProcessError where it fails."""
    given = [
        f"evolution.population_size={population}",
        f"evolution.generations={generations}",
        *settings,
    ]
    options = [word for setting in given for word in ("--set", setting)]
    command = [sys.executable, "-c", RUN, "evolve", str(QUICKSTART), "--mode", "simulation"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, "--quiet", *options], cwd=folder, check=True, capture_output=True, text=True
        )
    processor, clock, memory = json.loads(done.stdout.splitlines()[-1])
    return Cost(population, generations, processor, clock, memory)


def exponent(costs: Sequence[Cost], at_rest: Cost) -> float:
    """The power of the number of genomes by which the processor's seconds grow, beyond those of a
    search that is next to none."""
    sizes = np.log([cost.genomes for cost in costs])
    seconds = np.log([max(cost.processor - at_rest.processor, 1e-3) for cost in costs])
    return float(np.polyfit(sizes, seconds, 1)[0])


def main() -> None:
    """Print a line for each size, then the powers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--populations", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--generations", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--objectives", type=int, choices=(2, 3), default=2)
    parser.add_argument("--selection", choices=("nsga2", "nsga3"), default="nsga2")
    asked = parser.parse_args()
    settings = [f"evolution.selection={asked.selection}"]
    settings += [THIRD] if asked.objectives == 3 else []
    at_rest = search(2, 1, settings)
    print("genomes x generations   processor s   clock s   KB a genome", flush=True)
    costs = []
    for population in asked.populations:
        for generations in asked.generations:
            cost = search(population, generations, settings)
            costs.append(cost)
            kilobytes = (cost.memory - at_rest.memory) / cost.genomes
            print(
                f"{population:7} x {generations:<11} {cost.processor:13.1f} {cost.clock:9.1f} "
                f"{kilobytes:13.1f}",
                flush=True,
            )
    if len(costs) > 1:
        print(f"grows as genomes to the power of {exponent(costs, at_rest):.2f}")


if __name__ == "__main__":
    main()
