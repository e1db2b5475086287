"""Metrics as a config names them: of a task, of the user's own, and those that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coralx.config import dump_yaml, load_config, parse_config
from coralx.config.conditions import parse_constraint, parse_rule
from coralx.config.load import parse_yaml
from coralx.config.metric_catalogue import (
    CATALOGUE,
    EVERY_TASK,
    check_metric,
    is_function,
    metric_entry,
    require_offered,
    split_metric_name,
)
from coralx.errors import ConfigError
from tests.support.factories import make_config

TASKS = {"tasks": {"a": {"train": "a.csv"}, "b-2.x": {"train": "b.csv"}}}
ATTACKED = {"attacks": ["swap"], "group": "party"}


def refusal(**sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        make_config(**sections)
    (problem,) = caught.value.problems
    return problem


def objective(metric: str, **more: Any) -> list[dict[str, Any]]:
    return [{"metric": metric, **more}]


def stage(**keys: Any) -> dict[str, Any]:
    row = {"name": "A", "epoch_budget": 1, "data_percentage": 100, "survival_rate": 1, **keys}
    return {"training_stages": [row]}


# -- the catalogue -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_metric_says_what_it_is(name: str) -> None:
    metric = CATALOGUE[name]
    assert metric.direction in ("maximize", "minimize")
    assert metric.range
    assert metric.undefined
    assert not is_function(name)


@pytest.mark.parametrize("name", [name for name, m in CATALOGUE.items() if m.is_computable])
@pytest.mark.parametrize("task", EVERY_TASK)
def test_a_metric_is_an_objective_of_the_tasks_that_have_it(name: str, task: str) -> None:
    attacks = {"attacks": "harm.csv"} if task == "sft" else ATTACKED
    sections = {"model": {"task": task}, "data": attacks, "objectives": objective(name)}
    if task in CATALOGUE[name].tasks:
        (found,) = make_config(**sections).objectives
        assert found.direction == CATALOGUE[name].direction
    else:
        assert f"has no metric {name!r}" in refusal(**sections)


def test_what_is_refused_says_why_and_is_offered_nowhere() -> None:
    problem = refusal(objectives=objective("cross_modal_fusion"))
    assert problem.startswith("objectives.0.metric: cross_modal_fusion cannot be computed: ")
    assert "every task reads text alone" in problem
    for text in ("cross_modal_fusion > 0.1", "cross_modal_fusion@a > 0.1"):
        with pytest.raises(ValueError, match="every task reads text alone"):
            parse_rule(text)
    assert "cross_modal_fusion" not in refusal(objectives=objective("aurok"))
    assert "cross_modal_fusion" not in refusal(objectives=objective("perplexity"))


# -- what a metric needs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "key", "way_out"),
    [
        ("safety", "data.attacks", "[swap, homoglyph, spacing, prefix]"),
        ("robustness", "data.group", "column by which rows are grouped"),
    ],
)
def test_a_metric_without_its_data_is_refused_with_the_way_out(
    metric: str, key: str, way_out: str
) -> None:
    ways: list[dict[str, Any]] = [
        {"objectives": objective(metric)},
        {"constraints": [f"{metric} > 0.5"]},
        {"hyperband_config": stage(stop_when=[f"{metric} < 0.5"])},
        {"hyperband_config": stage(promote_by=metric)},
        {"hyperband_config": stage(proxy_metrics=[metric])},
    ]
    for sections in ways:
        problem = refusal(**sections)
        assert f"the metric {metric!r} needs `{key}`: " in problem
        assert way_out in problem
        assert make_config(data=ATTACKED, **sections)


def test_of_several_tasks_one_with_the_data_is_enough_but_not_for_anothers_figure() -> None:
    data = {"tasks": {"a": ATTACKED, "b": {}}}
    assert make_config(data=data, objectives=objective("safety"))
    assert make_config(data=data, objectives=objective("safety@a"))
    problem = refusal(data=data, objectives=objective("safety@b"))
    assert "the metric 'safety@b' needs `data.tasks.b.attacks`: " in problem
    none: dict[str, Any] = {"tasks": {"a": {}, "b": {}}}
    assert "needs `data.attacks`: " in refusal(data=none, objectives=objective("safety"))


# -- metrics of one task -------------------------------------------------------------------------


def test_a_metric_of_one_task_is_named_behind_an_at() -> None:
    config = make_config(data=TASKS, objectives=objective("auroc@a") + objective("brier@b-2.x"))
    assert [o.direction for o in config.objectives] == ["maximize", "minimize"]
    assert split_metric_name("brier@b-2.x") == ("brier", "b-2.x")
    assert metric_entry("brier@b-2.x") is CATALOGUE["brier"]


@pytest.mark.parametrize("where", ["objectives", "constraints", "stage"])
def test_a_metric_of_a_task_that_is_not_there_names_those_that_are(where: str) -> None:
    ways: dict[str, dict[str, Any]] = {
        "objectives": {"objectives": objective("auroc@c")},
        "constraints": {"constraints": ["auroc@c >= 0.5"]},
        "stage": {"hyperband_config": stage(stop_when=["auroc@c < 0.5"])},
    }
    problem = refusal(data=TASKS, **ways[where])
    assert problem == ("(top level): 'auroc@c' names no task of `data.tasks`, which has a, b-2.x")
    problem = refusal(**ways[where])
    assert problem == "(top level): 'auroc@c' names a task, but `data.tasks` is not set"


@pytest.mark.parametrize(
    "metric",
    [
        *(n for n, m in CATALOGUE.items() if m.source in ("measurement", "adapter", "training")),
        "task_skill",
    ],
)
def test_figures_that_are_not_a_tasks_have_none_of_one_task(metric: str) -> None:
    problem = refusal(data=TASKS, objectives=objective(f"{metric}@a"))
    assert f"'{metric}@a': is one figure for all tasks" in problem


def test_an_at_without_a_task_is_refused() -> None:
    for name in ("auroc@", "my:function@"):
        with pytest.raises(ValueError, match="names no task after the @"):
            check_metric(name)
    with pytest.raises(ValueError, match="did you mean 'auroc'"):
        check_metric("aurok@a")


# -- functions of the user's ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("module:function", True),
        ("pack.age.mod_1:_f2", True),
        ("_m:f", True),
        ("module.function", False),
        ("module:", False),
        (":function", False),
        ("a:b:c", False),
        ("a:b.c", False),
        ("1a:b", False),
        ("a..b:c", False),
        ("../a:b", False),
        ("a/b:c", False),
        ("a:b ", False),
        ("a:b\n", False),
    ],
)
def test_a_function_is_named_by_module_and_name(name: str, is_one: bool) -> None:
    assert is_function(name) == is_one
    if is_one:
        assert check_metric(name) == name
    else:
        with pytest.raises(ValueError, match="no metric of that name"):
            check_metric(name)


@pytest.mark.parametrize("metric", ["my:figure", "my.own:figure@a"])
def test_a_function_needs_a_direction(metric: str) -> None:
    problem = refusal(data=TASKS, objectives=objective(metric))
    assert problem.startswith("objectives.0: ")
    assert "is a function of yours: set `direction` to maximize or minimize" in problem
    for direction in ("maximize", "minimize"):
        config = make_config(data=TASKS, objectives=objective(metric, direction=direction))
        assert config.direction_of(metric) == direction
        assert config.functions == (split_metric_name(metric)[0],)


def test_stages_promote_by_a_function_only_if_an_objective_says_what_is_better() -> None:
    by = {"hyperband_config": stage(promote_by="my:figure")}
    problem = refusal(**by)
    assert "stage 'A' promotes by 'my:figure'" in problem
    assert "list it there" in problem
    objectives = [{"metric": "auroc"}, {"metric": "my:figure", "direction": "minimize"}]
    assert make_config(objectives=objectives, **by).direction_of("my:figure") == "minimize"


def test_every_function_that_is_named_anywhere_is_known() -> None:
    config = make_config(
        model={"task": "label-tokens"},
        data={
            "attacks": {"file": "x", "judge": "my:judge"},
            "tasks": {"a": {}, "b": {"attacks": {"file": "y", "judge": "other:judge"}}},
        },
        objectives=objective("my:figure@a", direction="maximize"),
        constraints=["my.own:limit < 3", "auroc@b > 0.1"],
        hyperband_config=stage(stop_when=["mod.sub:fn@a > 1e3"], proxy_metrics=["f:g"]),
    )
    assert config.functions == (
        "my:figure", "my.own:limit", "mod.sub:fn", "f:g", "my:judge", "other:judge",
    )  # fmt: skip


def test_without_a_direction_of_its_own_a_metric_has_its_natural_one() -> None:
    config = make_config(objectives=objective("auroc", direction="minimize"))
    assert config.direction_of("auroc") == "minimize"
    assert config.direction_of("f1") == "maximize"
    assert config.direction_of("brier") == "minimize"


# -- conditions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["auroc", "auroc@a", "f1@b-2.x", "my:fn", "mod.sub:fn@b-2.x"])
@pytest.mark.parametrize("form", ["{} >= 0.8", "{}>=.8", "  {}   >=  8e-1 "])
def test_conditions_may_be_on_any_metric(metric: str, form: str) -> None:
    text = form.format(metric)
    for parsed in (parse_rule(text), parse_constraint(text)):
        assert (parsed.metric, parsed.comparison, parsed.threshold) == (metric, ">=", 0.8)
    config = make_config(data=TASKS, constraints=[text], hyperband_config=stage(stop_when=[text]))
    assert metric in config.named_metrics


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("auroc@ > 0.5", "names no task"),
        ("latency_ms@a < 5", "one figure for all tasks"),
        ("mod:sub:fn > 1", "metric op number"),
        ("a.b > 1", "no metric of that name"),
        ("auroc@a@b > 1", "metric op number"),
    ],
)
def test_conditions_on_what_is_no_metric_are_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_constraint(text)


def test_an_objectives_constraint_becomes_one_of_the_constraints() -> None:
    config = make_config(
        data=TASKS,
        objectives=[
            {"metric": "auroc@a", "constraint": ">= 0.8"},
            {"metric": "my:fn", "direction": "minimize", "constraint": "<3"},
            {"metric": "brier"},
        ],
        constraints=["f1 > 0.1"],
    )
    assert config.constraints == ("f1 > 0.1", "auroc@a >= 0.8", "my:fn <3")
    assert [o.metric for o in config.objectives] == ["auroc@a", "my:fn", "brier"]
    assert parse_config(parse_yaml(dump_yaml(config), "t"), "t") == config


@pytest.mark.parametrize(
    ("sections", "path", "says"),
    [
        ({"objectives": objective("auroc", constraint="0.8")}, "objectives.0", "found '0.8'"),
        (
            {"objectives": objective("auroc", constraint=">= 0.8"), "constraints": ["auroc < 0.2"]},
            "constraints",
            "no value can meet both",
        ),
        (
            {"objectives": objective("auroc", constraint="> 1"), "constraints": ["auroc > 1"]},
            "constraints",
            "listed twice",
        ),
        (
            {"objectives": objective("aurok", constraint="> 1")},
            "objectives.0.metric",
            "did you mean 'auroc'",
        ),
        (
            {"objectives": objective("auroc", constraint="> 1"), "constraints": "x"},
            "constraints",
            "expected a list",
        ),
        ({"objectives": objective("auroc", constraint=0.8)}, "objectives.0", "'>= 0.8'"),
        ({"objectives": objective("auroc", constraint=[">1"])}, "objectives.0", "'>= "),
    ],
)
def test_a_constraint_that_cannot_be_is_refused(
    sections: dict[str, Any], path: str, says: str
) -> None:
    problem = refusal(**sections)
    assert problem.startswith(f"{path}: "), problem
    assert says in problem


# -- the resolved config -------------------------------------------------------------------------


def test_the_resolved_config_reads_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        """
        model: {task: label-tokens}
        data:
          limit: 50
          group: party
          attacks: {file: harm.csv, text: goal, judge: "my.judges:strict", max_new_tokens: 7}
          clean_holdout: clean.csv
          tasks:
            tox: {train: t.csv, labels: [no, yes], limit: 20}
            spam-2: {train: s.csv, labels: {1: [a, null], 0: [on]}, attacks: [swap, prefix]}
        objectives:
          - {metric: task_skill, constraint: ">= 0.6", weight: 2}
          - {metric: safety@tox}
          - {metric: "my.own:figure@spam-2", direction: minimize}
          - {metric: latency_ms}
        constraints: [robustness > 0.3, "my.own:figure <= 1e3"]
        """
    )
    config = load_config(path)
    assert config.functions == ("my.own:figure", "my.judges:strict")
    assert config.runtime.functions_from == str(tmp_path.resolve())
    kept = tmp_path / "kept.yaml"
    kept.write_text(dump_yaml(config), encoding="utf-8")
    again = load_config(kept)
    assert again == config
    assert dump_yaml(again) == dump_yaml(config)
    from_a_run = load_config(kept, resolved=True)
    assert from_a_run.runtime.functions_from is None
    assert from_a_run.data == config.data
    assert from_a_run.objectives == config.objectives


names = st.sampled_from([n for n, m in CATALOGUE.items() if m.source == "predictions"])


@given(names, st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True))
def test_every_name_of_a_task_can_stand_behind_an_at(metric: str, task: str) -> None:
    name = f"{metric}@{task}"
    assert split_metric_name(name) == (metric, task)
    if CATALOGUE[metric].is_computable and metric != "task_skill":
        assert check_metric(name) == name
        assert parse_rule(f"{name} > 1").metric == name
        require_offered(CATALOGUE[metric].tasks[0], [name])
