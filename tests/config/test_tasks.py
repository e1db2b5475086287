"""What each task needs of a config, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coralx.config import dump_yaml, load_config
from coralx.config.differences import differences
from coralx.errors import ConfigError
from tests.support.configs import only_problem_in, problems_in, read, schedule
from tests.support.factories import PUBLISHED, make_config

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
