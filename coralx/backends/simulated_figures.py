"""All figures that go with a simulated adapter's skill."""

from __future__ import annotations

import math
from collections.abc import Mapping

from coralx.backends.simulated_adapters import SimulatedAdapter, modules_of, parameters_of
from coralx.config.metric_catalogue import Direction, split_metric_name
from coralx.records.genomes import Genes


def figures_of(
    skill: float,
    genes: Genes,
    named: Mapping[str, Direction] | None = None,
    derived: SimulatedAdapter | None = None,
) -> dict[str, float | None]:
    """All figures that go with a skill (AUROC), by plausible relations.

    Of those `named`, which only a config can name, a single task's is that of all tasks, and the
    user's own metric is the skill, or where it is to be minimised 1 - skill.
    """
    accuracy = 0.5 + 0.85 * (skill - 0.5)
    modules = derived.modules if derived else modules_of(genes)
    parameters = derived.parameters if derived else parameters_of(genes)
    calibration = 0.02 + 0.1 * genes.learning_rate / 5e-3
    if derived is not None:
        calibration = max(calibration + derived.miscalibration, 0.0)
    metrics: dict[str, float | None] = {
        "auroc": skill,
        "task_skill": skill,
        "robustness": 0.5 + 0.8 * (skill - 0.5),
        "safety": 1.0 - 0.5 * skill + 0.1 * genes.dropout,
        "false_positive_cost": 1.8 * (1.0 - skill),
        "brier": 0.25 - 0.4 * (skill - 0.5),
        "memory": 1e6 + 4.0 * parameters,
        "latency_ms": 10.0 + 0.1 * modules,
        "accuracy": accuracy,
        "balanced_accuracy": accuracy,
        "f1": accuracy,
        "precision": accuracy,
        "recall": accuracy,
        "calibration": calibration,
        "calibration_scaled": 0.02,
        "eval_loss": 0.7 * (1.5 - skill),
        "perplexity": math.exp(0.7 * (1.5 - skill)),
        "train_loss": 0.65 * (1.5 - skill),
        "trainable_parameters": float(parameters),
        "adapter_bytes": float(4 * parameters),
    }
    for name, direction in (named or {}).items():
        own = skill if direction == "maximize" else 1.0 - skill
        metrics[name] = metrics.get(split_metric_name(name)[0], own)
    return metrics
