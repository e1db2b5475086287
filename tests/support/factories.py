"""Small makers of the records that tests are about; every figure has a harmless default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coralx.config import Config, parse_config
from coralx.records.genomes import Genes, Genome
from coralx.records.results import Divergence, Metrics, StageResult, Trend
from coralx.records.run_facts import Facts
from coralx.schedule.stages import Stage, stages_of
from coralx.search.space import Space, space_of

PUBLISHED = """\
hyperband_config:
  enable_hyperband: true
  training_stages:
    - name: "S0_sanity"
      epoch_budget: 0.05
      data_percentage: 5
      survival_rate: 1.0
    - name: "S1_shakeout"
      epoch_budget: 0.3
      data_percentage: 20
      survival_rate: 0.5
    - name: "S2_serious"
      epoch_budget: 1.0
      data_percentage: 100
      survival_rate: 0.25
    - name: "S3_finisher"
      epoch_budget: 2.0
      data_percentage: 100
      survival_rate: 0.1
"""
STAGE_NAMES = ("S0_sanity", "S1_shakeout", "S2_serious", "S3_finisher")


def make_config(**sections: Any) -> Config:
    return parse_config(sections, "test.yaml")


def simulated_config(**sections: Any) -> Config:
    """A small search on simulated curves, without priors; whole sections may be replaced."""
    defaults: dict[str, Any] = {
        "experiment": {"name": "sim", "seed": 7},
        "data": {"steps_per_epoch": 1000},
        "search_space": {"learning_rate": {"low": 1e-4, "high": 5e-3, "log": True}},
        "evolution": {"population_size": 6, "generations": 3},
        "runtime": {"backend": "simulated"},
    }
    return make_config(**{**defaults, **sections})


def make_stages(*rows: tuple[float, float, float]) -> tuple[Stage, ...]:
    """Stages from (epoch_budget, data_percentage, survival_rate), named S0, S1, ..."""
    keys = ("epoch_budget", "data_percentage", "survival_rate")
    listed = [
        {"name": f"S{place}", "stop_when": [], **dict(zip(keys, row, strict=True))}
        for place, row in enumerate(rows)
    ]
    config = make_config(hyperband_config={"training_stages": listed})
    return stages_of(config.hyperband_config.training_stages)


def make_space(training: Mapping[str, Any] | None = None, **search_space: Any) -> Space:
    return space_of(make_config(search_space=search_space, training=dict(training or {})))


def tiny_space(ranks: int) -> Space:
    """A space of `ranks` configurations."""
    return make_space(
        rank={"choices": list(range(1, ranks + 1))},
        alpha_ratio={"choices": [1.0]},
        dropout={"choices": [0.0]},
        learning_rate={"choices": [0.001]},
    )


def make_genome(id_: str, genes: Genes | None = None, generation: int = 0) -> Genome:
    return Genome(id_, generation, genes or Genes())


def make_result(
    genome: str = "a",
    metrics: Metrics | None = None,
    *,
    stage: str = "S0",
    last_step: int = 50,
    judged_steps: int = 50,
    loss_trend: Trend | None = None,
    divergence: Divergence | None = None,
    checkpoint: str | None = None,
) -> StageResult:
    return StageResult(
        genome=genome,
        stage=stage,
        first_step=0,
        last_step=last_step,
        metrics=metrics or {},
        judged_steps=judged_steps,
        loss_trend=loss_trend,
        train_seconds=1.5,
        eval_seconds=0.5,
        overhead_seconds=0.25,
        inherited_steps=0,
        checkpoint=checkpoint,
        divergence=divergence,
    )


def make_facts(rows: int = 800) -> Facts:
    return Facts(
        backend="simulated",
        backend_reason="a test",
        device="none",
        device_count=0,
        precision="none",
        precision_reason="nothing is trained",
        base_parameters=0,
        rows={"train": rows, "validation": 0, "test": 0},
    )


def plain_log_probabilities(model: Any, before: Sequence[int], after: Sequence[int]) -> Any:
    """Log-probability of each token of `after`, given what stands before it: transformers alone,
    one row, no padding; a float64 tensor with gradient."""
    import torch

    logits = model(input_ids=torch.tensor([[*before, *after]])).logits[0].double()
    logs = torch.log_softmax(logits, dim=-1)[len(before) - 1 : -1]
    return logs.gather(1, torch.tensor(list(after))[:, None])[:, 0]
