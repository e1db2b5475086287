"""`--set`, the config written and read again, and modes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.config import dump_yaml, load_config, parse_config
from coralx.config.differences import differences
from coralx.config.load import apply_override, parse_yaml
from coralx.config.mode import mode_of, resolve_mode
from coralx.errors import ConfigError, UsageError
from coralx.records.mode import Mode
from tests.support.configs import labels, only_problem_in, problems_in, read
from tests.support.factories import PUBLISHED, make_config

# -- overrides -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("evolution.population_size=4", {"evolution": {"population_size": 4}}),
        ("training.max_grad_norm=1e-2", {"training": {"max_grad_norm": 0.01}}),
        ("data.labels=[no, yes]", {"data": {"labels": ["no", "yes"]}}),
        ("data.labels=[0, 1]", {"data": {"labels": ["0", "1"]}}),
        ("data.train=a=b", {"data": {"train": "a=b"}}),
        ("model.base=null", {"model": {"base": None}}),
        ("search_space.rank={choices: [4]}", {"search_space": {"rank": {"choices": [4]}}}),
    ],
)
def test_override_sets_a_key_that_was_not_there(assignment: str, expected: Any) -> None:
    data: dict[str, Any] = {}
    apply_override(data, assignment)
    assert data == expected


def test_override_reaches_into_lists_by_position_and_leaves_the_rest() -> None:
    data = parse_yaml(PUBLISHED, "test.yaml")
    apply_override(data, "hyperband_config.training_stages.1.survival_rate=0.75")
    rates = [s.survival_rate for s in parse_config(data, "x").hyperband_config.training_stages]
    assert rates == [Fraction(1), Fraction("0.75"), Fraction("0.25"), Fraction("0.1")]


@pytest.mark.parametrize(
    "assignment",
    [
        "evolution.population_size",
        "=3",
        "evolution..population_size=3",
        "hyperband_config.training_stages.4.name=x",
        "hyperband_config.training_stages.first.name=x",
        "hyperband_config.training_stages.-1.name=x",
        "hyperband_config.enable_hyperband.deeper=1",
    ],
)
def test_override_that_fits_nowhere_is_a_usage_error(assignment: str) -> None:
    with pytest.raises(UsageError) as caught:
        apply_override(parse_yaml(PUBLISHED, "test.yaml"), assignment)
    assert caught.value.exit_code == 2


def test_overridden_position_of_a_label_stays_text() -> None:
    data = parse_yaml("data: {labels: [no, yes]}", "test.yaml")
    apply_override(data, "data.labels.0=0")
    assert parse_config(data, "x").data.labels == ("0", "yes")


def test_overrides_are_checked_like_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("experiment: {name: x}\n", encoding="utf-8")
    assert load_config(path, ["evolution.population_size=4"]).evolution.population_size == 4
    with pytest.raises(ConfigError, match=r"evolution\.population_size: .*found 1"):
        load_config(path, ["evolution.population_size=1"])


def test_local_paths_are_anchored_at_the_config_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "rows.csv").write_text("text,label\n", encoding="utf-8")
    path = tmp_path / "conf" / "c.yaml"
    path.write_text("data: {train: rows.csv, test: builtin:tweets}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    data = load_config(path).data
    assert data.train == str((tmp_path / "conf" / "rows.csv").resolve())
    assert data.test == "builtin:tweets"


# -- round trip ----------------------------------------------------------------------------------

words = st.text("abcdfgh0123456789.-_/ ", min_size=1, max_size=12)
rates = st.decimals("0.01", "1", places=2)


@st.composite
def config_data(draw: st.DrawFn) -> dict[str, Any]:
    budgets = sorted(draw(st.lists(st.decimals("0.01", "5", places=2), min_size=1, max_size=4)))
    stages = [
        {
            "name": f"S{place}",
            "epoch_budget": float(budget),
            "data_percentage": 100,
            "survival_rate": float(draw(rates)),
            "stop_when": draw(st.sampled_from([None, [], ["loss_slope > -1e-6"]])),
        }
        for place, budget in enumerate(budgets)
    ]
    low = draw(st.floats(1e-9, 1e-3))
    return {
        "experiment": {"seed": draw(st.integers(0, 2**63 - 1))},
        "data": {"train": draw(words), "labels": draw(labels), "delimiter": draw(words)[0]},
        "search_space": {
            "learning_rate": {"low": low, "high": 2 * low, "log": draw(st.booleans())},
            "target_modules": {"choices": ["all-linear", ["query", "value"]]},
        },
        "hyperband_config": {"training_stages": stages},
        "training": {"weight_decay": draw(st.floats(0, 1)), "warmup_ratio": 1e-5},
    }


@given(config_data())
@settings(max_examples=40, deadline=None)
def test_dumped_config_reads_back_equal(data: dict[str, Any]) -> None:
    config = make_config(**data)
    again = read(dump_yaml(config))
    assert again == config
    assert differences(config, again) == []


@pytest.mark.parametrize(
    "name",
    [
        "1e5",
        "no",
        "007",
        "2024-01-01",
        "1.5",
        "0x1f",
    ],
)
def test_dumped_text_that_looks_like_a_number_stays_text(name: str) -> None:
    config = make_config(experiment={"name": name}, data={"text": name})
    assert read(dump_yaml(config)) == config


def test_differences_name_the_keys_that_differ() -> None:
    first, second = make_config(), make_config(experiment={"seed": 1}, training={"batch_size": 4})
    assert differences(first, second) == ["experiment.seed", "training.batch_size"]


# -- modes ---------------------------------------------------------------------------------------

REAL = {"model": {"base": "builtin:minilm"}, "data": {"train": "builtin:tweets", "limit": 64}}


@pytest.mark.parametrize(
    ("mode", "backend", "in_config", "expected_mode", "expected_backend"),
    [
        (None, None, "auto", "hyperband", "auto"),
        (None, None, "simulated", "simulation", "simulated"),
        (None, "simulated", "auto", "simulation", "simulated"),
        ("simulation", None, "peft", "simulation", "simulated"),
        ("simulation", "auto", "auto", "simulation", "simulated"),
        ("hyperband", None, "simulated", "hyperband", "auto"),
        ("hyperband", "peft", "auto", "hyperband", "peft"),
        ("full", None, "auto", "full", "auto"),
        ("full", "simulated", "auto", "full", "simulated"),
    ],
)
def test_flags_are_written_into_the_config(
    mode: Mode | None,
    backend: str | None,
    in_config: str,
    expected_mode: str,
    expected_backend: str,
) -> None:
    config = make_config(**REAL, runtime={"backend": in_config})
    resolved = resolve_mode(config, mode, backend)
    assert (mode_of(resolved), resolved.runtime.backend) == (expected_mode, expected_backend)


def test_mode_overrules_a_schedule_that_is_switched_off() -> None:
    off = make_config(**REAL, hyperband_config={"enable_hyperband": False})
    assert mode_of(resolve_mode(off, None, None)) == "full"
    assert mode_of(resolve_mode(off, "hyperband", None)) == "hyperband"


@pytest.mark.parametrize(
    ("mode", "backend"),
    [("simulation", "peft"), ("simulation", "unsloth"), ("hyperband", "simulated")],
)
def test_contradicting_flags_are_refused(mode: Mode, backend: str) -> None:
    with pytest.raises(UsageError, match="contradicts") as caught:
        resolve_mode(make_config(**REAL), mode, backend)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("sections", "mode", "missing"),
    [
        ({}, "hyperband", ["model.base", "data.train"]),
        ({"model": {"base": "x"}}, "full", ["data.train"]),
        ({}, "simulation", ["data.steps_per_epoch"]),
    ],
)
def test_a_mode_names_every_input_that_it_lacks(
    sections: dict[str, Any], mode: Mode, missing: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_mode(make_config(**sections), mode, None)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == missing


@pytest.mark.parametrize("name", ["2024", "true", "1e5", "no"])
def test_a_run_may_be_named_like_a_number_or_a_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from typer.testing import CliRunner

    from coralx.cli.app import app

    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("data: {steps_per_epoch: 100}\n")
    arguments = ["evolve", "c.yaml", "--mode", "simulation", "--quiet", "--name", name]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "runs" / name / "report.json").is_file()


def test_an_override_may_reach_into_a_list_that_the_file_leaves_out() -> None:
    data: dict[str, object] = {}
    apply_override(data, "hyperband_config.training_stages.0.epoch_budget=0.1")
    stages = parse_config(data, "test").hyperband_config.training_stages
    assert [float(stage.epoch_budget) for stage in stages] == [0.1, 0.3, 1.0, 2.0]


def test_genes_out_of_range_are_each_reported_at_their_place() -> None:
    text = "{dropout: {low: 0.5, high: 1.5}, learning_rate: {low: 0, high: 1}}"
    problems = problems_in(f"search_space: {text}\nmodell: {{}}")
    assert [problem.split(":")[0] for problem in problems] == [
        "search_space.dropout",
        "search_space.learning_rate",
        "modell",
    ]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ("[ham, ham, spam]", "'ham' is listed twice"),
        ("{neg: [ham, spam], pos: [spam]}", "'spam' is listed twice"),
        ("[ham]", "at least two classes"),
    ],
)
def test_labels_that_contradict_themselves_are_refused(labels: str, says: str) -> None:
    (problem,) = problems_in(f"data: {{labels: {labels}}}")
    assert problem.startswith("data.labels:")
    assert says in problem


def test_a_class_may_cover_a_single_label() -> None:
    config = parse_config(parse_yaml("data: {labels: {neg: no, pos: [yes, 1]}}", "t"), "t")
    assert config.data.labels == {"neg": ("no",), "pos": ("yes", "1")}


@pytest.mark.parametrize("labels", [[0, 1], ("0", 1), {0: [7], 1: 8}])
def test_whole_numbers_from_python_are_the_text_that_they_are_written_in(labels: Any) -> None:
    found = parse_config({"data": {"tasks": {"a": {"labels": labels}}}}, "t").data.sources["a"]
    assert found.labels == ({"0": ("7",), "1": ("8",)} if isinstance(labels, dict) else ("0", "1"))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([True, False], "labels are text, found True (put it in quotes"),
        ({"a": [0.5], "b": [1]}, "labels are text, found 0.5 (put it in quotes"),
        ([["a"], "b"], "labels are text, found ['a']"),
        (0, "expected a list of classes, or a mapping from class to its labels, found 0"),
    ],
)
def test_labels_of_other_kinds_are_one_problem(labels: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"data": {"labels": labels}}, "t")
    (problem,) = caught.value.problems
    assert problem.startswith(f"data.labels: {says}")


def test_labels_in_merged_mappings_stay_text() -> None:
    text = "data:\n  tasks:\n    a: &a {labels: [no, 007]}\n    b: {<<: [*a], limit: 3}"
    sources = parse_config(parse_yaml(text, "t"), "t").data.sources
    assert [source.labels for source in sources.values()] == [("no", "007")] * 2


def test_numbers_where_text_is_needed_are_to_be_quoted() -> None:
    problem = only_problem_in("experiment: {name: 7}")
    assert problem == "experiment.name: expected text, found 7 (put it in quotes)"


def test_a_flag_leaves_a_config_that_can_be_read_again() -> None:
    """The resolved config is recorded as it is, and a run whose config is refused is lost."""
    runtime = {"pack": 4, "block_compile": True}  # of which a simulation needs neither
    simulated = resolve_mode(make_config(**REAL, runtime=runtime), "simulation", None)
    assert parse_config(simulated.model_dump(mode="json"), "recorded") == simulated
    with pytest.raises(UsageError, match="block_compile"):
        resolve_mode(make_config(**REAL, runtime=runtime), None, "peft")
