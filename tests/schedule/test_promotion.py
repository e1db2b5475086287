"""Successive halving: who goes on from a stage."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coralx.records.results import Divergence
from coralx.records.verdicts import Cut, Fail, Finish, Promote, Stop, Verdict
from coralx.schedule.promotion import decide
from coralx.schedule.stop_rules import Breach
from tests.support.factories import make_result, make_stages

STAGES = make_stages((1, 10, 0.5), (1, 100, 0.1))
FIRST, LAST = STAGES


def verdicts_for(
    sound: str, *, stopped: str = "", failed: str = "", stage: int = 0
) -> tuple[Verdict, ...]:
    """Verdicts of a stage; `sound` lists the genomes that no rule took out, the best first."""
    breaches = {genome: Breach("gradient_norm > 5", 9.0) for genome in stopped}
    results = [make_result(genome) for genome in sorted(sound + stopped)]
    return decide(STAGES[stage], results, list(sound), breaches, dict.fromkeys(failed, "died"))


def of_kind(verdicts: tuple[Verdict, ...], kind: type) -> list[str]:
    return [verdict.genome for verdict in verdicts if isinstance(verdict, kind)]


@pytest.mark.parametrize(
    ("sound", "stopped", "failed", "promoted"),
    [
        ("dcba", "", "", "dc"),
        ("cba", "", "", "c"),  # floor(1.5)
        ("a", "", "", "a"),  # at least one
        ("ba", "cd", "", "ba"),  # the stopped entered: quota 2
        ("cba", "", "defgh", "cba"),  # the failed entered: quota 4
        ("edcba", "", "f", "edc"),
        ("", "abcd", "", ""),  # possibly none
        ("", "", "ab", ""),
    ],
)
def test_quota_counts_all_who_entered_and_the_best_go_on(
    sound: str, stopped: str, failed: str, promoted: str
) -> None:
    verdicts = verdicts_for(sound, stopped=stopped, failed=failed)
    assert of_kind(verdicts, Promote) == list(promoted)
    assert of_kind(verdicts, Cut) == list(sound[len(promoted) :])
    assert of_kind(verdicts, Stop) == list(stopped)
    assert of_kind(verdicts, Fail) == list(failed)


def test_last_stage_finishes_everybody_sound() -> None:
    verdicts = verdicts_for("cba", stopped="d", failed="e", stage=1)
    assert of_kind(verdicts, Finish) == ["c", "b", "a"]
    assert of_kind(verdicts, Promote) == of_kind(verdicts, Cut) == []
    assert of_kind(verdicts, Stop) == ["d"]
    assert of_kind(verdicts, Fail) == ["e"]


def test_cut_tells_place_and_quota() -> None:
    cuts = [verdict for verdict in verdicts_for("cbad") if isinstance(verdict, Cut)]
    assert cuts == [Cut("a", place=3, quota=2), Cut("d", place=4, quota=2)]


def test_stop_tells_the_step_at_which_training_ended() -> None:
    results = [
        make_result("a", last_step=50, divergence=Divergence(17, "loss")),
        make_result("b", last_step=50),
    ]
    breaches = {"a": Breach("loss is not finite", None), "b": Breach("gradient_norm > 5", 9.0)}
    assert decide(FIRST, results, [], breaches, {}) == (
        Stop("a", "loss is not finite", None, 17),
        Stop("b", "gradient_norm > 5", 9.0, 50),
    )


def test_failure_keeps_its_reason() -> None:
    assert Fail("z", "died") in verdicts_for("ab", failed="z")


@given(st.permutations("abcdefgh"), st.integers(0, 8), st.integers(0, 4), st.integers(1, 100))
@settings(max_examples=80, deadline=None)
def test_every_genome_gets_one_verdict_whatever_the_order_of_completion(
    completed: list[str], sound: int, failures: int, percent: int
) -> None:
    stage = make_stages((1, 10, percent / 100), (1, 100, 1))[0]
    best_first = sorted(completed)[:sound]
    breaches = {genome: Breach("f1 < 0.1", 0.0) for genome in completed if genome not in best_first}
    failed = {f"z{number}": "died" for number in range(failures)}
    results = [make_result(genome) for genome in completed]
    verdicts = decide(stage, results, best_first, breaches, failed)
    assert sorted(v.genome for v in verdicts) == sorted([*completed, *failed])
    going_on = of_kind(verdicts, Promote)
    quota = max(1, percent * (8 + failures) // 100)
    assert going_on == best_first[:quota]
    assert verdicts == decide(stage, sorted(results, key=repr), best_first, breaches, failed)
