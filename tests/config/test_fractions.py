"""Shares as exact numbers: decimals as written, and fractions such as 1/3, wherever they stand."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx import HyperbandTrainer, TrainingStage
from coralx.cli import main
from coralx.config import Config, dump_yaml, load_config, parse_config
from coralx.config.exact_numbers import MOST_DIGITS, exact, written
from coralx.config.load import parse_yaml
from coralx.engine.stage_decisions import decide_stage
from coralx.engine.state import RunState
from coralx.errors import ConfigError
from coralx.records.events import RunStarted
from coralx.records.run_facts import Settings
from coralx.records.verdicts import Replace
from coralx.schedule.plan_warnings import plan_warnings
from coralx.schedule.promotion import promotable
from coralx.schedule.share_warnings import fraction_meant, rate_warnings
from coralx.storage.history import History
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Ledger
from tests.support.factories import (
    make_config,
    make_genome,
    make_result,
    make_stages,
    simulated_config,
)

RATE = "hyperband_config.training_stages.0.survival_rate"


def row(rate: Any, **keys: Any) -> dict[str, Any]:
    return {"epoch_budget": 1, "data_percentage": 100, "survival_rate": rate, **keys}


def schedule(*rates: Any, **keys: Any) -> dict[str, Any]:
    """Stages S0, S1, ... of these survival rates."""
    stages = [{"name": f"S{place}", **row(rate)} for place, rate in enumerate(rates)]
    return {"training_stages": stages, **keys}


def with_rate(rate: Any) -> Config:
    return make_config(hyperband_config=schedule(rate, 1))


def rates_of(config: Config) -> list[Fraction]:
    return [stage.survival_rate for stage in config.hyperband_config.training_stages]


# -- what is read and written ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_as", "value", "kept_as"),
    [
        ("1/3", Fraction(1, 3), "1/3"),
        (" 2 / 6 ", Fraction(1, 3), "1/3"),
        ("2/4", Fraction(1, 2), 0.5),
        ("3/3", Fraction(1), 1),
        ("+1/7", Fraction(1, 7), "1/7"),
        (Fraction(1, 3), Fraction(1, 3), "1/3"),
        (0.1, Fraction(1, 10), 0.1),
        ("0.1", Fraction(1, 10), 0.1),
        (Decimal("0.1"), Fraction(1, 10), 0.1),
        (0.333333, Fraction(333333, 10**6), 0.333333),
        (1 / 3, Fraction("0.3333333333333333"), 0.3333333333333333),
        ("1e-3", Fraction(1, 1000), 0.001),
        (1, Fraction(1), 1),
    ],
)
def test_a_share_is_the_number_that_was_written(
    given_as: Any, value: Fraction, kept_as: float | str
) -> None:
    config = with_rate(given_as)
    assert rates_of(config)[0] == value
    kept = config.model_dump(mode="json")["hyperband_config"]["training_stages"][0]
    assert kept["survival_rate"] == kept_as
    assert type(kept["survival_rate"]) is type(kept_as)
    text = dump_yaml(config)
    assert parse_config(parse_yaml(text, "again"), "again") == config
    assert parse_config(json.loads(config.model_dump_json()), "again") == config


@pytest.mark.parametrize(
    ("rate", "says"),
    [
        ("1/0", "a fraction cannot have the denominator 0, found '1/0'"),
        ("4/3", "must be less than or equal to 1, found '4/3'"),
        ("-1/3", "must be greater than or equal to 0.000001, found '-1/3'"),
        ("0/3", "must be greater than or equal to 0.000001, found '0/3'"),
        ("a/b", "expected a number, or a fraction of two whole numbers such as 1/3, found 'a/b'"),
        ("0.5/3", "two whole numbers such as 1/3, found '0.5/3'"),
        ("1/-3", "two whole numbers such as 1/3, found '1/-3'"),
        ("1/2/3", "two whole numbers such as 1/3, found '1/2/3'"),
        ("1//3", "two whole numbers such as 1/3, found '1//3'"),
        ("", "two whole numbers such as 1/3, found ''"),
        (True, "two whole numbers such as 1/3, found True"),
        ([1, 3], "two whole numbers such as 1/3"),
        (f"1/{'3' * 19}", "at most 18 digits"),
        (f"{'9' * 5000}/3", "at most 18 digits"),
        (Fraction(1, 10**19), "at most 18 digits"),
        (float("nan"), "expected a finite number, found nan"),
        ("1e999999", "expected a finite number, found '1e999999'"),
    ],
)
def test_what_is_no_share_is_refused_by_name(rate: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_rate(rate)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{RATE}: ")
    assert says in problem


@pytest.mark.parametrize(
    ("value", "as_written"),
    [
        (np.float64(0.1), Fraction(1, 10)),
        (np.float32(0.1), Fraction(1, 10)),
        (np.float16(0.1), Fraction(1, 10)),
        (np.int64(1), Fraction(1)),
        (np.uint8(1), Fraction(1)),
    ],
)
def test_numbers_of_numpy_are_what_they_print_as(value: Any, as_written: Fraction) -> None:
    assert rates_of(with_rate(value))[0] == as_written
    with pytest.raises(ConfigError, match="two whole numbers such as 1/3"):
        with_rate(np.bool_(True))
    with pytest.raises(ConfigError, match="expected a finite number"):
        with_rate(np.float32("nan"))


@given(st.fractions(0, 1, max_denominator=10**MOST_DIGITS - 1))
def test_every_fraction_is_written_exactly(value: Fraction) -> None:
    assert exact(written(value)) == value
    assert exact(f"{value.numerator}/{value.denominator}") == value


@given(st.floats(1e-6, 1e6))
@settings(max_examples=300)
def test_a_decimal_is_written_as_it_was_read(value: float) -> None:
    """As before there were fractions: resolved configs keep their text."""
    kept = written(exact(value))
    assert kept == value
    assert isinstance(kept, int) == value.is_integer()


def test_every_share_takes_fractions() -> None:
    stage = row("2/3", epoch_budget="1/3", data_percentage="100/3")
    config = make_config(
        evolution={"elite_fraction": "1/3", "pbt_quantile": "1/3", "generations": 2},
        hyperband_config={"training_stages": [{"name": "S0", **stage}, {"name": "S1", **row(1)}]},
    )
    (first, _) = make_stages(("1/3", "100/3", "2/3"), (1, 100, 1))  # type: ignore[arg-type]
    assert first.planned_steps(900) == 100
    assert first.quota(3) == 2
    assert config.evolution.births(1) == 8 - 2
    assert config.evolution.pbt_quantile == Fraction(1, 3)
    assert parse_config(parse_yaml(dump_yaml(config), "again"), "again") == config


def test_budgets_that_fall_by_a_hair_are_told_apart() -> None:
    stages = [{"name": "A", **row(1)}, {"name": "B", **row(1)}]
    stages[0]["epoch_budget"], stages[1]["epoch_budget"] = "1/3", 0.333333
    with pytest.raises(ConfigError, match=r"up to 0.333333 epochs .* less than the 1/3 of 'A'"):
        make_config(hyperband_config={"training_stages": stages})


# -- from the command line and from Python --------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "thirds.yaml"
    config = {
        "experiment": {"name": "thirds"},
        "data": {"steps_per_epoch": 30},
        "evolution": {"population_size": 3, "generations": 1, "derive": {"share": 0}},
        "hyperband_config": schedule("1/3", 1, promotion="asynchronous"),
        "runtime": {"backend": "simulated"},
    }
    path.write_text(yaml.safe_dump(config), "utf-8")
    return path


def test_a_run_keeps_fractions_and_goes_by_them(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coralx(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["coralx", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0)

    assert coralx("evolve", str(file), "--quiet") == 0
    layout = RunLayout(Path("runs/thirds"))
    resolved = yaml.safe_load(layout.config.read_text("utf-8"))
    assert resolved["hyperband_config"]["training_stages"][0]["survival_rate"] == "1/3"
    events = Ledger.read_events(layout.ledger)
    assert isinstance(events[0], RunStarted)
    assert events[0].config is not None
    assert events[0].config["hyperband_config"]["training_stages"][0]["survival_rate"] == "1/3"
    assert len(json.loads(layout.report.read_text("utf-8"))["front"]) == 1
    assert coralx("evolve", "--resume", "thirds", "--quiet") == 0


def test_an_override_may_be_a_fraction(file: Path) -> None:
    config = load_config(file, [f"{RATE}=2/3", "evolution.elite_fraction=1/3"])
    assert rates_of(config)[0] == Fraction(2, 3)
    assert config.evolution.elite_fraction == Fraction(1, 3)


SIMULATED = {"data": {"steps_per_epoch": 30}, "runtime": {"backend": "simulated"}}


def test_the_python_interface_takes_and_gives_fractions() -> None:
    stages = [
        TrainingStage("S0", Fraction(1, 3), 50, "1/3"),
        TrainingStage("S1", 1.5, Fraction(200, 3), 1.0),
    ]
    trainer = HyperbandTrainer(SIMULATED, stages=stages)
    assert rates_of(trainer.config)[0] == Fraction(1, 3)
    assert trainer.stages == (
        TrainingStage("S0", "1/3", 50, "1/3"),
        TrainingStage("S1", 1.5, "200/3", 1),
    )
    assert HyperbandTrainer(SIMULATED, stages=trainer.stages).stages == trainer.stages


# -- what shares come to in whole genomes ---------------------------------------------------------


def test_a_third_of_three_goes_on_and_six_figures_of_it_do_not() -> None:
    for rate, found in (("1/3", ["a"]), (0.333333, [])):
        (stage, _) = make_stages((1, 10, rate), (1, 100, 1))  # type: ignore[arg-type]
        assert promotable(stage, ["a", "b", "c"], 3, []) == found


@pytest.mark.parametrize(
    ("rate", "meant"),
    [
        (0.333333, "1/3"),
        (0.33, "1/3"),
        (0.66, "2/3"),
        (0.1428, "1/7"),
        (0.083, "1/12"),
        (0.67, None),  # above two thirds: nothing is lost
        (0.25, None),
        (0.3, None),
        (0.2499, None),
        (0.999, None),
        (0.28, None),
        ("1/3", None),
    ],
)
def test_a_rounded_decimal_is_taken_for_the_fraction_above_it(
    rate: float | str, meant: str | None
) -> None:
    assert fraction_meant(exact(rate)) == (None if meant is None else Fraction(meant))


def is_asynchronous(config: Config) -> bool:
    return config.hyperband_config.promotion == "asynchronous"


def warnings_of(config: Config, rows: int) -> list[str]:
    return rate_warnings(config, rows, singly=is_asynchronous(config))


def warnings_for(population: int, *rates: Any, **keys: Any) -> list[str]:
    evolution = {"population_size": population, "generations": keys.pop("generations", 1)}
    config = simulated_config(evolution=evolution, hyperband_config=schedule(*rates, **keys))
    found = warnings_of(config, config.known_rows)
    assert set(found) <= set(plan_warnings(config, singly=is_asynchronous(config)))
    return found


ASYNCHRONOUS = {"promotion": "asynchronous"}


def test_a_rounded_rate_is_warned_of_where_it_costs_a_genome() -> None:
    (found,) = warnings_for(3, 0.333333, 1, **ASYNCHRONOUS)
    assert (
        found
        == f"{RATE} is 0.333333, which of 3 genomes is 0; 1/3 is 1. Write 1/3 if you mean that"
    )
    (found,) = warnings_for(6, 0.333333, 1)
    assert "of 6 genomes is 1; 1/3 is 2" in found
    assert warnings_for(3, 0.333333, 1) == []  # one goes on at any rate
    assert warnings_for(8, 0.333333, 1) == []
    assert warnings_for(6, "1/3", 1) == []
    assert warnings_for(3, "1/3", 1, **ASYNCHRONOUS) == []
    assert warnings_for(6, 0.333333, 1, enable_hyperband=False) == []


@pytest.mark.parametrize("keys", [{}, ASYNCHRONOUS])
def test_a_stage_that_is_too_short_to_cut_is_not_warned_of(keys: dict[str, Any]) -> None:
    stages = schedule(0.33, 0.25, 1, **keys)
    stages["training_stages"][0]["data_percentage"] = 5
    config = simulated_config(
        evolution={"population_size": 6, "generations": 1}, hyperband_config=stages
    )
    assert any(RATE in line for line in warnings_of(config, 16 * 1000))
    short = warnings_of(config, 16 * 100)  # five steps
    assert not any(RATE in line for line in short)
    if keys:  # and the next stage counts all who go on from it
        assert not any("none goes on" in line for line in short)
        assert any("at most 1 genome" in line for line in warnings_of(config, 16 * 1000))


def test_the_last_stage_cuts_nobody() -> None:
    assert warnings_for(6, 1, 0.333333) == []
    assert warnings_for(6, 1, 0.01, **ASYNCHRONOUS) == []


def test_a_rate_that_lets_nobody_pass_is_warned_of() -> None:
    (found,) = warnings_for(8, 0.1, 1, 1, **ASYNCHRONOUS)
    assert found.startswith(f"{RATE} is 0.1, and at most 8 genomes of the whole run will train S0")
    (found,) = warnings_for(8, 0.5, 0.2, 1, **ASYNCHRONOUS)
    assert "at most 4 genomes of the whole run will train S1" in found
    assert warnings_for(8, 0.1, 0.5, 1) == []  # a whole stage lets one pass at any rate
    two = warnings_for(8, 0.1, 1, 1, generations=2, **ASYNCHRONOUS)
    assert two == []  # one of the 16 of both generations


def test_brackets_are_counted_each_by_itself() -> None:
    assert warnings_for(8, 0.25, 0.5, 1, **ASYNCHRONOUS) == []
    (found,) = warnings_for(8, 0.25, 1, 1, brackets=3, **ASYNCHRONOUS)
    assert "genomes of the whole run will train S0" in found


def test_an_elite_and_a_quantile_that_lose_a_genome_are_warned_of() -> None:
    evolution = {"population_size": 6, "generations": 2, "pbt_quantile": 0.333}
    config = simulated_config(
        evolution={**evolution, "elite_fraction": 0.333}, hyperband_config=schedule(1, 1)
    )
    assert [warning.split(". Write")[0] for warning in warnings_of(config, config.known_rows)] == [
        "evolution.elite_fraction is 0.333, which of 6 genomes is 1; 1/3 is 2",
        "evolution.pbt_quantile is 0.333, which of 6 genomes is 1; 1/3 is 2",
    ]


@pytest.mark.parametrize(("revision", "copies"), [(1, 28), (2, 29)])
def test_a_run_of_an_earlier_version_replaces_as_many_as_it_began_to(
    revision: int, copies: int
) -> None:
    config = simulated_config(
        evolution={"population_size": 100, "generations": 1, "pbt_quantile": 0.29},
        hyperband_config=schedule(1, 1),
    )
    genomes = [make_genome(f"g{number:03}") for number in range(100)]
    history = History([])
    history.started = SimpleNamespace(settings=Settings(1, 1, "none", revision))  # type: ignore[assignment]
    history.genomes = {genome.id: genome for genome in genomes}
    history.generations = {0: genomes}  # type: ignore[dict-item]
    history.results = {
        (genome.id, "S0"): make_result(genome.id, {"auroc": 0.5}) for genome in genomes
    }
    (stage, _) = make_stages((1, 100, 1), (1, 100, 1))
    verdicts = decide_stage(RunState(config, history), stage, 0, genomes).verdicts
    assert sum(isinstance(verdict, Replace) for verdict in verdicts) == copies
