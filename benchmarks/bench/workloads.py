"""What all contestants share: model, rows, space, batch size and steps, from one CoralX config."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from coralx.config import Config, load_config
from coralx.data.splits import Examples, load_examples
from coralx.rng import generator
from coralx.search.space import Continuous, Space, space_of

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAMES = ("tweets", "liar", "smollm2")

VERSIONS = ("torch", "transformers", "peft", "accelerate")

Genes = dict[str, Any]
"""A configuration: a value for each gene that is searched. Target modules are one text, the names
with a space between, as the searches of others want choices that are texts or numbers."""


@dataclass(frozen=True)
class Setting:
    """What a contestant's process is told. It is handed over as a file, `setting.json`."""

    workload: str
    seed: int
    data: str
    """The folder of the data sets that are no packages."""
    overrides: tuple[str, ...]
    """Settings of the config, KEY=VALUE, for all contestants alike."""
    precision: str
    cores: int
    trainings: int
    """How many configurations the naive contestant trains."""
    seconds: float
    """After which a search is ended."""
    folder: str
    """The contestant's own, for whatever it writes."""

    def save(self) -> Path:
        path = Path(self.folder) / "setting.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")
        return path

    @classmethod
    def read(cls, folder: Path | str) -> Setting:
        values = json.loads((Path(folder) / "setting.json").read_text(encoding="utf-8"))
        return cls(**{**values, "overrides": tuple(values["overrides"])})

    def config(self, *more: str) -> Config:
        """The workload's config; `more` settings are a contestant's own."""
        given = [f"experiment.seed={self.seed}", f"training.precision={self.precision}"]
        return load_config(HERE / f"{self.workload}.yaml", [*self.coralx_settings, *given, *more])

    @property
    def coralx_settings(self) -> list[str]:
        """Those that the config needs on this machine."""
        files = {"train": "train", "validation": "valid", "test": "test"}
        liar = Path(self.data).resolve() / "liar"
        where = [f"data.{key}={liar / name}.tsv" for key, name in files.items()]
        return [*(where if self.workload == "liar" else ()), *self.overrides]


class Workload:
    """The rows, the space and the length of a full training."""

    def __init__(self, setting: Setting) -> None:
        self.config = setting.config()
        (source,) = self.config.data.sources.values()
        self.source = source
        self.rows: Examples = load_examples(source, setting.seed, self.config.model.task)

    @property
    def batch_size(self) -> int:
        return self.config.training.batch_size

    @property
    def epochs(self) -> float:
        """Of a full training: what the last stage of CoralX's own schedule comes to."""
        last = self.config.hyperband_config.training_stages[-1]
        return float(last.epoch_budget * last.data_percentage / 100)

    @property
    def total_steps(self) -> int:
        return math.ceil(self.epochs * math.ceil(len(self.rows.train) / self.batch_size))

    @property
    def piece_steps(self) -> int:
        """Steps of the fixed piece of naive training by which seconds are divided."""
        return max(4, min(20, self.total_steps // 10))

    @cached_property
    def digest(self) -> str:
        """Changes with the rows of any split and their order."""
        rows = {
            name: [(row.text, row.label) for row in split]
            for name, split in self.rows.splits.items()
        }
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    @cached_property
    def space(self) -> Space:
        """CoralX's, which all contestants search, without what CoralX expects of it."""
        return space_of(self.config).without_priors()


# -- configurations --------------------------------------------------------------------------------


def drawn(space: Space, count: int, seed: int) -> list[Genes]:
    """Configurations drawn at random, each gene by itself, evenly on its scale. A longer list
    begins with the shorter one."""
    return [_draw(space, generator(seed, "bench", index=index)) for index in range(count)]


def _draw(space: Space, rng: np.random.Generator) -> Genes:
    return {name: written(gene.decode(rng.random())) for name, gene in space.genes.items()}


def written(value: Any) -> Any:
    """A gene's value as it stands in a configuration."""
    return " ".join(value) if isinstance(value, tuple) else value


def modules_of(genes: Genes) -> str | list[str]:
    """Target modules as PEFT and CoralX take them."""
    modules = str(genes["target_modules"])
    return modules if modules == "all-linear" else modules.split()


def is_of(space: Space, genes: Genes) -> bool:
    """Whether a configuration lies in the space."""
    modules = modules_of(genes)
    known = {"target_modules": tuple(modules) if isinstance(modules, list) else modules}
    return space.contains(space.build({**genes, **known}))


def ranges_and_choices(
    space: Space,
) -> tuple[Mapping[str, tuple[float, float, bool]], Mapping[str, Sequence[Any]]]:
    """The space as others write it: low, high and whether the scale is a log one; and choices."""
    ranges, choices = {}, {}
    for name, gene in space.genes.items():
        if isinstance(gene, Continuous):
            ranges[name] = (gene.low, gene.high, gene.log)
        else:
            choices[name] = [written(value) for value in getattr(gene, "values", ())]
    return ranges, choices


DEFAULT: Genes = {
    "rank": 16,
    "alpha_ratio": 1.0,
    "dropout": 0.0,
    "learning_rate": 2e-4,
    "target_modules": "all-linear",
}
"""The common default, on which the fixed piece is trained."""


# -- the machine -----------------------------------------------------------------------------------


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_info() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def precision() -> str:
    """bf16 where the processor has AVX-512, else fp32: without, bf16 is many times slower."""
    return "bf16" if "avx512f" in _cpu_info() else "fp32"


def machine(setting: Setting) -> dict[str, Any]:
    """What figures depend on."""
    named = [line for line in _cpu_info().splitlines() if line.startswith("model name")]
    return {
        "processor": named[0].split(": ")[1] if named else platform.machine(),
        "cores": setting.cores,
        "precision": setting.precision,
        "python": platform.python_version(),
        **{name: version(name) for name in VERSIONS},
    }
