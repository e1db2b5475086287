"""What contestants tell while they run: one JSON line for each evaluation of a configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "observations.jsonl"


@dataclass(frozen=True)
class Observation:
    """A configuration was evaluated on the validation split."""

    time: float
    """Seconds since the epoch."""
    configuration: str
    """Its name among the contestant's."""
    genes: dict[str, Any]
    step: int
    """Optimizer steps that the configuration has had."""
    validation: float | None
    """AUROC as the contestant computed it; None: undefined."""
    parameters: float
    is_finished: bool
    """Whether it has been trained to the end, or derived from such."""
    adapter: str | None = None
    """Of what is finished: the folder with the adapter."""
    steps: int = 0
    """Trained since the configuration's last observation, as are the following."""
    tokens: int = 0
    """Without padding."""
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    """Of the process that did it."""
    remark: str = ""


def append(folder: Path | str, observation: Observation) -> None:
    """Add a line. Several processes may do so: each line is written at once."""
    with (Path(folder) / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(observation)) + "\n")


def read(folder: Path | str) -> list[Observation]:
    """Those of a contestant, the earliest first; a line that was cut off is left out."""
    path = Path(folder) / FILE
    if not path.is_file():
        return []
    complete = path.read_text(encoding="utf-8").split("\n")[:-1]
    return sorted((Observation(**json.loads(line)) for line in complete), key=lambda o: o.time)


# -- naive training --------------------------------------------------------------------------------


def naive_rows(path: Path) -> list[dict[str, Any]]:
    """The trainings that a file holds; a line that was cut off is left out."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def missing_from(rows: Sequence[Mapping[str, Any]], trainings: int) -> list[int]:
    """The numbers of the trainings that there are no rows of."""
    done = {row["index"] for row in rows}
    return [index for index in range(trainings) if index not in done]


# -- runs ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """What a finished adapter is worth, scored by plain transformers in float32."""

    validation: float | None
    test: float | None


@dataclass
class Run:
    """A contestant's run, as `benchmarks/results` keeps it."""

    contestant: str
    workload: str
    seed: int
    rows: str
    """The digest of the rows."""
    machine: dict[str, Any]
    date: str
    began: float
    seconds: float
    """From the start of the process to its end, or to where it was ended."""
    limit: float | None
    """Seconds that it was given; None: as long as it takes."""
    processes: int
    """That trained at the same time."""
    cpu_seconds: float
    """Of it and all processes that it started."""
    others_seconds: float
    """CPU seconds of all other processes meanwhile, and what the hypervisor took."""
    pieces: list[dict[str, float]]
    """Seconds and CPU seconds of the fixed piece, just before and just after."""
    observations: list[Observation] = field(default_factory=list)
    scores: dict[str, Score] = field(default_factory=dict)
    """By adapter."""

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=None)
        path.write_text(text.replace('{"time"', '\n{"time"') + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Run:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["observations"] = [Observation(**entry) for entry in values["observations"]]
        values["scores"] = {name: Score(**score) for name, score in values["scores"].items()}
        return cls(**values)
