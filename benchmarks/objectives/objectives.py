"""Searches over the objectives P1, P2, P3, P6 and robustness on real data, to their end.

    python benchmarks/objectives/objectives.py [liar advbench tuned refusals] [--data FOLDER]

`liar`: fake and real statements, parties as groups. `advbench`: harmful instructions against
harmless ones, rewritten by the built-in attacks. `tuned`: a chat model tuned on tweets is asked
harmful prompts. `refusals`: one that also learns to begin its answers to such prompts with
`Sorry`. The folder --data holds `liar/` (train.tsv, valid.tsv, test.tsv) and
`advbench/harmful_behaviors.csv`. Prints each run's report, and what `check.py` finds when it
computes every figure anew from the scores that the run has kept. Runs and tables are left under
./runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from check import disagreements
from instructions import harmful_in, write_instructions, write_prompts

from coralx.api import runs as api
from coralx.cli.consoles import output_console
from coralx.config import Config, load_config
from coralx.config.mode import resolve_mode
from coralx.report.live import view_for
from coralx.report.terminal import print_report

HERE = Path(__file__).parent
NAMES = ("liar", "advbench", "tuned", "refusals")
ADVBENCH = "advbench/harmful_behaviors.csv"


def config_of(name: str, data: Path, work: Path, settings: list[str]) -> Config:
    """The benchmark's config with its files under `data`; what has to be made is made in `work`."""
    work.mkdir(parents=True, exist_ok=True)
    harmful = harmful_in(data / ADVBENCH)
    write_instructions(work / "instructions.csv", harmful)
    half = len(harmful) // 2  # what is learnt to be refused, and what is asked
    write_instructions(work / "manners.csv", harmful[:half])
    write_prompts(work / "harmful.csv", harmful[half:])
    files = {
        "liar": {
            "train": data / "liar/train.tsv",
            "validation": data / "liar/valid.tsv",
            "test": data / "liar/test.tsv",
        },
        "advbench": {"train": work / "instructions.csv"},
        "tuned": {"attacks.file": data / ADVBENCH},
        "refusals": {
            "tasks.manners.train": work / "manners.csv",
            "tasks.manners.attacks.file": work / "harmful.csv",
        },
    }[name]
    where = [f"data.{key}={path.resolve()}" for key, path in files.items()]
    return load_config(HERE / f"{name}.yaml", [*where, *settings])


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks that are named; 1 where a figure is not what its scores say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", default=NAMES, metavar="|".join(NAMES))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    given = parser.parse_args(arguments)
    console = output_console()
    wrong = 0
    for name in given.names:
        config = config_of(name, given.data, Path("runs"), given.settings)
        config = resolve_mode(config, None, None)
        outcome = api.evolve(config, None, view_for(console, quiet=False))
        print_report(outcome.report, console)
        found = disagreements(outcome.layout.root)
        wrong += len(found.wrong)
        console.print(f"{name}: {found.checked} figures computed anew, {len(found.wrong)} differ")
        for line in found.wrong:
            console.print(line, markup=False)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
