"""What a stage's figures told of what came later, in words, and what was done about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import Any

from coralx.engine.state import RunState
from coralx.records.events import StageDecided
from coralx.records.verdicts import Promote, Replace
from coralx.report.rung_figures import FEWEST_PAIRS, observed
from coralx.schedule.stages import Stage
from coralx.text import counted

WORDS = ((0.1, "told nothing"), (0.3, "told little"), (0.6, "told something"))
"""What a rank agreement below each bound is called; above all of them a stage ranked well."""

VAGUE = 1.0
"""An interval as wide as this is mentioned along with what it is of."""

HARDLY = 0.3
"""A stage without agreement misleads where no agreement above this is likely."""


ADAPTIVE_RUNGS = (
    "rungs are adaptive: a control group goes on beside the best, later generations are smaller or "
    "larger, and the total stays about the same"
)
"""What a plan says that reckons with the configured survival rates."""


def sentence(known: Mapping[str, Any], stage: str) -> str:
    """How well a stage ranked: `S1 told little here: its better half held 3 of the 5 best`."""
    word = next((word for bound, word in WORDS if known["agreement"] < bound), "ranked well")
    if known["high"] < 0:
        word = "misled"
    if known["high"] - known["low"] > VAGUE:
        stage = f"As far as {counted(known['pairs'], 'finisher')} can tell, {stage}"
    whose = "its better half" if known["controls"] else "the better half of those it let go on"
    held = (
        f": {whose} held {known['best_held']} of the {known['best']} best" if known["best"] else ""
    )
    return f"{stage} {word} here{held}"


def decision_line(state: RunState, event: StageDecided) -> str | None:
    """What is known of a stage as it decides, and what it did about it; None where too little is
    known, and where the stage is not to cut anyone."""
    stage = next(stage for stage in state.stages if stage.name == event.stage)
    so_far = state.history.decisions[event.generation, event.stage]
    if stage.is_last or stage.survival_rate == 1 or len(so_far.verdicts) > len(event.verdicts):
        return None  # under asynchronous promotion a stage decides time and again
    known = asdict(event.reliability or observed(state, stage))
    if not _is_known(known):
        return None
    return sentence(known, stage.name) + _done(stage, event)


def _is_known(known: Mapping[str, Any]) -> bool:
    return known["agreement"] is not None and known["pairs"] >= FEWEST_PAIRS


def _done(stage: Stage, event: StageDecided) -> str:
    """`, so 6 of 8 went on instead of 4`, where rungs adapt."""
    if event.reliability is None:
        return ""
    entered, done = len(event.verdicts), ""
    planned = stage.quota(entered)
    going_on = sum(isinstance(verdict, Promote | Replace) for verdict in event.verdicts)
    adapts = Fraction(event.reliability.survival_rate) != stage.survival_rate
    if adapts and going_on != planned:  # a control may go on in addition, whatever the rate
        done = f", so {going_on} of {entered} went on instead of {planned}"
    by = event.reliability.ranked_by
    return done if by in ("objectives", "nothing", stage.promote_by) else f"{done}; ranked by {by}"


def rung_lines(report: Mapping[str, Any]) -> list[str]:
    """A line for each stage of which enough is known and that cut, or was to."""
    return [
        f"{sentence(rung, rung['stage'])} ({_basis(rung)}).{_cuts(rung)}"
        for rung in report["rungs"]
        if _is_known(rung) and _cuts_some(rung)
    ]


def _cuts_some(rung: Mapping[str, Any]) -> bool:
    return bool(rung["controls"] or any(rate < 1 for rate in rung["survival_rate"]))


def _basis(rung: Mapping[str, Any]) -> str:
    """What the sentence rests on."""
    controls = f", {rung['controls']} of them controls" if rung["controls"] else ""
    return (
        f"{counted(rung['pairs'], 'finisher')}{controls}; rank agreement {rung['agreement']:.2f}, "
        f"95 % {rung['low']:.2f} to {rung['high']:.2f}"
    )


def _cuts(rung: Mapping[str, Any]) -> str:
    """The survival rates, where they changed."""
    rates = [f"{100 * rate:.0f}" for rate in rung["survival_rate"]]
    beside = ", and the controls" if rung["controls"] else ""
    changed = f" Of each generation the best {' '.join(rates)} % went on{beside}."
    return changed if len(set(rates)) > 1 else ""


def misleading_warnings(rungs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of fixed rungs that told nothing of what came later: their cuts may have dropped the best."""
    return [
        f"the cut of {rung['stage']} may have dropped the best: among those that finished it "
        f"{'ranked against' if rung['high'] < 0 else 'told nothing of'} what came later (rank "
        f"agreement {rung['agreement']:.2f}). With `hyperband_config.rungs: adaptive` stages cut "
        "by how well they rank."
        for rung in rungs
        if _is_known(rung)
        and not rung["controls"]
        and rung["agreement"] < 0
        and rung["high"] < HARDLY
        and _cuts_some(rung)
    ]
