"""What is measured outside the contestants' clocks.

python scorer.py piece FOLDER     times the fixed piece of naive training, into piece.json
python scorer.py score FOLDER     scores the adapters listed in adapters.json, into scores.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from trainer_objective import Objective
from workloads import Setting


def main(what: str, folder: Path) -> None:
    """Write the file."""
    setting = Setting.read(folder)
    objective = Objective(setting, threads=setting.cores)
    if what == "piece":
        (folder / "piece.json").write_text(json.dumps(objective.piece()), encoding="utf-8")
        return
    scores = {}
    for adapter in json.loads((folder / "adapters.json").read_text(encoding="utf-8")):
        model = objective.saved(adapter)
        splits = ("validation", "test")
        scores[adapter] = {split: objective.score(model, split) for split in splits}
    (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
