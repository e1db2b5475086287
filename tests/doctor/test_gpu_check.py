"""`coralx doctor --gpu-check`: each part's verdict, on made-up trials and for real on the CPU."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest

from coralx.cli import doctor as cli
from coralx.cli.common import with_settings
from coralx.config import Config, load_config, parse_config
from coralx.config.runtime import Runtime
from coralx.doctor import check_parts as parts
from coralx.doctor import check_subject, gpu_check
from coralx.doctor import check_trials as trials
from coralx.doctor.check_bench import Bench, OutOfTime, Trial
from coralx.doctor.check_comparisons import CheckFailed, Finding, NotApplicable
from coralx.doctor.check_output import WIDTH, gpu_check_json, lines_of
from coralx.doctor.check_subject import Scale, Subject, subject_of
from coralx.doctor.check_trials import Context
from coralx.doctor.gpu_check import GpuCheck, Part, PartResult, check_gpu, planned, without_places
from coralx.doctor.recommendation import (
    best_number,
    one_line,
    recommended,
    settings_yaml,
    with_precision,
    with_way_made,
)
from coralx.errors import SetupError
from coralx.records.jobs import JobFailed
from coralx.records.results import Divergence, StageResult
from coralx.records.run_facts import Facts, Footprint
from tests.support.command import Said
from tests.support.factories import make_config, make_facts, make_result
from tests.support.forks import forked_workers
from tests.support.gpus import GIB, fake_gpus

FIGURES = {"train_loss": 1.0, "eval_loss": 1.2, "gradient_norm": 0.5}
ON, OFF = (
    f"speed, {{'gradient_checkpointing': {on}, 'block_compile': False}}, 1" for on in (True, False)
)
COMPILED = "speed, {'gradient_checkpointing': False, 'block_compile': True}, 1"
BASE = Footprint(
    base_parameters=GIB,
    base_bytes=2 * GIB,
    hidden_size=512,
    intermediate_size=1408,
    layers=8,
    linear=(("layers.0.q_proj", 512, 512),),
    activation_bytes=2,
    checkpointing=True,
)


@pytest.fixture(autouse=True)
def here(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake_gpus(monkeypatch)
    return here


@pytest.fixture
def context(here: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A check of which nothing has been trained; Unsloth is said to be there."""
    monkeypatch.setattr(trials, "require_available", lambda *_: None)
    config = make_config(model={"base": "some/base", "task": "label-tokens"})
    subject = Subject("some/base", config, config, config, "unsloth")
    return Context(Bench(print, time.monotonic() + 100.0), subject, Scale(), here)


def on_gpu(precision: str = "bf16", reason: str = "the GPU computes in bf16") -> Facts:
    facts = replace(make_facts(), device="cuda", footprint=BASE)
    return replace(facts, precision=precision, precision_reason=reason)


def trained(genome: str, speed: float = 1000.0, **changed: Any) -> StageResult:
    """A genome's result at so many tokens a second."""
    figures = {**FIGURES, **changed.pop("figures", {})}
    result = make_result(genome, figures)
    return replace(result, train_seconds=2.0, trained_tokens=int(2 * speed), **changed)


def trial(*outcomes: StageResult | JobFailed, facts: Facts | None = None) -> Trial:
    return Trial(facts or on_gpu(), outcomes)


def two(**of_part: Any) -> Trial:
    """Of the genomes on all layers and on attention; the second with other figures."""
    return trial(trained("whole"), trained("part", figures=of_part))


# -- losses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (parts.short_text_losses, "label-tokens"),
        (parts.long_text_losses, "long texts"),
        (parts.four_bit, "4-bit"),
    ],
)
@pytest.mark.parametrize(
    ("figures", "failed"),
    [
        ({"train_loss": 1.04, "eval_loss": 1.17, "gradient_norm": 0.55}, None),
        (
            {"train_loss": 1.07},
            "the training loss is 1.07 with unsloth; expected 1 as with peft, within 5 %",
        ),
        ({"eval_loss": 1.0}, "the validation loss is 1 with unsloth; expected 1.2"),
        (
            {"gradient_norm": 0.7},
            "the gradient's norm is 0.7 with unsloth; expected 0.5 as with peft, within 15 %",
        ),
        ({"eval_loss": None}, "the validation loss is undefined with unsloth"),
        ({"train_loss": float("nan")}, "the training loss is nan with unsloth"),
    ],
)
def test_losses_and_gradients_are_to_be_those_of_peft(
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
    part: Callable[[Context], Finding],
    name: str,
    figures: dict[str, Any],
    failed: str | None,
) -> None:
    monkeypatch.setattr(parts, "is_installed", lambda module: module == "bitsandbytes")
    context.bench.done.update({f"{name}, unsloth": two(**figures), f"{name}, peft": two()})
    if failed is None:
        found = part(context)
        assert found.said == (
            "unsloth's and peft's differ by 3.8 %, gradients by 9.1 %; 1,000 and 1,000 tokens/s"
        )
        assert (found.figures["unsloth"], found.figures["peft"]) == (1000.0, 1000.0)
    else:
        with pytest.raises(CheckFailed) as error:
            part(context)
        assert "with an adapter on some layers" in str(error.value)
        assert failed in str(error.value)


def test_a_genome_that_diverges_or_fails_fails_its_part(context: Context) -> None:
    diverged = replace(trained("whole"), divergence=Divergence(3, "loss"))
    context.bench.done["label-tokens, peft"] = two()
    for outcome, said in (
        (diverged, "at step 3"),
        (JobFailed("whole", "check", "KeyError: 'default'"), "KeyError"),
    ):
        context.bench.done["label-tokens, unsloth"] = trial(outcome, trained("part"))
        (result,) = results(context, Part("losses", 10.0, parts.short_text_losses))
        assert (result.verdict, said in result.said) == ("failed", True)


def test_without_unsloth_peft_alone_is_tried(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise SetupError("the backend unsloth is not installed")

    monkeypatch.setattr(trials, "require_available", missing)
    context.bench.done["long texts, peft"] = two()
    with pytest.raises(NotApplicable, match="unsloth is not installed; peft trains"):
        parts.long_text_losses(context)


@pytest.mark.parametrize("stored", ["4bit", "8bit"])
def test_4_bit_is_no_part_of_its_own_where_the_config_stores_the_base_so(
    context: Context, stored: str
) -> None:
    quantized = make_config(
        model={"base": "some/base", "task": "sft"}, runtime={"quantization": stored}
    )
    context = replace(context, subject=replace(context.subject, sft=quantized))
    with pytest.raises(NotApplicable, match=stored):
        parts.four_bit(context)


# -- precision -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "reason", "capability", "failed"),
    [
        ("bf16", "the GPU computes in bf16", (8, 0), False),
        ("fp16", "the GPU does not compute in bf16", (7, 5), False),
        ("fp32", "the GPU does not compute in bf16", (7, 5), True),
        ("bf16", "the GPU computes in bf16", (7, 5), True),
        ("fp16", "the GPU does not compute in bf16", (9, 0), True),
        ("fp32", "such bases overflow in fp16", (7, 0), False),
        ("bf16", "the GPU computes in bf16", None, False),
    ],
)
def test_precision_is_to_be_the_cards(
    context: Context,
    precision: str,
    reason: str,
    capability: tuple[int, int] | None,
    failed: bool,
) -> None:
    facts = on_gpu(precision, reason)
    context.bench.done["label-tokens, unsloth"] = trial(trained("whole"), facts=facts)
    if failed:
        with pytest.raises(CheckFailed, match="expected"):
            parts.precision(context, capability)
    else:
        assert parts.precision(context, capability).figures == {"precision": precision}


@pytest.mark.parametrize(("skipped", "failed"), [(3, False), (30, True)])
def test_steps_skipped_in_fp16_are_told_and_may_not_be_most(
    context: Context, skipped: int, failed: bool
) -> None:
    facts = on_gpu("fp16", "the GPU does not compute in bf16")
    result = trained("whole", skipped_steps=skipped)  # of 50
    context.bench.done["label-tokens, unsloth"] = trial(result, facts=facts)
    if failed:
        with pytest.raises(CheckFailed, match=r"30 of 50 steps skipped .* expected fewer"):
            parts.precision(context, (7, 5))
    else:
        assert "3 of 50 steps skipped" in parts.precision(context, (7, 5)).said


# -- answers ---------------------------------------------------------------------------------------


def answered(context: Context, backend: str, *answers: str) -> None:
    context.bench.done[f"long texts, {backend}"] = two()
    path = context.answers(backend)
    path.parent.mkdir(parents=True)
    rows = [json.dumps({"prompt": "?", "answer": answer}) for answer in answers]
    path.write_text("\n".join(rows), encoding="utf-8")


@pytest.mark.parametrize(
    ("ours", "failed"),
    [
        (("the coffee was good", "yes"), None),
        (("the coffee was bad", "yes"), None),
        (("the coffee was good", "slow slow slow slow"), "'slow slow slow slow'; expected 'yes'"),
        (("", ""), "empty answers"),
    ],
)
def test_answers_are_to_be_those_of_peft(
    context: Context, ours: tuple[str, ...], failed: str | None
) -> None:
    answered(context, "unsloth", *ours)
    answered(context, "peft", "the coffee was good", "yes")
    if failed is None:
        assert "generated" in parts.answers(context).said
    else:
        with pytest.raises(CheckFailed, match=failed):
            parts.answers(context)


def test_a_crash_while_answering_leaves_the_losses_of_the_other_genome(context: Context) -> None:
    crashed = JobFailed("part", "check", "KeyError: 'genome-part'")
    context.bench.done["long texts, unsloth"] = trial(
        trained("whole"), crashed, *[trained("cut")] * 4
    )
    saved(context, again="a")
    given = results(
        context,
        Part("answers", 10.0, parts.answers),
        Part("cut and resumed", 10.0, parts.resumed),
    )
    assert [(result.verdict, result.said) for result in given] == [
        ("failed", "KeyError: 'genome-part'"),
        ("passed", "ends with the same bytes as without a cut"),
    ]


# -- cut and resumed -------------------------------------------------------------------------------


def saved(context: Context, **digests: str) -> None:
    for name, digest in {"whole": "a", "rest": "a", **digests}.items():
        folder = context.checkpoint(name)
        folder.mkdir(parents=True)
        manifest = json.dumps({"adapter_model.safetensors": digest})
        (folder / "manifest.json").write_text(manifest, encoding="utf-8")


@pytest.mark.parametrize(
    ("digest", "loss", "said"),
    [
        ("a", 1.2, "ends with the same bytes as without a cut"),
        ("b", 1.201, "the same loss within 1 %, though not the same bytes as without a cut"),
        ("b", 1.3, None),
        ("b", None, None),
    ],
)
def test_what_was_cut_is_to_end_like_what_was_not(
    context: Context, digest: str, loss: float | None, said: str | None
) -> None:
    again = trained("cut", figures={"eval_loss": loss})
    outcomes = [*[trained("cut")] * 3, again]
    context.bench.done["long texts, unsloth"] = trial(*outcomes)
    saved(context, again=digest)
    if said is not None:
        assert parts.resumed(context).said == said
    else:
        with pytest.raises(CheckFailed, match="cut inside a stage, the validation loss is"):
            parts.resumed(context)


# -- memory and speed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gigabytes", "failed"), [(2.3, None), (4.0, "too little"), (0.5, "too much")]
)
def test_the_estimate_of_memory_is_to_be_near_the_peak(
    context: Context, gigabytes: float, failed: str | None
) -> None:
    result = trained("whole", peak_bytes=int(gigabytes * GIB))
    context.bench.done["long texts, unsloth"] = trial(result)
    if failed is None:
        assert parts.memory(context).said.startswith("peak 2.3 GiB, estimated 2.")
    else:
        with pytest.raises(CheckFailed, match=failed):
            parts.memory(context)


def test_without_a_peak_or_whole_batches_memory_is_not_judged(context: Context) -> None:
    for changed in ({"peak_bytes": None}, {"peak_bytes": GIB, "micro_batch": 4}):
        context.bench.done["long texts, unsloth"] = trial(trained("whole", **changed))
        with pytest.raises(NotApplicable):
            parts.memory(context)


def speeds(context: Context, **outcomes: StageResult | JobFailed) -> None:
    names = {"on": ON, "off": OFF}
    context.bench.done.update({names[key]: trial(outcome) for key, outcome in outcomes.items()})


def test_checkpointing_is_timed_on_and_off(context: Context) -> None:
    speeds(context, on=trained("fast"), off=trained("fast", 1500.0, peak_bytes=GIB))
    found = parts.checkpointing(context)
    assert found.said == "on 1,000 tokens/s, off 1,500"
    assert found.figures == {"on": 1000.0, "off": 1500.0, "off_peak_bytes": float(GIB)}
    speeds(context, off=trained("fast", 1500.0, micro_batch=4))
    assert parts.checkpointing(context).figures["off_rows"] == 4.0
    speeds(context, off=JobFailed("fast", "check", "out of memory"))
    assert parts.checkpointing(context).said == "on 1,000 tokens/s; off out of memory"


def test_settings_that_change_what_is_learnt_fail(context: Context) -> None:
    other = trained("fast", figures={"train_loss": 2.0})
    speeds(context, on=trained("fast"), off=other)
    with pytest.raises(
        CheckFailed, match="without checkpointing, the training loss is 2; expected"
    ):
        parts.checkpointing(context)
    speeds(context, off=trained("fast", 1100.0))
    context.bench.done[COMPILED] = trial(other, trained("long"))
    with pytest.raises(CheckFailed, match="with block compile, the training loss is 2; expected"):
        parts.block_compile(context)
    context.bench.done[OFF.replace(", 1", ", 2")] = trial(other, other)
    with pytest.raises(CheckFailed, match="as one of 2 workers, the training loss is 2; expected"):
        parts.workers(context)


def test_what_counts_no_tokens_has_no_speed(context: Context) -> None:
    speeds(context, on=trained("fast", 0.0), off=trained("fast"))
    with pytest.raises(CheckFailed, match="no tokens"):
        parts.checkpointing(context)


def test_workers_are_timed_together_until_one_number_is_too_many(context: Context) -> None:
    speeds(context, on=trained("fast"), off=trained("fast", 1100.0))
    context.bench.done[OFF.replace(", 1", ", 2")] = trial(*[trained("fast", 900.0)] * 2)
    context.bench.done[OFF.replace(", 1", ", 4")] = trial(*[trained("fast", 10.0)] * 3)
    found = parts.workers(context)
    assert found.said == "1 worker 1,100 tokens/s, 2 together 1,800, 4 not reached"
    assert found.figures == {"1": 1100.0, "2": 1800.0}
    short = trained("fast", micro_batch=2)
    context.bench.done[OFF.replace(", 1", ", 2")] = trial(short, short)
    assert parts.workers(context).said == "1 worker 1,100 tokens/s, 2 run out of memory"


def test_block_compile_is_timed_apart_from_its_compiling(context: Context) -> None:
    """50 steps in 2 s without; with it 30 s of compiling, then 50 in 1 s: 0.02 s a step gained."""
    speeds(context, on=trained("fast"), off=trained("fast", 1100.0))
    on = replace(trained("fast"), train_seconds=31.0, trained_tokens=2000)
    longer = replace(on, genome="long", last_step=100, train_seconds=32.0, trained_tokens=4000)
    context.bench.done[COMPILED] = trial(on, longer)
    found = parts.block_compile(context)
    assert found.figures == {
        "on": 2000.0,
        "off": 1100.0,
        "compile_seconds": pytest.approx(30.0),
        "pays_after_steps": pytest.approx(1500.0),
    }
    assert found.said == (
        "on 2,000 tokens/s once an adapter is compiled, in 30 s, which pays after 1,500 steps; "
        "off 1,100"
    )
    context.bench.done[COMPILED] = trial(on, replace(longer, train_seconds=30.0))
    assert parts.block_compile(context).figures == {}
    context = replace(context, subject=replace(context.subject, backend="peft"))
    with pytest.raises(NotApplicable, match="peft trains"):
        parts.block_compile(context)


# -- the whole -------------------------------------------------------------------------------------


def results(context: Context, *plan: Part) -> list[PartResult]:
    from coralx.doctor.gpu_check import _results

    return list(_results(plan, context, lambda result: None))  # noqa: ARG005


def test_what_goes_wrong_in_one_part_does_not_end_the_others(context: Context) -> None:
    def raising(error: Exception) -> Callable[[Context], Finding]:
        def look(_: Context) -> Finding:
            raise error

        return look

    given = results(
        context,
        Part("a", 10.0, raising(ZeroDivisionError("in a\nlibrary"))),
        Part("b", 10.0, raising(OutOfTime())),
        Part("c", 10.0, raising(NotApplicable("no reason to"))),
        Part("d", 10.0, raising(SetupError("no file /home/ann/base/weights.bin\nin it"))),
        Part("e", 10.0, lambda _: Finding("well", {"on": 1.0})),
    )
    assert [(result.verdict, result.said) for result in given] == [
        ("failed", "ZeroDivisionError: in a library"),
        ("not reached", "its 10 s, or the whole check's time, were over"),
        ("not applicable", "no reason to"),
        ("failed", "no file [path] in it"),
        ("passed", "well"),
    ]


def test_a_check_whose_time_is_over_trains_nothing(specimen: Path) -> None:
    check = check_gpu(
        specimen_config(specimen),
        print,
        print,
        until=time.monotonic() - 1.0,
    )
    verdicts = {part.name: part.verdict for part in check.parts}
    assert set(verdicts.values()) <= {"not reached", "not applicable"}
    assert verdicts["losses of short texts"] == "not reached"
    assert (check.failed, check.recommended) == ((), {})


def test_a_part_ends_at_its_limit_and_its_workers_with_it(specimen: Path) -> None:
    config, until = specimen_config(specimen), time.monotonic() + 100.0
    context = Context(
        Bench(print, until), Subject("", config, config, config, "peft"), SMALL, specimen, "peft"
    )
    with forked_workers():
        (result,) = results(context, Part("precision", 0.05, parts.short_text_losses))
    assert (result.verdict, result.said) == (
        "not reached",
        "its 0 s, or the whole check's time, were over",
    )
    assert not psutil.Process().children()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no file /home/ann/base.bin here", "no file [path] here"),
        ("in /usr/lib/python3/site-packages/peft/model.py, line 3", "in model.py, line 3"),
        (r"in C:\Users\ann\base", "in [path]"),
        ("on gpu-box-7: 12 tokens/s, q/k/v", "on [host]: 12 tokens/s, q/k/v"),
        ("org/base and 1/2", "org/base and 1/2"),
        ("in ~/private/base", "in [path]"),
        ("in '/home/ann lee/my base/model'", "in '[path]'"),
    ],
)
def test_paths_and_hosts_are_left_out(
    text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "gpu-box-7")
    monkeypatch.setenv("HOME", "/home/ann lee")
    assert without_places(text) == shown


def made_up(*given: PartResult, **changed: Any) -> GpuCheck:
    check = GpuCheck(
        card="NVIDIA T4",
        memory_bytes=15 * GIB,
        capability=(7, 5),
        driver="570.1",
        cuda="12.8",
        versions={"coralx": "1.0", "python": "3.12.1", "torch": "2.13.0", "numpy": "2.0"},
        base="HuggingFaceTB/SmolLM2-135M",
        parts=given,
        recommended={"runtime": {"workers_per_gpu": 2, "gradient_checkpointing": False}},
    )
    return replace(check, **changed)


LONG = "with an adapter on all layers, the training loss is 2 with unsloth; expected another " * 3


def test_the_result_is_plain_text_of_few_columns() -> None:
    check = made_up(
        PartResult("answers", "passed", "unsloth and peft generated the same 2", 10.0),
        PartResult("losses of long texts", "failed", LONG, 20.0),
        PartResult("4-bit", "not applicable", "bitsandbytes is not installed", 0.0),
        PartResult("block compile", "not reached", "its 150 s were over", 0.0),
    )
    lines = list(lines_of(check))
    assert max(map(len, lines)) <= WIDTH
    assert (lines[0], lines[-1]) == ("```", "```")  # Markdown shows what lies between as it is
    text = "\n".join(lines)
    card = "NVIDIA T4, 15.0 GiB, compute capability 7.5, driver 570.1, torch for CUDA 12.8"
    assert card in " ".join(text.split())
    assert "coralx 1.0, python 3.12.1, torch 2.13.0" in text
    assert "numpy" not in text
    assert "\npassed      answers: unsloth and peft generated the same 2\n" in text
    assert "\nFAILED      losses of long texts: with an adapter" in text
    assert "\nn/a         4-bit: bitsandbytes is not installed\n" in text
    assert "\nnot reached block compile: its 150 s were over\n" in text
    assert "4 parts: 1 passed, 1 failed, 1 not applicable, 1 not reached, in 0.5 minutes" in text
    assert "recommended workers_per_gpu: 2, gradient_checkpointing: false\n" in text
    shown = gpu_check_json(check)
    assert (shown["passed"], shown["parts"][1]["verdict"]) == (False, "failed")
    json.dumps(shown)


# -- recommendations -------------------------------------------------------------------------------

SEEN = {
    "losses of long texts": {"unsloth": 2000.0, "peft": 1000.0},
    "checkpointing": {"on": 1000.0, "off": 1300.0, "off_peak_bytes": 4.0 * GIB},
    "workers": {"1": 1300.0, "2": 2000.0, "4": 2050.0},
    "block compile": {"on": 1350.0, "off": 1300.0},
}


def settings(
    seen: dict[str, Any] | None = None, failed: tuple[str, ...] = (), backend: str = "unsloth"
) -> dict[str, Any]:
    figures = {**SEEN, **(seen or {})}
    kept = {name: of_part for name, of_part in figures.items() if of_part is not None}
    found = recommended(
        kept, backend=backend, reference="peft", failed=set(failed), memory_bytes=15 * GIB
    )
    return dict(found.get("runtime", {}))


def test_what_was_fastest_is_recommended() -> None:
    assert settings() == {
        "backend": "unsloth",
        "gradient_checkpointing": False,
        "block_compile": False,
        "workers_per_gpu": 2,
    }
    for on, pays_after, expected in (
        (1500.0, 100.0, True),
        (1500.0, 1000.0, False),
        (1500.0, None, False),
        (1350.0, 10.0, False),
    ):
        compiled = {"on": on, "off": 1300.0, "pays_after_steps": pays_after}
        assert settings({"block compile": compiled})["block_compile"] is expected


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({"on": 1000.0, "off": 1300.0, "off_peak_bytes": 14.0 * GIB}, "auto"),
        ({"on": 1000.0, "off": 1300.0}, "auto"),
        ({"on": 1000.0, "off": 1010.0, "off_peak_bytes": 4.0 * GIB}, "auto"),
        ({"on": 1000.0, "off": 1300.0, "off_rows": 2.0, "off_peak_bytes": 4.0 * GIB}, True),
        ({"on": 1000.0}, True),
    ],
)
def test_checkpointing_is_recommended_by_speed_and_room(
    seen: dict[str, float], expected: bool | str
) -> None:
    assert settings({"checkpointing": seen})["gradient_checkpointing"] == expected


def test_a_backend_that_failed_or_is_slower_is_not_recommended() -> None:
    assert settings(failed=("answers",)) == {"backend": "peft"}
    slower = {"losses of long texts": {"unsloth": 900.0, "peft": 1000.0}}
    assert settings(slower) == {"backend": "peft"}


@pytest.mark.parametrize(
    ("configured", "capability", "said"),
    [
        ("auto", (7, 5), None),
        ("fp16", (7, 5), None),
        ("fp32", (7, 5), "auto"),
        ("fp32", (8, 9), "auto"),
        ("fp16", (8, 9), "auto"),
        ("bf16", (8, 9), None),
        ("fp32", None, None),
    ],
)
def test_a_precision_in_which_the_card_is_slow_is_left_to_it(
    configured: str, capability: tuple[int, int] | None, said: str | None
) -> None:
    found = with_precision({"runtime": {"workers_per_gpu": 2}}, configured, capability)
    assert found["runtime"] == {"workers_per_gpu": 2}
    assert found.get("training", {}).get("precision") == said


@pytest.mark.parametrize(
    ("configured", "found", "added"),
    [
        ("{workers: 2}", {"workers_per_gpu": 2}, {"workers": "auto"}),
        ("{workers: 4}", {"workers_per_gpu": 1}, {"workers": "auto"}),
        ("{executor: in-process}", {"workers_per_gpu": 2}, {"executor": "auto"}),
        ("{executor: in-process}", {"block_compile": True}, {"executor": "auto"}),
        ("{executor: in-process}", {"workers_per_gpu": 1}, {}),
        ("{block_compile: true}", {"backend": "peft"}, {"block_compile": False}),
        ("{block_compile: true}", {"backend": "unsloth"}, {}),
        ("{workers: 2}", {}, {}),
    ],
)
def test_what_is_recommended_goes_with_the_config(
    here: Path, configured: str, found: dict[str, Any], added: dict[str, Any]
) -> None:
    (here / "c.yaml").write_text(f"runtime: {configured}\n", encoding="utf-8")
    settings = with_way_made(
        {"runtime": found} if found else {}, load_config(here / "c.yaml").runtime
    )
    assert settings.get("runtime", {}) == {**found, **added}
    (here / "s.yaml").write_text(settings_yaml(settings, "For a test", "s.yaml"), encoding="utf-8")
    changed = load_config(here / "c.yaml", with_settings(here / "s.yaml", None)).runtime
    assert changed.model_dump(include=set(found)) == found


def test_nothing_is_said_of_what_was_not_seen() -> None:
    assert settings(dict.fromkeys(SEEN)) == {}
    assert "backend" not in settings(backend="peft")
    assert one_line({}) == "nothing beyond the defaults"


@pytest.mark.parametrize(
    ("speeds", "best"),
    [
        ({"1": 100.0, "2": 150.0, "4": 300.0}, 4),
        ({"1": 100.0, "2": 104.0}, 1),
        ({"1": 100.0, "2": 90.0, "4": 120.0}, 4),
        ({"1": 100.0}, None),
        ({}, None),
    ],
)
def test_more_workers_are_recommended_where_they_pay(
    speeds: dict[str, float], best: int | None
) -> None:
    assert best_number(speeds) == best


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def doctor(command: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """`coralx doctor --gpu-check` on a machine that has a GPU, of a check that fails nothing."""
    monkeypatch.setattr(cli, "require_gpu", lambda: None)
    monkeypatch.setattr(cli, "check_gpu", lambda *_, **__: made_up(PASSED))
    return partial(command, "doctor", "--gpu-check")


PASSED = PartResult("answers", "passed", "unsloth and peft generated the same 2", 10.0)


def test_the_command_shows_the_result_and_writes_settings_that_a_run_can_use(
    doctor: Callable[..., Said], command: Any, here: Path
) -> None:
    said = doctor("--write", "settings.yaml")
    assert said.code == 0
    assert "passed      answers" in said.out
    assert "coralx evolve CONFIG --settings settings.yaml" in said.out
    written = (here / "settings.yaml").read_text(encoding="utf-8")
    assert "on NVIDIA T4" in written
    (here / "c.yaml").write_text("runtime: {workers_per_gpu: 1, devices: [0]}\n", encoding="utf-8")
    settings = with_settings(here / "settings.yaml", None)
    assert settings == ["runtime.workers_per_gpu=2", "runtime.gradient_checkpointing=false"]
    config = load_config(here / "c.yaml", settings)
    assert (config.runtime.workers_per_gpu, config.runtime.devices) == (2, (0,))
    said = command("validate", "c.yaml", "--settings", "settings.yaml")
    assert said.code == 0, said.err
    said = command("validate", "c.yaml", "--settings", "settings.yaml", "--set", "runtime.tusk=1")
    assert (said.code, "tusk" in said.err) == (2, True)
    for arguments in (("evolve", "c.yaml"), ("stage", "c.yaml", "S0"), ("simulate", "c.yaml")):
        said = command(*arguments, "--settings", "nowhere.yaml")
        assert (said.code, "nowhere.yaml" in said.err) == (2, True)


def test_settings_take_the_place_of_whole_keys_and_leave_the_others(here: Path) -> None:
    config = (
        "runtime: {workers: 2, keep_checkpoints: all}\n"
        "search_space: {rank: {choices: [4, 8]}, dropout: {low: 0.0, high: 0.1}}\n"
    )
    (here / "c.yaml").write_text(config, encoding="utf-8")
    settings = "runtime: {}\nsearch_space: {dropout: {choices: [0.0]}}\n"
    (here / "settings.yaml").write_text(settings, encoding="utf-8")
    overrides = with_settings(here / "settings.yaml", ["runtime.workers=3"])
    assert overrides == ['search_space.dropout={"choices": [0.0]}', "runtime.workers=3"]
    found = load_config(here / "c.yaml", overrides)
    assert (found.runtime.workers, found.runtime.keep_checkpoints) == (3, "all")


def test_a_file_of_settings_is_not_overwritten_and_no_check_is_made_in_vain(
    doctor: Callable[..., Said], command: Any, here: Path
) -> None:
    (here / "mine.yaml").write_text("runtime: {}\n", encoding="utf-8")
    for name, reason in (("mine.yaml", "not overwritten"), ("no/s.yaml", "no such folder")):
        said = doctor("--write", name)
        assert (said.code, reason in said.err, said.out) == (2, True, "")
    said = command("doctor", "--write", "new.yaml")
    assert (said.code, "--gpu-check" in said.err) == (2, True)
    assert (here / "mine.yaml").read_text(encoding="utf-8") == "runtime: {}\n"


def test_nothing_is_written_where_nothing_is_recommended(
    doctor: Callable[..., Said], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "check_gpu", lambda *_, **__: made_up(PASSED, recommended={}))
    said = doctor("--write", "settings.yaml")
    assert (said.code, "no settings were written" in said.out) == (0, True)
    assert not (here / "settings.yaml").exists()


def test_a_part_that_failed_shows_in_the_exit_code(
    doctor: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = PartResult("losses of short texts", "failed", LONG, 20.0)
    monkeypatch.setattr(cli, "check_gpu", lambda *_, **__: made_up(PASSED, failed))
    said = doctor()
    assert (said.code, "FAILED      losses of short texts" in said.out) == (4, True)
    said = doctor("--json")
    found = json.loads(said.out)["gpu_check"]
    assert (said.code, found["passed"]) == (4, False)
    assert [part["verdict"] for part in found["parts"]] == ["passed", "failed"]


def test_the_check_asks_for_a_gpu(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said = command("doctor", "--gpu-check")
    assert (said.code, "no GPU is visible" in said.err) == (4, True)
    fake_gpus(monkeypatch, 80)
    monkeypatch.setattr(gpu_check, "torch_cuda", lambda: None)
    said = command("doctor", "--gpu-check")
    assert (said.code, "CPU build" in said.err) == (4, True)


# -- the same parts, for real ----------------------------------------------------------------------


def specimen_config(specimen: Path) -> Config:
    data = {
        "train": str(specimen / "texts.jsonl"),
        "labels": ["negative", "positive"],
        "prompt": "Text : {text}\nLabel :",
    }
    return make_config(
        model={"base": str(specimen / "model"), "task": "label-tokens", "max_length": 48},
        data=data,
        training={"batch_size": 4, "precision": "fp32"},
        runtime={"threads_per_worker": 1},
    )


SMALL = Scale(steps=4, length=64, batch_size=2, workers=(1, 2), large=False)


def test_every_part_runs_on_the_cpu(
    here: Path, specimen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PEFT in place of Unsloth, and a peak as CUDA's allocator would tell it."""
    monkeypatch.setattr("coralx.training.peak_memory.peak_bytes", lambda: 20 << 20)
    config, told = specimen_config(specimen), list[PartResult]()
    with forked_workers():
        check = check_gpu(config, lambda said: None, told.append, scale=SMALL, tested="peft")  # noqa: ARG005
    assert tuple(told) == check.parts
    verdicts = {part.name: (part.verdict, part.said) for part in check.parts}
    assert verdicts["precision"] == (
        "not applicable",
        "trained on the CPU in fp32, as configured or recorded",
    )
    assert verdicts["losses of short texts"][0] == "passed"
    assert verdicts["losses of long texts"][0] == "passed"
    assert verdicts["answers"] == ("passed", "peft and peft generated the same 2")
    assert verdicts["cut and resumed"] == ("passed", "ends with the same bytes as without a cut")
    assert verdicts["memory estimate"][0] == "passed"
    assert verdicts["memory estimate"][1].startswith("peak 20.0 MiB, estimated ")
    assert verdicts["checkpointing"][0] == "passed"
    assert verdicts["workers"][0] == "passed"
    assert "2 together" in verdicts["workers"][1]
    in_4_bits = "passed" if find_spec("bitsandbytes") else "not applicable"
    assert verdicts["4-bit"][0] == in_4_bits
    assert verdicts["block compile"][0] == "not applicable"
    assert "backend" not in check.recommended["runtime"]
    text = "\n".join(lines_of(check))
    assert "base        a local folder, llama, 93,504 parameters" in text
    assert str(here) not in text


def test_what_is_trained_is_the_configs_base_where_both_backends_can(
    specimen: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = specimen_config(specimen)
    small = Mock(return_value=own)
    monkeypatch.setattr(check_subject, "specimen_config", small)
    classifier = make_config(
        model={"base": "org/encoder"}, data={"train": "org/rows", "limit": 9000}
    )
    quantized = own.model_copy(
        update={"runtime": Runtime(quantization="4bit", devices=(3, 4), workers_per_gpu="auto")}
    )
    for config, base, asked in (
        (None, "a small random one (with CONFIG: its own)", 1),
        (classifier, "a small random one (speed: org/encoder)", 2),
        (quantized, "a local folder", 2),
    ):
        subject = subject_of(config, here, SMALL, one_gpu=True)
        assert (subject.base, small.call_count) == (base, asked)
        assert (subject.label_tokens.model.task, subject.sft.model.task) == ("label-tokens", "sft")
        for each in (subject.label_tokens, subject.sft, subject.own):
            runtime = each.runtime
            assert (runtime.workers, runtime.workers_per_gpu) == (1, 1)
            assert runtime.devices == ((3,) if config is quantized else (0,))
            assert parse_config(each.model_dump(mode="json"), "what a worker gets") == each
    assert subject_of(None, here, SMALL, one_gpu=False).own.model.task == "sft"
    own_task = subject_of(classifier, here, SMALL, one_gpu=False).own
    assert (own_task.model.task, own_task.data.limit) == ("sequence-classification", 512)
    assert subject.sft.runtime.quantization == "4bit"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("unsloth") is None, reason="unsloth is not installed: make unsloth")
def test_unsloths_cpu_backend_passes_against_peft(specimen: Path) -> None:
    config = specimen_config(specimen)
    given = config.model_copy(
        update={"runtime": config.runtime.model_copy(update={"backend": "unsloth"})}
    )
    patient = [replace(part, seconds=600.0) for part in planned(None)]
    check = check_gpu(given, print, print, scale=replace(SMALL, seconds=1800.0), plan=patient)
    verdicts = {part.name: part.verdict for part in check.parts}
    assert check.failed == ()
    for name in ("losses of short texts", "losses of long texts", "answers", "cut and resumed"):
        assert verdicts[name] == "passed", check
    for name in ("checkpointing", "workers", "block compile"):
        assert verdicts[name] == "passed", check
