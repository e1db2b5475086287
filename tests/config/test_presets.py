"""Presets of the schedule."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from coralx.config.load import dump_yaml, load_config, parse_config
from coralx.errors import ConfigError
from coralx.report.presets import preset_lines
from tests.support.factories import PUBLISHED


def preset(name: str | None, **sections: Any) -> Any:
    return parse_config({"hyperband_config": {"preset": name}, **sections}, "c.yaml")


def test_seeds_is_the_published_schedule_and_the_default(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(PUBLISHED, encoding="utf-8")
    published = load_config(path).hyperband_config.training_stages
    assert preset("seeds").hyperband_config.training_stages == published
    assert preset(None).hyperband_config.training_stages == published
    assert parse_config({}, "c.yaml").hyperband_config.training_stages == published


@pytest.mark.parametrize(
    ("name", "rates"), [("careful", ["3/4", "1/2", "1"]), ("fast", ["3/8", "1/3", "1"])]
)
def test_the_others_cut_at_a_tenth_and_at_half_of_a_training(name: str, rates: list[str]) -> None:
    stages = preset(name).hyperband_config.training_stages
    whole = stages[-1].epoch_budget
    assert whole == 2
    assert [stage.epoch_budget / whole for stage in stages] == [
        Fraction(1, 10),
        Fraction(1, 2),
        1,
    ]
    assert [stage.survival_rate for stage in stages] == [Fraction(rate) for rate in rates]


def test_its_stages_rank_by_the_only_objective_of_quality() -> None:
    def ranked_by(**sections: Any) -> list[str | None]:
        stages = preset("fast", **sections).hyperband_config.training_stages
        return [stage.promote_by for stage in stages]

    assert ranked_by() == ["eval_loss", "auroc", None]
    assert ranked_by(model={"task": "sft"}) == ["eval_loss", "eval_loss", None]
    several = [{"metric": "accuracy"}, {"metric": "calibration"}]
    assert ranked_by(objectives=several) == [None, None, None]


def test_a_run_keeps_the_stages_and_not_the_name(tmp_path: Path) -> None:
    config = preset("fast")
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(config), encoding="utf-8")
    assert "preset" not in path.read_text(encoding="utf-8")
    again = load_config(path, resolved=True)
    assert again.hyperband_config.training_stages == config.hyperband_config.training_stages


def test_a_preset_together_with_stages_is_an_error_that_names_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(PUBLISHED, encoding="utf-8")
    wanted = "hyperband_config.preset=careful"
    with pytest.raises(ConfigError, match="`preset` and `training_stages` are both set"):
        load_config(path, [wanted])
    config = load_config(path, [wanted, "hyperband_config.training_stages=null"])
    assert config.hyperband_config == preset("careful").hyperband_config


def test_an_unknown_preset_is_refused_by_name() -> None:
    with pytest.raises(ConfigError) as caught:
        preset("quick")
    assert caught.value.problems == (
        "hyperband_config.preset: must be 'seeds', 'careful' or 'fast', found 'quick'",
    )


def test_a_preset_is_shown_with_what_it_stands_for() -> None:
    assert preset_lines(preset("fast")) == [
        "preset fast: S0_cut trains to 0.2 epochs, scores 128 rows, 3/8 of the genomes go on by "
        "eval_loss; S1_cut trains to 1 epoch, scores 256 rows, 1/3 of the genomes go on by auroc; "
        "S2_finisher trains to 2 epochs"
    ]
    assert preset_lines(preset(None)) == []
    (seeds,) = preset_lines(preset("seeds"))
    assert "S0_sanity trains to 0.05 epochs of 5 % of the data, scores 512 rows, all go on" in seeds
