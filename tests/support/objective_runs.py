"""Searches of one generation over some objectives, in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from coralx.api import runs as api
from coralx.config import load_config
from coralx.config.mode import resolve_mode

ONE_STAGE = {
    "training_stages": [
        {"name": "S0", "epoch_budget": 1, "data_percentage": 40, "survival_rate": 1.0},
        {"name": "S1", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 1.0},
    ]
}


def quick(config: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """The config as one generation of two, trained in this process."""
    config["evolution"] = {"population_size": 2, "generations": 1}
    config["hyperband_config"] = ONE_STAGE
    config["hyperband_config"]["training_stages"] = [
        {**stage, "stop_when": []} for stage in ONE_STAGE["training_stages"]
    ]
    config["runtime"] = {"executor": "in-process", "save_predictions": True}
    return {**config, **sections}


def search(config: dict[str, Any]) -> api.Outcome:
    """In the working folder."""
    path = Path("own.yaml")
    path.write_text(yaml.safe_dump(config))
    return api.evolve(resolve_mode(load_config(path), None, None))


def objectives(*names: str) -> list[dict[str, str]]:
    return [{"metric": name} for name in names]


def prompts(folder: Path, count: int = 9) -> str:
    """A file of harmful requests."""
    rows = [{"goal": f"Question : the film number {'very ' * n}bad"} for n in range(count)]
    path = folder / "harmful.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)
