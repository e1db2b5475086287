"""What a preset of the schedule stands for, in words."""

from __future__ import annotations

from coralx.config import Config
from coralx.config.exact_numbers import written
from coralx.config.hyperband import TrainingStage


def preset_lines(config: Config) -> list[str]:
    """One line where the config names a preset: its stages as they would be written out."""
    schedule = config.hyperband_config
    if schedule.preset is None:
        return []
    *rungs, last = schedule.training_stages
    parts = [*map(_rung, rungs), f"{last.name} trains to {_end(last)}"]
    return [f"preset {schedule.preset}: {'; '.join(parts)}"]


def _rung(stage: TrainingStage) -> str:
    by = f" by {stage.promote_by}" if stage.promote_by else ""
    rate = stage.survival_rate
    share = "all" if rate == 1 else f"{rate} of the genomes"
    return (
        f"{stage.name} trains to {_end(stage)}, scores {stage.eval_limit} rows, {share} go on{by}"
    )


def _end(stage: TrainingStage) -> str:
    epochs = f"{written(stage.epoch_budget)} epoch{'' if stage.epoch_budget == 1 else 's'}"
    of = (
        f" of {written(stage.data_percentage)} % of the data" if stage.data_percentage < 100 else ""
    )
    return f"{epochs}{of}"
