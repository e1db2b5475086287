"""YAML into a checked config: what is read, what is refused, and how it is said."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from coralx.config import dump_yaml, load_config
from coralx.config.conditions import parse_rule
from coralx.config.mode import mode_of
from coralx.errors import ConfigError
from coralx.execution.process import environment
from tests.support.configs import only_problem_in, problems_in, read, schedule
from tests.support.factories import PUBLISHED, STAGE_NAMES, make_config
from tests.support.paths import ROOT

# -- what is read --------------------------------------------------------------------------------


def test_published_block_loads_verbatim() -> None:
    stages = read(PUBLISHED).hyperband_config.training_stages
    assert [
        (s.name, s.epoch_budget, s.data_percentage, s.survival_rate) for s in stages
    ] == [
        ("S0_sanity", Fraction("0.05"), Fraction(5), Fraction(1)),
        ("S1_shakeout", Fraction("0.3"), Fraction(20), Fraction("0.5")),
        ("S2_serious", Fraction(1), Fraction(100), Fraction("0.25")),
        ("S3_finisher", Fraction(2), Fraction(100), Fraction("0.1")),
    ]  # fmt: skip


def test_omitted_schedule_is_the_published_one() -> None:
    assert read("experiment: {name: x}").hyperband_config == read(PUBLISHED).hyperband_config
    assert make_config().hyperband_config.enable_hyperband is True


@pytest.mark.parametrize(
    ("written", "number"),
    [("1e-4", 1e-4), ("1E-4", 1e-4), ("2e-04", 2e-4), ("1.5e-3", 1.5e-3), (".001", 1e-3)],
)
def test_scientific_notation_is_a_number(written: str, number: float) -> None:
    config = read(f"search_space: {{learning_rate: {{low: {written}, high: 1.0}}}}")
    assert config.search_space.learning_rate.low == number


@pytest.mark.parametrize("labels", ["[no, yes]", "[off, on]", "[0, 1]", "[01, 1e3]", "[n, null]"])
def test_labels_stay_the_text_that_was_written(labels: str) -> None:
    written = tuple(labels.strip("[]").split(", "))
    assert read(f"data: {{labels: {labels}}}").data.labels == written


def test_grouped_labels_stay_text() -> None:
    config = read("data: {labels: {no: [0, false], yes: [1, true]}}")
    assert config.data.labels == {"no": ("0", "false"), "yes": ("1", "true")}


def test_default_stop_rules_follow_the_place_of_a_stage() -> None:
    stages = read(PUBLISHED).hyperband_config.training_stages
    assert [stage.stop_when for stage in stages] == [
        ("gradient_norm > 50.0", "loss_slope > 0"),
        ("auroc < 0.55",),
        ("auroc < 0.55",),
        (),
    ]


def test_an_empty_list_of_stop_rules_means_none() -> None:
    stage = "epoch_budget: 1, data_percentage: 100, survival_rate: 1"
    text = schedule(f"name: A, {stage}, stop_when: []", f"name: B, {stage}", f"name: C, {stage}")
    stages = read(text).hyperband_config.training_stages
    assert [s.stop_when for s in stages] == [(), ("auroc < 0.55",), ()]


def test_objective_takes_the_natural_direction_of_its_metric() -> None:
    config = read("objectives: [{metric: auroc}, {metric: calibration}]")
    assert [o.direction for o in config.objectives] == ["maximize", "minimize"]


def test_quickstart_loads() -> None:
    config = load_config(ROOT / "configs" / "quickstart.yaml")
    assert config.model.base == "builtin:minilm"
    assert config.data.labels == ("negative", "positive")
    assert tuple(s.name for s in config.hyperband_config.training_stages) == STAGE_NAMES
    assert mode_of(config) == "hyperband"


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["the file is empty"]),
        ("# nothing but a comment\n", ["the file is empty"]),
        ("- a\n- b\n", ["expected sections", "a list"]),
        ("just text", ["expected sections", "'just text'"]),
        ("data:\n\ttrain: x\n", ["line 2", "\\t"]),
        ("data: {train: [}", ["line 1"]),
        ("data: {train: a}\nmodel: {}\ndata: {train: b}\n", ["line 3", "'data'", "twice"]),
        ("data:\n  train: a\n  train: b\n", ["line 3", "'train'", "twice"]),
        ("--- {}\n--- {}\n", ["document"]),
    ],
)
def test_text_that_is_no_config_is_refused_with_its_line(text: str, expected: list[str]) -> None:
    problem = only_problem_in(text)
    assert all(part in problem for part in expected), problem


@pytest.mark.parametrize(
    ("text", "path", "nearest"),
    [
        ("evolutoin: {}", "evolutoin", "evolution"),
        ("evolution: {populaton_size: 4}", "evolution.populaton_size", "population_size"),
        ("training: {batchsize: 4}", "training.batchsize", "batch_size"),
        (
            schedule(
                "name: A, epoch_budget: 1, data_percentage: 9, survival_rate: 1, stop_wen: []"
            ),
            "hyperband_config.training_stages.0.stop_wen",
            "stop_when",
        ),
        ("objectives: [{metric: auroc, directoin: x}]", "objectives.0.directoin", "direction"),
    ],
)
def test_unknown_key_names_its_path_and_the_nearest_known_key(
    text: str, path: str, nearest: str
) -> None:
    problem = only_problem_in(text)
    assert problem.startswith(f"{path}: unknown key")
    assert repr(nearest) in problem


def test_misspelt_key_of_a_gene_names_the_nearest_of_both_kinds() -> None:
    problems = problems_in("search_space: {rank: {choises: [2, 4]}}")
    near = [p for p in problems if p.startswith("search_space.rank.choises: unknown key")]
    assert len(near) == 1
    assert "'choices'" in near[0]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "runtime: {workers: 0}",
            "runtime.workers: must be 'auto', or must be greater than or equal to 1, found 0",
        ),
        (
            "runtime: {gradient_checkpointing: x}",
            "runtime.gradient_checkpointing: must be 'auto', or expected true or false, found 'x'",
        ),
        ("objectives: []", "objectives: must have at least 1 item, not 0"),
    ],
)
def test_a_value_that_fits_no_form_of_its_key_is_one_problem(text: str, problem: str) -> None:
    assert only_problem_in(text) == problem


def test_unknown_metric_and_rule_name_the_nearest_metric() -> None:
    problems = problems_in("objectives: [{metric: aurok}]")
    assert problems[0].startswith("objectives.0.metric: no metric of that name")
    assert "'auroc'" in problems[0]
    assert "found 'aurok'" in problems[0]


def test_all_problems_are_reported_at_once_each_with_path_and_found_value() -> None:
    problems = problems_in(
        """
        experiment: {seed: -1}
        modell: {base: x}
        evolution: {population_size: 1, inherit: maybe}
        training: {batch_size: many}
        data: {validation_fraction: 1.5}
        """
    )
    expected = {
        "experiment.seed": "-1",
        "modell": "'model'",
        "evolution.population_size": "1",
        "evolution.inherit": "'maybe'",
        "training.batch_size": "'many'",
        "data.validation_fraction": "1.5",
    }
    found = {problem.partition(": ")[0]: problem for problem in problems}
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        assert value in found[path]


def test_a_problem_between_entries_is_reported_along_with_the_others() -> None:
    problems = problems_in(
        "objectives: [{metric: auroc}, {metric: auroc}]\nevolution: {population_size: 1}"
    )
    assert len(problems) == 2
    assert any("listed twice" in problem for problem in problems)


@pytest.mark.parametrize(
    ("listed", "path", "says"),
    [
        ("[auroc == 0.7]", "constraints.0", "a constraint must be `metric op number`"),
        ("[auroc > 0.7, aurok > 0.1]", "constraints.1", "did you mean 'auroc'?"),
        ("[auroc > high]", "constraints.0", "a constraint must be"),
        ("[auroc > 1e999]", "constraints.0", "not a finite number"),
        ("[0.7]", "constraints.0", "expected text, found 0.7"),
        ("auroc > 0.7", "constraints", "expected a list"),
        ("[perplexity < 5]", "constraints", "has no metric 'perplexity'"),
        ("[auroc > 0.7, auroc>0.70]", "constraints", "`auroc>0.70` is listed twice"),
        ("[auroc <= 0.5, f1 > 0, auroc > 0.5]", "constraints", "no value can meet both `auroc <="),
        ("[auroc >= 0.6, auroc <= 0.5]", "constraints", "no value can meet both"),
    ],
)
def test_constraints_that_cannot_be_read_or_met_are_refused(
    listed: str, path: str, says: str
) -> None:
    problem = only_problem_in(f"constraints: {listed}")
    assert problem.startswith(f"{path}: ")
    assert says in problem


def test_constraints_are_kept_as_they_were_written() -> None:
    listed = ["trainable_parameters <= 5e5", "auroc>=.7", "auroc <= 0.7", "loss_slope < -0.1"]
    config = read(dump_yaml(make_config(constraints=listed)))
    assert config.constraints == tuple(listed)
    assert make_config().constraints == ()


@pytest.mark.parametrize("rate", ["0", "1.5", "-0.1", ".nan"])
def test_survival_rate_lies_above_zero_and_at_most_at_one(rate: str) -> None:
    problem = only_problem_in(
        schedule(f"name: A, epoch_budget: 1, data_percentage: 100, survival_rate: {rate}")
    )
    assert problem.startswith("hyperband_config.training_stages.0.survival_rate: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [("epoch_budget", "0"), ("data_percentage", "0"), ("data_percentage", "100.1")],
)
def test_budgets_lie_in_their_ranges(key: str, value: str) -> None:
    row = {"epoch_budget": "1", "data_percentage": "100", "survival_rate": "1", key: value}
    problem = only_problem_in(
        schedule("name: A, " + ", ".join(f"{k}: {v}" for k, v in row.items()))
    )
    assert problem.startswith(f"hyperband_config.training_stages.0.{key}: ")


@pytest.mark.parametrize(
    ("first", "second", "is_sound"),
    [
        ("epoch_budget: 1, data_percentage: 20", "epoch_budget: 1.9, data_percentage: 10", False),
        ("epoch_budget: 0.3, data_percentage: 10", "epoch_budget: 0.1, data_percentage: 30", True),
        ("epoch_budget: 2, data_percentage: 100", "epoch_budget: 1, data_percentage: 100", False),
    ],
)
def test_cumulative_steps_must_not_fall(first: str, second: str, is_sound: bool) -> None:
    text = schedule(f"name: A, {first}, survival_rate: 1", f"name: B, {second}, survival_rate: 1")
    if is_sound:
        assert len(read(text).hyperband_config.training_stages) == 2
    else:
        problem = only_problem_in(text)
        assert problem.startswith("hyperband_config: ")
        assert "'A'" in problem
        assert "'B'" in problem


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("hyperband_config: {training_stages: []}", "hyperband_config.training_stages", ""),
        ("search_space: {learning_rate: {low: 2.0, high: 1.0}}", "search_space", "below"),
        ("search_space: {dropout: {choices: [0.1, 1.0]}}", "search_space", "below 1"),
        ("search_space: {learning_rate: {low: 0.0, high: 1, log: true}}", "search_space", "log"),
        ("search_space: {rank: {choices: [0]}}", "search_space.rank.choices.0", "found 0"),
        ("data: {labels: [one]}", "data", "two classes"),
        ("data: {header: false}", "data", "column numbers"),
        ("experiment: {name: ../up}", "experiment.name", "'../up'"),
        ("evolution: 3", "evolution", "keys and values"),
    ],
)
def test_values_that_make_no_sense_are_refused(text: str, path: str, says: str) -> None:
    problem = only_problem_in(text)
    assert problem.startswith(path)
    assert says in problem


@pytest.mark.parametrize(
    ("section", "says"),
    [
        (
            "{inherit: off, checkpoint_crossover: {merge: 0.5}}",
            "but `inherit` is off; set `inherit",
        ),
        ("{checkpoint_crossover: {mask: 0.6, merge: 0.5}}", "add up to more than 1"),
        ("{checkpoint_crossover: {mask: -0.1}}", "evolution.checkpoint_crossover.mask: "),
    ],
)
def test_checkpoints_that_cannot_be_crossed_are_refused(section: str, says: str) -> None:
    assert says in only_problem_in(f"evolution: {section}")


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("{share: 1.5}", "evolution.derive.share: "),
        ("{share: -0.1}", "evolution.derive.share: "),
        ("{operators: [scale, merge]}", "evolution.derive.operators.1: "),
        ("{operators: [scale, soup, scale]}", "scale is named twice"),
        ("{fraction: 0.1}", "evolution.derive.fraction: "),
        ("false", "`{share: 0}` derives none, found False"),
        ("null", "`{share: 0}` derives none, found None"),
    ],
)
def test_a_derivation_that_cannot_be_is_refused(section: str, says: str) -> None:
    assert says in only_problem_in(f"evolution: {{derive: {section}}}")


@pytest.mark.parametrize("section", ["{share: 0}", "{operators: []}"])
def test_genomes_are_derived_unless_share_or_operators_say_none(section: str) -> None:
    assert read("experiment: {seed: 1}").evolution.derive.is_on
    assert not read(f"evolution: {{derive: {section}}}").evolution.derive.is_on


@pytest.mark.parametrize(
    "text",
    [
        "experiment: {seed: true}",
        "training: {max_grad_norm: true}",
        "runtime: {workers: true}",
        "search_space: {dropout: {low: false, high: 0.1}}",
        "search_space: {rank: {choices: [true, 4]}}",
    ],
)
def test_a_switch_is_no_number(text: str) -> None:
    assert ": expected a number" in only_problem_in(text)


def test_two_stages_cannot_share_a_name() -> None:
    row = "name: A, epoch_budget: 1, data_percentage: 100, survival_rate: 1"
    assert "share the name 'A'" in only_problem_in(schedule(row, row))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("__import__('os').system('true')", "metric op number"),
        ("auroc < 0.5 and f1 < 0.5", "metric op number"),
        ("auroc", "metric op number"),
        ("auroc == 0.5", "metric op number"),
        ("aurok < 0.5", "'auroc'"),
        ("auroc < 0..5", "not a number"),
        ("loss_slope > 1e999", "not a finite number"),
    ],
)
def test_stop_rule_is_parsed_and_never_evaluated(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"metric|number") as caught:
        parse_rule(text)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_unreadable_file_is_a_config_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        load_config(tmp_path / name)


@pytest.mark.parametrize(
    ("runtime", "says"),
    [
        ("{block_compile: true, backend: peft}", "`block_compile` is Unsloth's"),
        ("{block_compile: true, executor: in-process}", "for worker processes"),
        ("{block_compile: 2}", "runtime.block_compile"),
    ],
)
def test_block_compile_is_refused_where_it_would_do_nothing(runtime: str, says: str) -> None:
    assert says in only_problem_in(f"runtime: {runtime}")


def test_block_compile_reaches_workers_by_their_environment() -> None:
    for compiles, variables in ((True, {"UNSLOTH_BLOCK_COMPILE": "1"}), (False, {})):
        config = read(f"model: {{base: org/base}}\nruntime: {{block_compile: {compiles}}}".lower())
        assert environment(config) == variables
