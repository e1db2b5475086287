"""What only a GPU can tell, seen within minutes: whether training there does what it should, and by
which settings it is fastest."""

from __future__ import annotations

import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from coralx.backends.unsloth_support import model_type
from coralx.config import Config
from coralx.doctor import check_parts as parts
from coralx.doctor.check_bench import Bench, OutOfTime, Trial
from coralx.doctor.check_comparisons import CheckFailed, Figure, Finding, NotApplicable
from coralx.doctor.check_subject import Scale, subject_of
from coralx.doctor.check_trials import Context
from coralx.doctor.recommendation import (
    Settings,
    best_number,
    recommended,
    with_precision,
    with_way_made,
)
from coralx.errors import CoralXError, SetupError
from coralx.execution.executor import Listener
from coralx.execution.gpu_findings import remember
from coralx.system.cuda_probe import obstacle_to_gpu, unusable
from coralx.system.environment import torch_cuda, versions
from coralx.system.gpus import Gpu, driver_version, visible_gpus

Verdict = Literal["passed", "failed", "not applicable", "not reached"]

COMPARED = {"losses of short texts", "losses of long texts", "answers", "cut and resumed"}
"""The parts by which the tested backend is judged."""

_PATH = re.compile(r"(?<![\w.~/\\:-])(?:~|[A-Za-z]:)?(?:[/\\][\w.@+~-]+)+[/\\]([\w.@+~-]+)")
"""An absolute path of two parts or more, or one of the home folder; its last part is captured."""

_QUOTED_PATH = re.compile(r"(['\"])(?:~|[A-Za-z]:)?[/\\][^'\"]*\1")
"""One in quotes, which may hold spaces."""


@dataclass(frozen=True)
class Part:
    """One part of the check, as it is planned."""

    name: str
    seconds: float
    """That it may take, starting its workers included."""
    look: Callable[[Context], Finding]


@dataclass(frozen=True)
class PartResult:
    """What became of one part."""

    name: str
    verdict: Verdict
    said: str
    """What was seen, and where it failed what was expected; or why it did not apply."""
    seconds: float
    figures: Mapping[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True)
class GpuCheck:
    """What a check has found; nothing in it names a path or a host."""

    card: str
    memory_bytes: int
    capability: tuple[int, int] | None
    """Its compute capability; None where the driver does not say."""
    driver: str | None
    cuda: str | None
    """The version that torch is built for."""
    versions: Mapping[str, str]
    base: str
    parts: tuple[PartResult, ...]
    recommended: Settings

    @property
    def failed(self) -> tuple[PartResult, ...]:
        return tuple(part for part in self.parts if part.verdict == "failed")


def planned(capability: tuple[int, int] | None) -> tuple[Part, ...]:
    """The parts in their order: right before fast, what most depends on first."""
    return (
        Part("precision", 180, partial(parts.precision, capability=capability)),
        Part("losses of short texts", 120, parts.short_text_losses),
        Part("losses of long texts", 200, parts.long_text_losses),
        Part("answers", 30, parts.answers),
        Part("cut and resumed", 30, parts.resumed),
        Part("memory estimate", 30, parts.memory),
        Part("checkpointing", 150, parts.checkpointing),
        Part("workers", 150, parts.workers),
        Part("4-bit", 120, parts.four_bit),
        Part("block compile", 150, parts.block_compile),
    )


def check_gpu(
    config: Config | None,
    listener: Listener,
    tell: Callable[[PartResult], None],
    *,
    scale: Scale | None = None,
    until: float | None = None,
    tested: str = "unsloth",
    plan: Sequence[Part] | None = None,
) -> GpuCheck:
    """Check the first GPU that `config` uses, with its base (None: a small random one). `tell` is
    called with each part's result, `listener` with what workers say.

    The check ends by `until`, of the monotonic clock. On a machine without a GPU the same parts run
    on the CPU. Raises ConfigError or SetupError where nothing can train the config.
    """
    scale = scale or Scale()
    until = until or time.monotonic() + scale.seconds
    gpu = _gpu_of(config)
    memory, capability = (gpu.memory_bytes, gpu.capability) if gpu else (0, None)
    with tempfile.TemporaryDirectory(prefix="coralx-") as folder:
        subject = subject_of(config, Path(folder), scale, one_gpu=gpu is not None)
        context = Context(Bench(listener, until), subject, scale, Path(folder), tested)
        results = tuple(_results(plan or planned(capability), context, tell))
        base = _described_base(context)
    if gpu is not None and config is not None:
        _remember(gpu, config, results)
    return GpuCheck(
        card=gpu.name if gpu else "no GPU",
        memory_bytes=memory,
        capability=capability,
        driver=driver_version(),
        cuda=torch_cuda(),
        versions=versions(),
        base=base,
        parts=results,
        recommended=_recommended(results, context, gpu, config),
    )


def require_gpu() -> None:
    """Raise SetupError where no GPU can be trained on. Takes as long as torch takes to load."""
    gpus = visible_gpus()
    if not gpus:
        raise SetupError(
            "no GPU is visible, so there is nothing to check",
            "Run this where nvidia-smi lists a GPU and CUDA_VISIBLE_DEVICES does not hide it.",
        )
    if torch_cuda() is None:
        raise SetupError(
            "torch is a CPU build, so it cannot use the GPU",
            "Install a CUDA build of torch, as https://pytorch.org/get-started shows.",
        )
    if (obstacle := obstacle_to_gpu()) is not None:
        raise unusable(gpus, obstacle)


def _gpu_of(config: Config | None) -> Gpu | None:
    """The GPU that is checked: the first that the config uses; None where there is none."""
    gpus = visible_gpus() if torch_cuda() else ()
    devices = config.runtime.devices if config is not None else "auto"
    place = 0 if devices == "auto" else devices[0]
    return gpus[place] if place < len(gpus) else None


def _results(
    plan: Sequence[Part], context: Context, tell: Callable[[PartResult], None]
) -> Iterator[PartResult]:
    for number, part in enumerate(plan, 1):
        what = f"part {number} of {len(plan)}, {part.name}: at most {part.seconds:.0f} s"
        context.bench.listener(what)
        began = time.monotonic()
        context.bench.allow(part.seconds)
        verdict, said, figures = _looked(part, context)
        seconds = round(time.monotonic() - began, 1)
        result = PartResult(part.name, verdict, without_places(said), seconds, figures)
        tell(result)
        yield result


def _looked(part: Part, context: Context) -> tuple[Verdict, str, Mapping[str, Figure]]:
    """Verdict, what was seen, and figures. Nothing that goes wrong in a part ends the others."""
    try:
        found = part.look(context)
    except NotApplicable as reason:
        return "not applicable", str(reason), {}
    except OutOfTime:
        return "not reached", f"its {part.seconds:.0f} s, or the whole check's time, were over", {}
    except CheckFailed as reason:
        return "failed", str(reason), {}
    except CoralXError as error:
        return "failed", " ".join(error.message.split()), {}
    except Exception as error:
        return "failed", f"{type(error).__name__}: {' '.join(str(error).split())}", {}
    return "passed", found.said, found.figures


def without_places(text: str) -> str:
    """A text without the paths and the host name that an error may name: it is to be published."""
    for place in (Path.home(), Path.cwd(), Path(tempfile.gettempdir())):
        if place != Path(place.anchor):  # whose names may have spaces
            text = text.replace(str(place), "~/x")
    text = _QUOTED_PATH.sub(r"\1[path]\1", text)
    text = _PATH.sub(lambda path: path[1] if path[1].endswith(".py") else "[path]", text)
    host = socket.gethostname()
    return re.sub(rf"(?<!\w){re.escape(host)}(?!\w)", "[host]", text) if host else text


def _recommended(
    results: Sequence[PartResult], context: Context, gpu: Gpu | None, config: Config | None
) -> Settings:
    """What suits the GPU, as far as the parts show, and what of `config` does not go with it."""
    own = config or Config()
    found = recommended(
        {result.name: result.figures for result in results if result.verdict == "passed"},
        backend=context.subject.backend,
        reference=context.reference,
        failed={result.name for result in results if result.verdict == "failed"} & COMPARED,
        memory_bytes=gpu.memory_bytes if gpu else 0,
    )
    found = with_precision(found, own.training.precision, gpu.capability if gpu else None)
    return with_way_made(found, own.runtime)


def _described_base(context: Context) -> str:
    """The base's name, kind and size, as far as they are known."""
    facts = [context.subject.base, model_type(context.subject.sft)]
    trained = [found for found in context.bench.done.values() if isinstance(found, Trial)]
    if trained:
        facts.append(f"{trained[0].facts.base_parameters:,} parameters")
    return ", ".join(fact for fact in facts if fact)


def _remember(gpu: Gpu, config: Config, results: Sequence[PartResult]) -> None:
    """Keep how many workers are fastest, for `workers_per_gpu: auto`."""
    for result in results:
        best = best_number(result.figures) if result.name == "workers" else None
        if best is not None:
            remember(gpu, config, best)
