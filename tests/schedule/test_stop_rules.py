"""Stop rules: whom they take out, whom they cannot judge, and when a floor is at fault."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from coralx.config.conditions import parse_rule
from coralx.records.results import Divergence, StageResult, Trend
from coralx.schedule.stop_rules import Breach, Judgement, judge
from tests.support.factories import make_result, make_stages


def judged(rules: list[str], *results: StageResult, judges_warmup: bool = False) -> Judgement:
    stop_when = tuple(parse_rule(rule) for rule in rules)
    stage = make_stages((1, 100, 1), (2, 100, 1))[0]
    return judge(replace(stage, stop_when=stop_when, judges_warmup=judges_warmup), results)


def with_slope(genome: str, slope: float, low: float, high: float) -> StageResult:
    return make_result(genome, {"loss_slope": slope}, loss_trend=Trend(slope, low, high))


@pytest.mark.parametrize(
    ("rule", "stops"),
    [
        ("gradient_norm > 5.0", [5.1]),
        ("gradient_norm >= 5.0", [5.0, 5.1]),
        ("gradient_norm < 5.0", [4.9]),
        ("gradient_norm <= 5.0", [4.9, 5.0]),
    ],
)
def test_each_operator_compares_as_written(rule: str, stops: list[float]) -> None:
    values = [4.9, 5.0, 5.1]
    results = [make_result(str(value), {"gradient_norm": value}) for value in values]
    assert set(judged([rule], *results).breaches) == {str(value) for value in stops}


def test_breach_tells_rule_and_value() -> None:
    breach = judged(["gradient_norm > 5.5"], make_result("a", {"gradient_norm": 7.25})).breaches
    assert breach["a"].rule == "gradient_norm > 5.5"
    assert breach["a"].value == 7.25


@pytest.mark.parametrize("metrics", [{}, {"auroc": None}])
def test_undefined_figure_breaks_no_rule(metrics: dict[str, float | None]) -> None:
    assert judged(["auroc < 0.55"], make_result("a", metrics)).breaches == {}


# -- the loss slope's interval -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "low", "high", "stops"),
    [
        ("loss_slope > 0", 0.01, 0.03, True),
        ("loss_slope > 0", -0.01, 0.05, False),
        ("loss_slope > 0", 0.0, 0.04, False),
        ("loss_slope < 0.05", 0.01, 0.03, True),
        ("loss_slope < 0.05", 0.01, 0.06, False),
    ],
)
def test_loss_slope_stops_only_if_its_whole_interval_lies_beyond(
    rule: str, low: float, high: float, stops: bool
) -> None:
    breaches = judged([rule], with_slope("a", 0.02, low, high)).breaches
    assert ("a" in breaches) == stops


# -- too few steps -------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "is_judged"), [(0, False), (7, False), (8, True)])
def test_rule_needs_eight_steps_after_warmup(steps: int, is_judged: bool) -> None:
    sound = make_result("b", {"gradient_norm": 1.0})
    found = judged(
        ["gradient_norm > 5"], make_result("a", {"gradient_norm": 9.0}, judged_steps=steps), sound
    )
    assert ("a" in found.breaches) == is_judged
    assert found.not_judged == (() if is_judged else ("a",))


@pytest.mark.parametrize(("skipped", "is_judged"), [(42, True), (43, False)])
def test_steps_that_were_skipped_are_none_to_judge_by(skipped: int, is_judged: bool) -> None:
    """Not in warm-up either, where what training shows is judged at once."""
    ill = replace(make_result("a", {"gradient_norm": 9.0}), skipped_steps=skipped)
    sound = make_result("b", {"gradient_norm": 1.0})
    found = judged(["gradient_norm > 5"], ill, sound, judges_warmup=True)
    assert ("a" in found.breaches) == is_judged


def test_stage_without_rules_leaves_nobody_unjudged() -> None:
    assert judged([], make_result("a", judged_steps=0)) == Judgement({}, (), ())


# -- divergence ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [[], ["gradient_norm > 5"]])
@pytest.mark.parametrize("judged_steps", [0, 50])
@pytest.mark.parametrize(
    ("divergence", "rule"),
    [
        (Divergence(3, "loss"), "loss is not finite"),
        (Divergence(3, "gradient"), "gradient is not finite"),
        (
            Divergence(3, "loss", "exploded", 2.3125, 0.7),
            "training loss exploded (2.31 against 0.7 untuned)",
        ),
        (
            Divergence(3, "loss", "unreachable", 0.62, 0.48),
            "training loss cannot reach the survivors' (0.62 at best against 0.48)",
        ),
    ],
)
def test_training_that_ended_within_the_stage_always_stops(
    rules: list[str], judged_steps: int, divergence: Divergence, rule: str
) -> None:
    ended = make_result("a", judged_steps=judged_steps, divergence=divergence)
    found = judged(rules, ended, make_result("b", {"gradient_norm": 1.0}))
    assert found.breaches == {"a": Breach(rule, None)}
    assert found.not_judged == ()


def test_divergence_of_all_is_no_floor_and_stops_all() -> None:
    results = [make_result(g, divergence=Divergence(3, "loss")) for g in "ab"]
    found = judged(["auroc < 0.55"], *results)
    assert set(found.breaches) == {"a", "b"}
    assert found.warnings == ()


# -- quality floors ------------------------------------------------------------------------------


def test_floor_stops_those_below_it() -> None:
    found = judged(
        ["auroc < 0.55"], make_result("a", {"auroc": 0.5}), make_result("b", {"auroc": 0.6})
    )
    assert set(found.breaches) == {"a"}
    assert found.warnings == ()


def test_floor_that_would_stop_everyone_stops_nobody_and_warns() -> None:
    results = [make_result(g, {"auroc": 0.5}) for g in "abc"]
    found = judged(["auroc < 0.55"], *results)
    assert found.breaches == {}
    assert len(found.warnings) == 1
    assert "auroc < 0.55" in found.warnings[0]
    assert "too strict" in found.warnings[0]


@pytest.mark.parametrize("rule", ["gradient_norm > 5", "loss_slope > 0", "adapter_bytes > 1"])
def test_rule_of_any_kind_that_would_stop_everyone_stops_nobody_and_warns(rule: str) -> None:
    metrics = {"gradient_norm": 9.0, "loss_slope": 0.02, "adapter_bytes": 2.0}
    results = [make_result(g, metrics, loss_trend=Trend(0.02, 0.01, 0.03)) for g in "ab"]
    ended = make_result("c", divergence=Divergence(3, "loss"))
    young = make_result("d", metrics, judged_steps=7)
    found = judged([rule], *results, ended, young)
    assert set(found.breaches) == {"c"}
    (warning,) = found.warnings
    assert warning.startswith("the rule `")
    assert "too strict for this stage: it would stop every genome, so it stops none" in warning


def test_single_ill_genome_is_stopped() -> None:
    found = judged(["gradient_norm > 5"], make_result("a", {"gradient_norm": 9.0}))
    assert set(found.breaches) == {"a"}
    assert found.warnings == ()


def test_in_runs_of_earlier_versions_only_floors_stop_nobody() -> None:
    metrics = {"gradient_norm": 9.0, "auroc": 0.5}
    stage = make_stages((1, 100, 1), (2, 100, 1))[0]
    rules = ("gradient_norm > 5", "auroc < 0.55")
    stage = replace(stage, stop_when=tuple(parse_rule(rule) for rule in rules))
    found = judge(stage, [make_result(g, metrics) for g in "ab"], revision=1)
    assert {b.rule for b in found.breaches.values()} == {"gradient_norm > 5.0"}
    assert len(found.warnings) == 1


@pytest.mark.parametrize(
    "rules",
    [
        ["gradient_norm > 5", "auroc < 0.55"],
        ["auroc < 0.55", "gradient_norm > 5"],
    ],
)
def test_floor_that_is_waived_excuses_no_other_rule(rules: list[str]) -> None:
    found = judged(
        rules,
        make_result("a", {"auroc": 0.5, "gradient_norm": 9.0}),
        make_result("b", {"auroc": 0.5, "gradient_norm": 1.0}),
    )
    assert {genome: b.rule for genome, b in found.breaches.items()} == {"a": "gradient_norm > 5.0"}


def test_floor_spares_an_unjudged_genome_and_still_stops_the_judged() -> None:
    found = judged(
        ["auroc < 0.55"],
        make_result("a", {"auroc": 0.5}),
        make_result("b", {"auroc": 0.5}, judged_steps=2),
    )
    assert set(found.breaches) == {"a"}
    assert found.not_judged == ("b",)


@pytest.mark.parametrize("text", ["auroc<0.55", "  auroc  <  .55 ", "auroc < 5.5e-1"])
def test_spelling_of_a_rule_does_not_matter(text: str) -> None:
    rule = parse_rule(text)
    assert (rule.metric, rule.comparison) == ("auroc", "<")
    assert math.isclose(rule.threshold, 0.55)
