"""The result of `--gpu-check`: plain text to paste into an issue, JSON, and lines on the way."""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console

from coralx.doctor.gpu_check import GpuCheck, PartResult
from coralx.doctor.recommendation import one_line
from coralx.text import counted, gib, printable

WIDTH = 78
"""Columns of the block: as many as issues and mails show without a break."""

FENCE = "```"

PACKAGES = (
    "coralx",
    "python",
    "torch",
    "transformers",
    "peft",
    "unsloth",
    "unsloth_zoo",
    "triton",
    "bitsandbytes",
)
SHORT = {"not applicable": "n/a", "failed": "FAILED"}


def gpu_check_json(check: GpuCheck) -> dict[str, Any]:
    """What `--json` prints of a check; sizes are bytes."""
    return {**asdict(check), "passed": not check.failed}


def print_part(result: PartResult, console: Console) -> None:
    """A part's verdict, as soon as it is known."""
    style = {"passed": "green", "failed": "red"}.get(result.verdict, "yellow")
    line = f"{result.name}: {result.verdict} ({result.seconds:.0f} s)"
    console.print(line, style=style, soft_wrap=True, highlight=False, markup=False)


def print_gpu_check(check: GpuCheck, console: Console) -> None:
    """The whole result, in plain lines whatever the terminal."""
    console.print()
    for line in lines_of(check):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def lines_of(check: GpuCheck) -> Iterator[str]:
    """The block of text: what was checked on, each verdict, and what is recommended. It is fenced,
    so that Markdown shows its lines as they are."""
    yield FENCE
    yield "coralx doctor --gpu-check"
    yield ""
    yield from _wrapped("card", _card(check))
    yield from _wrapped("packages", _packages(check))
    yield from _wrapped("base", check.base)
    yield ""
    for part in check.parts:
        yield from _verdict(part)
    yield ""
    yield _summary(check)
    yield from _wrapped("recommended", one_line(check.recommended))
    yield FENCE


def _card(check: GpuCheck) -> str:
    facts = [check.card]
    if check.memory_bytes:
        facts.append(gib(check.memory_bytes))
    if check.capability:
        facts.append(f"compute capability {'.'.join(map(str, check.capability))}")
    if check.driver:
        facts.append(f"driver {check.driver}")
    facts.append(f"torch for CUDA {check.cuda}" if check.cuda else "torch for CPUs")
    return ", ".join([*facts, f"{platform.system()} {platform.machine()}"])


def _packages(check: GpuCheck) -> str:
    shown = [f"{name} {check.versions[name]}" for name in PACKAGES if name in check.versions]
    return ", ".join(shown)


def _verdict(part: PartResult) -> Iterator[str]:
    yield from _wrapped(SHORT.get(part.verdict, part.verdict), f"{part.name}: {part.said}")


def _wrapped(name: str, text: str) -> Iterator[str]:
    yield from textwrap.wrap(printable(f"{name:<12}{text}"), WIDTH, subsequent_indent=" " * 12)


def _summary(check: GpuCheck) -> str:
    counts = {
        verdict: sum(part.verdict == verdict for part in check.parts)
        for verdict in ("passed", "failed", "not applicable", "not reached")
    }
    seconds = sum(part.seconds for part in check.parts)
    told = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
    return f"{counted(len(check.parts), 'part')}: {told}, in {seconds / 60:.1f} minutes"
