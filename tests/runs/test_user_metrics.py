"""Whole searches with what users write themselves: metrics and judges of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch")

from coralx.api import runs as api
from coralx.backends.protocol import create
from coralx.config import load_config
from coralx.config.mode import resolve_mode
from coralx.errors import ConfigError, UsageError
from tests.support.objective_runs import objectives, prompts, quick, search

METRIC = """
def positives(predictions):
    {body}
"""


@pytest.fixture(autouse=True)
def folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Memory is measured twice, not seven times."""
    monkeypatch.setattr("coralx.training.cost_metrics.MEMORY_REPEATS", 2)
    return here


@pytest.fixture
def own(tiny_config: dict[str, Any], folder: Path) -> Iterator[Callable[[str], dict[str, Any]]]:
    """A config with a metric of the given body."""

    def config_with(body: str) -> dict[str, Any]:
        (folder / "mymetrics.py").write_text(METRIC.format(body=body))
        sys.modules.pop("coralx_user.mymetrics", None)
        listed = [*objectives("auroc"), {"metric": "mymetrics:positives", "direction": "minimize"}]
        return quick(tiny_config, objectives=listed)

    yield config_with
    sys.modules.pop("coralx_user.mymetrics", None)


def test_a_metric_of_the_user_s_own_leads_the_search(own: Callable[[str], dict[str, Any]]) -> None:
    outcome = search(own("return predictions.probabilities[:, 1].mean()"))
    for member in outcome.report["front"]:
        assert 0 < member["validation"]["mymetrics:positives"] < 1
        assert 0 < member["test"]["mymetrics:positives"]["value"] < 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return 1 / 0", r"ZeroDivisionError: division by zero \(.*mymetrics.py, line 3\)"),
        ("return 'much'", r"returned str \(much\), not a number or None"),
        ("return predictions.shape", r"AttributeError: .*'shape' \(.*line 3\)"),
        ("pass\nimport nowhere_to_be_found", r"ModuleNotFoundError: .*nowhere_to_be_found"),
        ("pass\nthis is no Python", r"SyntaxError"),
        ("pass\ndel positives", r"has no function 'positives'"),
    ],
)
def test_a_metric_that_fails_is_told_before_anything_is_trained(
    body: str, told: str, own: Callable[[str], dict[str, Any]]
) -> None:
    with pytest.raises(ConfigError, match="mymetrics:positives: .*" + told):
        search(own(body))
    assert not Path("runs").exists()


def test_a_module_that_is_nowhere_is_named(tiny_config: dict[str, Any]) -> None:
    listed = [{"metric": "not_there.at_all:f", "direction": "maximize"}]
    with pytest.raises(ConfigError, match=r"there is no .*not_there/at_all\.py, and no module"):
        search(quick(tiny_config, objectives=listed))


def test_a_metric_that_fails_later_ends_the_run_which_goes_on_once_it_is_mended(
    own: Callable[[str], dict[str, Any]], folder: Path
) -> None:
    config = own("return 0.5 if len(set(predictions.probabilities[:, 1])) == 1 else 1 / 0")
    with pytest.raises(ConfigError, match="ZeroDivisionError") as failed:
        search(config)
    assert failed.value.hint.endswith("To go on: coralx evolve CONFIG --resume tiny")
    from coralx.storage.layout import find_run

    layout = find_run("tiny")
    with pytest.raises(UsageError, match="functions run only from a config file that you give"):
        api.resume(layout)
    own("return predictions.probabilities[:, 1].mean()")
    given = resolve_mode(load_config(folder / "own.yaml"), None, None)
    assert api.resume(layout, given).report["front"]


def test_a_run_folder_s_own_config_runs_nothing(own: Callable[[str], dict[str, Any]]) -> None:
    outcome = search(own("return 0.5"))
    assert api.run_config(outcome.layout).runtime.functions_from is None
    assert api.run_config(outcome.layout, ["budget.max_steps=9"]).runtime.functions_from is None
    assert api.read_report(outcome.layout)["front"]  # which needs no function


def test_a_metric_cannot_change_what_it_is_given(own: Callable[[str], dict[str, Any]]) -> None:
    for body in ("predictions.labels.sort()", "predictions.probabilities[:] = 0.5"):
        with pytest.raises(ConfigError, match=r"ValueError: .*read-only"):
            search(own(f"{body}\n    return 1.0"))


@pytest.mark.parametrize(("value", "told"), [("None", "None"), ("float('nan')", "NaN")])
def test_a_front_goes_without_what_nobody_has(
    own: Callable[[str], dict[str, Any]], value: str, told: str
) -> None:
    report = search(own(f"return {value}")).report
    assert report["front"]
    start = "mymetrics:positives is undefined for every genome that finished "
    told = f"{start}(the function returned {told})"
    assert any(told in warning for warning in report["warnings"])


def test_functions_are_looked_for_where_the_config_says(
    own: Callable[[str], dict[str, Any]], folder: Path
) -> None:
    config = own("return 0.5")
    (folder / "sub" / "mods").mkdir(parents=True)
    (folder / "mymetrics.py").rename(folder / "sub" / "mods" / "mymetrics.py")
    config["runtime"]["functions_from"] = "mods"
    (folder / "sub" / "own.yaml").write_text(yaml.safe_dump(config))
    loaded = load_config(folder / "sub" / "own.yaml")
    assert loaded.runtime.functions_from == str(folder / "sub" / "mods")


def test_stages_given_from_python_do_not_unlock_a_run_folder_s_functions(
    own: Callable[[str], dict[str, Any]],
) -> None:
    from coralx import HyperbandTrainer, TrainingStage

    outcome = search(own("return 0.5"))
    stages = [TrainingStage("S0", 1.0, 100, 1.0)]
    for config in (api.run_config(outcome.layout), load_config(Path("own.yaml"))):
        given = HyperbandTrainer(config, stages=stages).config
        assert given.runtime.functions_from == config.runtime.functions_from


def test_a_judge_that_takes_its_time_is_heard_of(
    causal_config: Callable[[str], dict[str, Any]], folder: Path
) -> None:
    """At every verdict and every token, so that nobody takes the worker for hung."""
    config = causal_config("sft")
    config["data"]["attacks"] = {"file": prompts(folder), "text": "goal", "max_new_tokens": 4}
    Path("own.yaml").write_text(yaml.safe_dump(quick(config)))
    backend: Any = create("peft")
    backend.prepare(load_config(Path("own.yaml")), "fp32", 1, lambda text: None)  # noqa: ARG005
    heard: list[str] = []
    (part,) = backend._material.parts
    object.__setattr__(part, "judge", lambda *_: heard.append("judged"))
    backend._evaluation.validated(None, lambda: heard.append("beat"))
    places = [place for place, what in enumerate(heard) if what == "judged"]
    assert len(places) == 5
    assert all(heard[place - 1] == "beat" for place in places)
    assert len(heard) >= 2 * len(places) + 4


def test_gradient_checkpointing_is_on_again_after_an_answer(
    languages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsloth turns it off to generate."""
    import torch

    from coralx.data.examples import Example
    from coralx.tasks.generation import Answers

    language = languages["words"]
    inner = language.model.model
    generate = language.model.generate

    def turning_off(**given: Any) -> Any:
        inner.gradient_checkpointing = False
        return generate(**given)

    monkeypatch.setattr(inner, "gradient_checkpointing", True, raising=False)
    monkeypatch.setattr(language.model, "generate", turning_off)
    answers = Answers(language.tokenizer, 40, 2, torch.device("cpu"))
    answers.of(language.model, answers.encode([Example("good")]), [0], lambda: None)
    assert inner.gradient_checkpointing is True
