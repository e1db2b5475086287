"""The parts of `--gpu-check`, each with a verdict of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from coralx.backends.memory_estimate import likely_bytes
from coralx.doctor import check_trials as trials
from coralx.doctor.check_bench import OutOfTime
from coralx.doctor.check_comparisons import (
    CheckFailed,
    Figure,
    Finding,
    NotApplicable,
    compared,
    percent,
    relative_difference,
    require_same_losses,
    shown,
    speed_of,
)
from coralx.doctor.check_trials import CUT, FAST, LONG, PART, WHOLE, Context
from coralx.doctor.recommendation import precision_of
from coralx.errors import ConfigError, CoralXError
from coralx.system.environment import is_installed
from coralx.system.files import manifest_of
from coralx.text import MIB, brief, gib

TOO_LOW, TOO_HIGH, SLACK = 1.25, 2.0, 256 * MIB
"""An estimate of memory is wrong where the peak is so many times as high, or where it is so many
times as high as the peak; `SLACK` is what libraries take for themselves."""

RESUMED = 0.01
"""A stage that was cut ends with the same bytes as one that was not where the GPU repeats itself,
else with a validation loss that differs by no more than this share."""

MOST_SKIPPED = 0.5
"""Of the steps in fp16: the scale begins high on purpose, and is halved until gradients fit."""

SAME_WORDS = 0.5
"""Answers agree that have so much in common: rounding may change a word, and with it the next."""


def precision(context: Context, capability: tuple[int, int] | None) -> Finding:
    """Whether the card trains in the 16-bit format that it computes fast in."""
    trial = trials.label_tokens(context, context.backend)
    result, facts = trial.of(WHOLE), trial.facts
    said = f"{facts.precision}, {facts.precision_reason}"
    if result.skipped_steps:
        said += f"; {result.skipped_steps} of {result.steps} steps skipped while losses were scaled"
    if not facts.device.startswith("cuda"):
        raise NotApplicable(f"trained on the {facts.device.upper()} in {said}")
    is_chosen = context.subject.label_tokens.training.precision == "auto"
    if is_chosen and capability is not None and "overflow" not in facts.precision_reason:
        expected = precision_of(capability)
        if facts.precision != expected:
            card = ".".join(map(str, capability))
            raise CheckFailed(f"{said}; expected {expected} on a card of compute capability {card}")
    if result.skipped_steps > MOST_SKIPPED * result.steps:
        raise CheckFailed(f"{said}; expected fewer")
    return Finding(said, {"precision": facts.precision})


def short_text_losses(context: Context) -> Finding:
    """Whether the tested backend trains on short texts as the reference does."""
    return compared(context, trials.label_tokens)


def long_text_losses(context: Context) -> Finding:
    """The same on texts long enough for activations to be offloaded, and a loss without logits."""
    return compared(context, trials.long_texts)


def answers(context: Context) -> Finding:
    """Whether a base answers prompts under an adapter on some of its layers."""
    given = _answers(context, context.backend)
    if context.obstacle:
        return Finding(f"{context.backend} generated {len(given)}")
    expected = _answers(context, context.reference)
    by = f"{context.tested} and {context.reference}"
    if given == expected:
        return Finding(f"{by} generated the same {len(given)}")
    for ours, theirs in zip(given, expected, strict=True):
        if SequenceMatcher(None, ours.split(), theirs.split()).ratio() < SAME_WORDS:
            raise CheckFailed(
                f"{context.tested} answered {brief(ours)}; expected {brief(theirs)}, as with "
                f"{context.reference}"
            )
    return Finding(f"{by} generated almost the same {len(given)}, as far as rounding allows")


def resumed(context: Context) -> Finding:
    """Whether a genome that was cut, between two stages and inside one, ends as if it were not."""
    trial = trials.long_texts(context, context.backend)
    whole, _, rest, again = trial.each(CUT, jobs=4)
    cuts = (("rest", rest, "between two stages"), ("again", again, "inside a stage"))
    differing = [
        (result, where)
        for name, result, where in cuts
        if _adapter_digest(context, name) != _adapter_digest(context, "whole")
    ]
    for result, where in differing:
        difference = relative_difference(result, whole, "eval_loss")
        if difference is None or difference > RESUMED:
            raise CheckFailed(
                f"cut {where}, the validation loss is {shown(result, 'eval_loss')}; expected "
                f"{shown(whole, 'eval_loss')} as without a cut"
            )
    how = f"the same loss within {percent(RESUMED)}, though not" if differing else "ends with"
    return Finding(
        f"{how} the same bytes as without a cut", {"same_bytes": "no" if differing else "yes"}
    )


def memory(context: Context) -> Finding:
    """Whether the estimate by which genomes are refused and warned of is near the peak."""
    trial = trials.long_texts(context, context.backend)
    result, footprint = trial.of(WHOLE), trial.facts.footprint
    if result.peak_bytes is None or footprint is None:
        raise NotApplicable("only a CUDA GPU's allocator tells its peak")
    if result.micro_batch is not None:
        raise NotApplicable(f"memory ran out, and {result.micro_batch} rows were trained at a time")
    sft = context.subject.sft
    genes = replace(trials.GENES, batch_size=sft.training.batch_size)
    estimate = likely_bytes(footprint, genes, sft.model.max_length)
    peak = result.peak_bytes
    said = f"peak {gib(peak)}, estimated {gib(estimate)}"
    if peak > TOO_LOW * estimate + SLACK:
        raise CheckFailed(f"{said}: too little, so genomes are let through that do not fit")
    if estimate > TOO_HIGH * peak + SLACK:
        raise CheckFailed(f"{said}: too much, so genomes are refused that fit")
    return Finding(said, {"peak_bytes": float(peak), "estimate_bytes": float(estimate)})


def checkpointing(context: Context) -> Finding:
    """Tokens per second with gradient checkpointing and without it, at equal losses."""
    on = trials.speed(context, checkpointing=True).of(FAST)
    with_it = speed_of(on)
    try:
        off = trials.speed(context, checkpointing=False).of(FAST)
    except CoralXError as error:
        said = f"on {with_it:,.0f} tokens/s; off {error.message}"
        return Finding(said, {"on": with_it})
    require_same_losses(on, "with checkpointing", off, "without checkpointing")
    said = f"on {with_it:,.0f} tokens/s, off {speed_of(off):,.0f}"
    figures: dict[str, Figure] = {"on": with_it, "off": speed_of(off)}
    if off.peak_bytes is not None:
        figures["off_peak_bytes"] = float(off.peak_bytes)
    if off.micro_batch is not None:
        figures["off_rows"] = float(off.micro_batch)
        said += f" ({off.micro_batch} rows at a time, as memory ran out)"
    return Finding(said, figures)


def workers(context: Context) -> Finding:
    """Tokens per second of several workers on one card, together."""
    recomputes = _is_faster_with_checkpointing(context)
    alone = trials.speed(context, checkpointing=recomputes).of(FAST)
    figures: dict[str, Figure] = {"1": speed_of(alone)}
    said = [f"1 worker {speed_of(alone):,.0f} tokens/s"]
    for number in context.scale.workers:
        if number == 1:
            continue
        try:
            each = trials.speed(context, checkpointing=recomputes, workers=number).each(
                FAST, number
            )
        except (CoralXError, OutOfTime) as error:
            said.append(f"{number} {getattr(error, 'message', 'not reached')}")
            break
        if any(result.micro_batch is not None for result in each):
            said.append(f"{number} run out of memory")
            break
        for result in each:
            require_same_losses(alone, "alone", result, f"as one of {number} workers")
        together = sum(map(speed_of, each))
        figures[str(number)] = together
        said.append(f"{number} together {together:,.0f}")
    return Finding(", ".join(said), figures)


def block_compile(context: Context) -> Finding:
    """Tokens per second with Unsloth's layers compiled, and after how many steps of an adapter the
    time that compiling takes is made up for."""
    if context.subject.backend != "unsloth":
        raise NotApplicable(f"it is Unsloth's, and {context.subject.backend} trains this")
    recomputes = _is_faster_with_checkpointing(context)
    off = trials.speed(context, checkpointing=recomputes).of(FAST)
    trial = trials.speed(context, checkpointing=recomputes, block_compile=True)
    on, longer = trial.of(FAST), trial.of(LONG)
    require_same_losses(off, "without block compile", on, "with block compile")
    seconds = longer.train_seconds - on.train_seconds
    steps = longer.steps - on.steps
    if seconds <= 0 or steps <= 0:
        return Finding("compiling took too unequal times to tell what is gained")
    compiling = max(0.0, on.train_seconds - on.steps * seconds / steps)
    speed = (longer.trained_tokens - on.trained_tokens) / seconds
    figures: dict[str, Figure] = {"on": speed, "off": speed_of(off), "compile_seconds": compiling}
    said = f"on {speed:,.0f} tokens/s once an adapter is compiled, in {compiling:.0f} s"
    gained = off.train_seconds / off.steps - seconds / steps
    if gained > 0:
        figures["pays_after_steps"] = compiling / gained
        said += f", which pays after {compiling / gained:,.0f} steps"
    return Finding(f"{said}; off {speed_of(off):,.0f}", figures)


def four_bit(context: Context) -> Finding:
    """Whether a base stored in 4 bits is trained as the reference does."""
    stored = context.subject.sft.runtime.quantization
    if stored != "none":
        raise NotApplicable(f"the config stores the base in {stored}, so all parts train it so")
    if not is_installed("bitsandbytes"):
        raise NotApplicable("bitsandbytes is not installed")
    try:
        return compared(context, trials.in_4_bits)
    except ConfigError as error:
        raise NotApplicable("; ".join(error.problems)) from None


def _is_faster_with_checkpointing(context: Context) -> bool:
    """Whether a genome trains faster with gradient checkpointing than without, as seen."""
    try:
        off = trials.speed(context, checkpointing=False).of(FAST)
    except CoralXError:
        return True
    on = trials.speed(context, checkpointing=True).of(FAST)
    return off.micro_batch is not None or speed_of(off) < speed_of(on)


def _answers(context: Context, backend: str) -> Sequence[str]:
    """What a backend answered. Raises CheckFailed where it said nothing."""
    trials.long_texts(context, backend).of(PART)
    lines = context.answers(backend).read_text(encoding="utf-8").splitlines()
    given = [str(json.loads(line)["answer"]) for line in lines]
    if not any(given):
        raise CheckFailed(f"{backend} generated empty answers")
    return given


def _adapter_digest(context: Context, name: str) -> str:
    """The digest of the adapter's weights in a checkpoint, from its manifest."""
    return manifest_of(context.checkpoint(name))["adapter_model.safetensors"]
