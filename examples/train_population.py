"""Train four LoRA configurations of your own through stages of growing budget.

    python examples/train_population.py configs/quickstart.yaml

Only the promising go on from stage to stage; the report says how much cheaper that was than
training all four to the end.
"""

from __future__ import annotations

import sys

from coralx import Genome, HyperbandTrainer, LoRAConfig, TrainingStage

STAGES = [
    TrainingStage("S0_sanity", epoch_budget=1.0, data_percentage=5, survival_rate=1.0),
    TrainingStage("S1_shakeout", epoch_budget=1.0, data_percentage=20, survival_rate=0.75),
    TrainingStage("S2_finisher", epoch_budget=1.0, data_percentage=100, survival_rate=1.0),
]

POPULATION = [
    Genome(
        "small", LoRAConfig(r=2, alpha=4, target_modules=["query", "value"], learning_rate=2e-3)
    ),
    Genome("wide", LoRAConfig(r=8, alpha=16, dropout=0.1, learning_rate=1e-3)),
    Genome("large", LoRAConfig(r=32, alpha=32, learning_rate=5e-4)),
    Genome("default", LoRAConfig()),
]


def main() -> None:
    """Train, print every result and what it cost."""
    trainer = HyperbandTrainer(sys.argv[1], stages=STAGES)
    results = trainer.train_population(POPULATION)
    for result in results:
        auroc = result.metrics.get("auroc")  # a stage of fewer than eight steps is not scored
        shown = "not scored" if auroc is None else f"AUROC {auroc:.3f}"
        print(f"{result.stage:12} {result.genome_id:8} {shown} in {result.training_time:.1f} s")
    report = trainer.get_training_efficiency_report(results)
    print(f"{report['efficiency_ratio']:.2f} times cheaper than training all of them to the end")
    print(f"adapters: {trainer.run_folder}/best")


if __name__ == "__main__":
    main()
