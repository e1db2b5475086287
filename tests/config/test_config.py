"""YAML into a checked config: what is read, what is refused, and how it is said."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.config import Config, dump_yaml, load_config, parse_config
from coralx.config.conditions import parse_rule
from coralx.config.differences import differences
from coralx.config.load import apply_override, parse_yaml
from coralx.config.mode import mode_of, resolve_mode
from coralx.errors import ConfigError, UsageError
from coralx.records.mode import Mode
from tests.support.factories import PUBLISHED, STAGE_NAMES, make_config
from tests.support.paths import ROOT


def read(text: str) -> Config:
    return parse_config(parse_yaml(text, "test.yaml"), "test.yaml")


def problems_in(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert caught.value.exit_code == 2
    return caught.value.problems


def only_problem_in(text: str) -> str:
    problems = problems_in(text)
    assert len(problems) == 1, problems
    return problems[0]


def schedule(*stages: str) -> str:
    lines = "".join(f"    - {{{stage}}}\n" for stage in stages)
    return f"hyperband_config:\n  training_stages:\n{lines}"


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
            "runtime: {gradient_checkpointing: on}",
            "runtime.gradient_checkpointing: must be 'auto', or expected true or false, found 'on'",
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


# -- tasks ---------------------------------------------------------------------------------------

TASKS = ("sequence-classification", "label-tokens", "sft")


def test_sft_is_judged_by_loss_and_size_and_has_no_auroc_rule() -> None:
    config = read(f"model: {{task: sft}}\n{PUBLISHED}")
    assert [(o.metric, o.direction) for o in config.objectives] == [
        ("eval_loss", "minimize"),
        ("trainable_parameters", "minimize"),
    ]
    assert [stage.stop_when for stage in config.hyperband_config.training_stages] == [
        ("gradient_norm > 50.0", "loss_slope > 0"),
        (),
        (),
        (),
    ]
    assert config == read("model: {task: sft}")


@pytest.mark.parametrize("task", ["sequence-classification", "label-tokens"])
def test_classification_is_judged_by_auroc_and_size(task: str) -> None:
    config = make_config(model={"task": task})
    assert [o.metric for o in config.objectives] == ["auroc", "trainable_parameters"]
    stages = config.hyperband_config.training_stages
    assert [s.stop_when for s in stages[1:]] == [("auroc < 0.55",), ("auroc < 0.55",), ()]


def test_defaults_follow_the_task_wherever_it_stands_in_the_file() -> None:
    assert read(f"{PUBLISHED}model: {{task: sft}}") == read(f"model: {{task: sft}}\n{PUBLISHED}")
    assert read("objectives: [{metric: perplexity}]\nmodel: {task: sft}").objectives


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("sft", "auroc"),
        ("sft", "accuracy"),
        ("sft", "calibration"),
        ("label-tokens", "perplexity"),
        ("sequence-classification", "perplexity"),
    ],
)
def test_a_metric_that_the_task_has_not_is_refused_wherever_it_is_named(
    task: str, metric: str
) -> None:
    stage = "name: A, epoch_budget: 1, data_percentage: 100, survival_rate: 1, stop_when: []"
    rule = stage.replace("stop_when: []", f"stop_when: ['{metric} < 0.5']")
    named = {
        "objectives": f"objectives: [{{metric: eval_loss}}, {{metric: {metric}}}]",
        "stop rule": schedule(rule),
        "promote_by": schedule(f"{stage}, promote_by: {metric}"),
        "proxy_metrics": schedule(f"{stage}, proxy_metrics: [train_loss, {metric}]"),
    }
    for where, text in named.items():
        problem = only_problem_in(f"model: {{task: {task}}}\n{text}")
        section = "objectives" if where == "objectives" else "hyperband_config"
        assert problem.startswith(f"{section}: "), where
        assert ("stage 'A'" in problem) == (where != "objectives")
        before, _, offered = problem.partition("; it has ")
        assert f"the task {task!r} has no metric {metric!r}" in before
        assert "eval_loss" in offered
        assert metric not in offered.split(", ")


def test_an_unknown_task_names_the_known_ones() -> None:
    problem = only_problem_in("model: {task: stf}")
    assert problem.startswith("model.task: ")
    assert all(repr(task) in problem for task in TASKS)
    assert "found 'stf'" in problem


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("model: {task: stf}", ["model.task"]),
        ("model: {task: sft, max_length: 1}", ["model.max_length"]),
        ("model: {task: sft, bse: x}", ["model.bse"]),
        ("model: {task: sft}\ntraining: {batch_size: 0}", ["training.batch_size"]),
        ("model: {task: stf}\ndata: {train: 3}", ["model.task", "data.train"]),
    ],
)
@pytest.mark.parametrize(
    "named",
    [
        "",
        "objectives: [{metric: perplexity}]",
        "hyperband_config: {training_stages: [{name: A, epoch_budget: 1, data_percentage: 100, "
        "survival_rate: 1, promote_by: perplexity}]}",
    ],
)
def test_a_mistake_elsewhere_adds_no_noise_about_metrics(
    text: str, paths: list[str], named: str
) -> None:
    problems = problems_in(f"{text}\n{named}")
    assert [problem.partition(": ")[0] for problem in problems] == paths


@pytest.mark.parametrize("prompt", ["no text", "{text} and {text}", "{Text}", "{ text }", "''"])
def test_a_prompt_holds_the_text_once(prompt: str) -> None:
    problem = only_problem_in(f"data: {{prompt: '{prompt}'}}")
    assert problem.startswith("data.prompt: must contain {text} exactly once")


@pytest.mark.parametrize(
    ("task", "key", "value"),
    [
        ("sequence-classification", "chat", True),
        ("sequence-classification", "prompt", "{text} ?"),
        ("sft", "prompt", "{text} ?"),
        ("sft", "labels", ["no", "yes"]),
    ],
)
def test_keys_that_a_task_would_ignore_are_refused(task: str, key: str, value: Any) -> None:
    with pytest.raises(ConfigError) as error:
        make_config(model={"task": task}, data={key: value})
    (problem,) = error.value.problems
    assert problem.startswith(f"data: `{key}` is for ")
    assert f"model.task is {task}" in problem


def test_a_prompt_may_hold_other_braces() -> None:
    prompt = 'Answer in JSON: {"text": "{text}"} {label} {{}}\n'
    config = make_config(model={"task": "label-tokens"}, data={"prompt": prompt})
    assert config.data.prompt == prompt


@pytest.mark.parametrize(
    ("columns", "is_sound"),
    [
        ("prompt_column: 0, completion_column: 1", True),
        ("text: 0, label: 1", True),
        ("text: 0, completion_column: 1", False),
        ("prompt_column: 0", False),
    ],
)
def test_without_a_header_columns_are_numbers(columns: str, is_sound: bool) -> None:
    text = f"data: {{header: false, {columns}}}"
    if is_sound:
        assert read(text).data.header is False
    else:
        problem = only_problem_in(text)
        assert problem.startswith("data: without a header")
        assert "`prompt_column`" in problem


@pytest.mark.parametrize("task", TASKS)
def test_the_resolved_config_of_every_task_reads_back_equal(task: str, tmp_path: Path) -> None:
    config = make_config(
        model={"task": task, "base": "x/y", "max_length": 99},
        data={
            "train": "x/z",
            **({"prompt": "  Q: {text}\n\nA:\t "} if task == "label-tokens" else {}),
            "chat": task != "sequence-classification",
            "prompt_column": "007",
            "completion_column": 3,
            "messages_column": "null",
            "labels": None if task == "sft" else ["no", "yes"],
        },
        runtime={"quantization": "4bit", "gradient_checkpointing": False},
    )
    again = read(dump_yaml(config))
    assert again == config
    assert differences(config, again) == []
    assert dump_yaml(again) == dump_yaml(config)
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(config), encoding="utf-8")
    assert load_config(path) == config


def test_a_task_may_be_set_over_a_file_that_names_no_metric(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(PUBLISHED, encoding="utf-8")
    config = load_config(path, ["model.task=sft"])
    assert config.objectives[0].metric == "eval_loss"
    assert config == make_config(model={"task": "sft"})


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
labels = st.one_of(
    st.none(),
    st.lists(
        st.sampled_from(["no", "yes", "0", "1e3", "null", "~", "", "a: b", "é", "true"]),
        min_size=2,
        max_size=4,
        unique=True,
    ),
)
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
