"""The Python interface for those who bring their own genomes: `HyperbandTrainer` and friends.

The same engine as `coralx evolve` trains them, through the same stages, into the same kind of run
folder. See `examples/train_population.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from coralx.api import runs as api
from coralx.config import Config, load_config, parse_config
from coralx.config.exact_numbers import written
from coralx.config.gene_forms import (
    FloatChoices,
    FloatRange,
    IntChoices,
    IntRange,
    ModuleChoices,
)
from coralx.config.load import anchor_paths
from coralx.config.mode import resolve_mode
from coralx.config.problems import problems_of
from coralx.config.search_space import SearchSpace, SeedGenome
from coralx.errors import UsageError
from coralx.records import genomes as searched
from coralx.records.events import StageCompleted
from coralx.records.results import StageResult
from coralx.report.live import View
from coralx.schedule.stages import schedule_of
from coralx.search.space import space_of
from coralx.storage.ledger import Ledger


@dataclass(frozen=True)
class TrainingStage:
    """One rung: `epoch_budget` passes over the first `data_percentage` of the data, as the
    genome's total; the share `survival_rate` (0 to 1) of those that enter goes on. Each is an exact
    number: a decimal, or a fraction as `Fraction(1, 3)` or "1/3"."""

    name: str
    epoch_budget: float | str | Fraction
    data_percentage: float | str | Fraction
    survival_rate: float | str | Fraction


@dataclass(frozen=True)
class LoRAConfig:
    """One LoRA configuration in PEFT's terms; alpha is absolute.

    Without a `learning_rate` it gets the default recipe's (2e-4).
    """

    r: int = 16
    alpha: float = 16
    dropout: float = 0.0
    target_modules: Sequence[str] | str = "all-linear"
    learning_rate: float | None = None


@dataclass
class Genome:
    """A configuration with an identity. `train_population` sets `fitness` to the last figure on
    the first objective (None if it has none)."""

    id: str
    lora_cfg: LoRAConfig = field(default_factory=LoRAConfig)
    parent_id: str | None = None
    fitness: float | None = None


@dataclass(frozen=True)
class TrainingResult:
    """What one genome reached in one stage."""

    genome_id: str
    stage: str
    metrics: Mapping[str, float | None]
    """Without figures of validation where the stage is too short to be scored."""
    training_time: float
    """Seconds, evaluation included."""
    checkpoint_path: Path | None
    """None where training met numbers that are not finite, or where the checkpoint was dropped
    since (`runtime.keep_checkpoints: all` keeps every one)."""


class HyperbandTrainer:
    """Trains given genomes through the stages of a config.

    `config` is the path of a YAML file, a mapping of the same shape, or a loaded `Config`. `stages`
    replaces its `training_stages`. Raises ConfigError with every problem.
    """

    def __init__(
        self,
        config: Config | Mapping[str, Any] | str | Path,
        stages: Sequence[TrainingStage] | None = None,
        view: View | None = None,
    ) -> None:
        loaded = _loaded(config)
        if stages is not None:
            values = loaded.model_dump(mode="json")
            values["hyperband_config"]["training_stages"] = [vars(stage) for stage in stages]
            parsed = anchor_paths(parse_config(values, "stages"), Path.cwd())
            folder = {"functions_from": loaded.runtime.functions_from}  # that of the config given
            loaded = parsed.model_copy(update={"runtime": parsed.runtime.model_copy(update=folder)})
        self.config = resolve_mode(loaded, None, None)
        self.run_folder: Path | None = None
        self._view = view
        self._report: dict[str, Any] = {}
        self._results: list[TrainingResult] = []

    @property
    def stages(self) -> tuple[TrainingStage, ...]:
        """The stages that genomes go through; what is no decimal stands as text, such as "1/3"."""
        return tuple(
            TrainingStage(
                stage.name,
                written(stage.epoch_budget),
                written(100 * stage.data_fraction),
                written(stage.survival_rate),
            )
            for stage in schedule_of(self.config.hyperband_config)
        )

    def train_population(self, genomes: Sequence[Genome]) -> list[TrainingResult]:
        """Train `genomes` in a new run; all results, stage by stage, by id within a stage. Adapters
        derived from them (`evolution.derive`) are in the run's report and its `best/` alone.

        Ids are kept, and need not follow any form but that of a file name; genomes need not lie in
        the config's search space. Another seed gives an id other first weights and other dropout.
        Raises UsageError for an id that is used twice or is no name, and what `coralx evolve`
        raises.
        """
        given = [self._record(genome) for genome in genomes]
        _check_ids([genome.id for genome in given])
        evolution = self.config.evolution.model_copy(
            update={"generations": 1, "population_size": max(2, len(given)), "seed_genomes": ()}
        )
        space = _space_of(self.config.search_space, [genome.genes for genome in given])
        config = self.config.model_copy(update={"evolution": evolution, "search_space": space})
        outcome = api.train_population(config, given, self._view)
        self.run_folder, self._report = outcome.layout.root, outcome.report
        results = [
            event.result
            for event in Ledger.read_events(outcome.layout.ledger)
            if isinstance(event, StageCompleted)
        ]
        self._set_fitness(genomes, results)
        places = {stage.name: place for place, stage in enumerate(self.stages)}
        results.sort(key=lambda result: (places[result.stage], result.genome))
        self._results = [
            TrainingResult(
                genome_id=result.genome,
                stage=result.stage,
                metrics=result.metrics,
                training_time=result.seconds,
                checkpoint_path=_existing(result.checkpoint),
            )
            for result in results
        ]
        return list(self._results)

    def get_training_efficiency_report(
        self, results: Sequence[TrainingResult] | None = None
    ) -> dict[str, Any]:
        """`report.json`'s `efficiency` for the population trained last.

        `efficiency_ratio` says how many times cheaper in time it was than training every genome to
        the end. Raises UsageError before anything was trained, or for results of another run.
        """
        if not self._report:
            raise UsageError("nothing has been trained yet", "Call train_population first.")
        if results is not None and list(results) != self._results:
            raise UsageError(
                "these are not the results of the population that was trained last",
                "Pass the list that train_population returned.",
            )
        efficiency: dict[str, Any] = self._report["efficiency"]
        return efficiency

    def _record(self, genome: Genome) -> searched.Genome:
        cfg, common = genome.lora_cfg, space_of(self.config).common
        modules: searched.TargetModules = searched.ALL_LINEAR
        if not isinstance(cfg.target_modules, str):
            modules = tuple(sorted(set(cfg.target_modules)))
        elif cfg.target_modules != searched.ALL_LINEAR:
            modules = (cfg.target_modules,)
        _check_values(genome)
        genes = searched.Genes(
            rank=cfg.r,
            alpha_ratio=cfg.alpha / cfg.r,
            dropout=cfg.dropout,
            learning_rate=common.learning_rate if cfg.learning_rate is None else cfg.learning_rate,
            target_modules=modules,
            weight_decay=common.weight_decay,
            warmup_ratio=common.warmup_ratio,
            batch_size=common.batch_size,
        )
        parents = (genome.parent_id,) if genome.parent_id else ()
        return searched.Genome(genome.id, 0, genes, parents)

    def _set_fitness(self, genomes: Sequence[Genome], results: Sequence[StageResult]) -> None:
        metric = self.config.objectives[0].metric
        last = {result.genome: result.metrics.get(metric) for result in results}
        for genome in genomes:
            genome.fitness = last.get(genome.id)


def _space_of(space: SearchSpace, genes: Sequence[searched.Genes]) -> SearchSpace:
    """The space from the least to the most that these genes have of what decides whether a base can
    be trained so, which is tried before the run."""
    ranks, dropouts = [g.rank for g in genes], [g.dropout for g in genes]
    rank: IntRange | IntChoices = IntChoices(choices=(ranks[0],))
    if len(set(ranks)) > 1:
        rank = IntRange(low=min(ranks), high=max(ranks))
    dropout: FloatRange | FloatChoices = FloatChoices(choices=(dropouts[0],))
    if len(set(dropouts)) > 1:
        dropout = FloatRange(low=min(dropouts), high=max(dropouts))
    modules = ModuleChoices(choices=tuple(dict.fromkeys(g.target_modules for g in genes)))
    return space.model_copy(
        update={
            "target_modules": modules,
            "rank": rank,
            "dropout": dropout,
            "use_dora": None,
            "use_rslora": None,
            "layers": None,
        }
    )


def _loaded(config: Config | Mapping[str, Any] | str | Path) -> Config:
    if isinstance(config, Config):
        return config
    if isinstance(config, str | Path):
        return load_config(Path(config))
    return anchor_paths(parse_config(dict(config), "config"), Path.cwd())


def _check_values(genome: Genome) -> None:
    """Raise UsageError for values that no LoRA can have."""
    cfg = genome.lora_cfg
    given = {
        "rank": cfg.r,
        "alpha": cfg.alpha,
        "dropout": cfg.dropout,
        "learning_rate": cfg.learning_rate,
        "target_modules": [] if isinstance(cfg.target_modules, str) else list(cfg.target_modules),
    }
    if isinstance(cfg.target_modules, str):
        del given["target_modules"]
    try:
        SeedGenome.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(problems_of(error, SeedGenome))
        raise UsageError(f"genome {genome.id!r}: {problems}") from None


def _check_ids(ids: Sequence[str]) -> None:
    if not ids:
        raise UsageError("the population is empty", "Give at least one genome.")
    for name in ids:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise UsageError(
                f"genome id {name!r} cannot name a folder",
                "Use letters, digits, dots, dashes and underscores, 100 at most.",
            )
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise UsageError(f"two genomes share the id {twice[0]!r}")


def _existing(checkpoint: str | None) -> Path | None:
    path = Path(checkpoint) if checkpoint else None
    return path if path is not None and path.is_dir() else None
