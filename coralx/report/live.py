"""The terminal while a run goes on: a live table, or plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from coralx.config import Config
from coralx.execution.executor import StatusUpdate
from coralx.records.events import (
    BudgetSpent,
    DerivationFailed,
    Event,
    FrontMeasured,
    GenerationCompleted,
    GenerationStarted,
    GenomeDerived,
    GenomeFailed,
    MeasurementFailed,
    RunResumed,
    RunStarted,
    StageCompleted,
    StageDecided,
    TrainedBeside,
    WorkerStarted,
)
from coralx.records.results import Progress
from coralx.records.subjects import HEAD, title_of
from coralx.records.verdicts import Stop
from coralx.report.baseline_names import untuned_head
from coralx.report.formatting import duration, figure
from coralx.report.front_warnings import unmeasured_warning
from coralx.report.line_wrapping import folded
from coralx.report.live_table import board
from coralx.report.opening import opening_lines
from coralx.report.progress import Standings, describe, result_words, tally
from coralx.system.signals import cursor_shown_while_suspended
from coralx.text import counted

SIMULATED = "simulated"
"""What stands for the time left where no time is spent."""

PLAIN_SECONDS = 10.0
"""Between two plain lines about a job that is under way."""


class View(Protocol):
    """Watches a run. `begin` comes before anything else, once the config is known; events from
    before a resume are absorbed, later ones shown."""

    def begin(self, config: Config) -> None: ...

    def absorb(self, event: Event) -> None: ...

    def on_event(self, event: Event) -> None: ...

    def on_signal(self, signal: StatusUpdate) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Silent:
    """A view that shows nothing."""

    def begin(self, config: Config) -> None: ...

    def absorb(self, event: Event) -> None: ...

    def on_event(self, event: Event) -> None: ...

    def on_signal(self, signal: StatusUpdate) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class PlainLines(Silent):
    """One line for each thing that happens."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spoke = time.monotonic()

    def begin(self, config: Config) -> None:
        self._standings = Standings(config)
        self._metric = config.objectives[0].metric

    def absorb(self, event: Event) -> None:
        self._standings.on_event(event)

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        line = f"[{duration(self._standings.elapsed):>12}] {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _untuned_head(self) -> str | None:
        started = self._standings.history.started
        return untuned_head(self._standings.config, started.facts if started else None)

    def on_signal(self, signal: StatusUpdate) -> None:
        if isinstance(signal, str):
            self._say(signal)
        elif isinstance(signal, Progress):
            self._standings.on_progress(signal)
            if time.monotonic() - self._spoke >= PLAIN_SECONDS:
                state = self._standings.state[signal.genome]
                self._say(f"{title_of(signal.genome)} {state}; {_remaining(self._standings)}")

    def on_event(self, event: Event) -> None:
        self._standings.on_event(event)
        for line in (*self._search_lines(event), *self._measurement_lines(event)):
            self._say(line)

    def _search_lines(self, event: Event) -> Iterator[str]:
        match event:
            case WorkerStarted():
                device = "" if event.device == "none" else f" on {event.device}"
                seconds = f"{event.load_seconds:.1f} s"
                yield f"worker {event.worker}{device} loaded the base in {seconds}"
            case GenerationStarted():
                total = self._standings.config.evolution.generations
                count = counted(len(event.genomes), "genome")
                yield f"generation {event.generation + 1} of {total}: {count}"
                yield from (f"warning: {warning}" for warning in event.warnings)
            case StageCompleted(result=result):
                steps = counted(result.last_step, "step")
                outcome = f"{result_words(result, self._metric)} after {steps}"
                yield f"{result.genome} {result.stage}: {outcome} ({duration(result.seconds)})"
            case GenomeDerived(genome=genome, result=result):
                outcome = result_words(result, self._metric)
                words = self._standings.origin(genome)
                yield f"{genome.id}, {words}: {outcome} ({duration(result.seconds)})"
            case StageDecided():
                yield f"{event.stage}: {_tally_and_remaining(self._standings, event)}"
                yield from _decision_lines(self._standings, event)
            case BudgetSpent():
                yield f"ended by {event.limits}; measuring the best so far"
            case _:
                yield from _common_lines(self._standings, event)

    def _measurement_lines(self, event: Event) -> Iterator[str]:
        match event:
            case TrainedBeside(result=result) if result.genome == HEAD:
                passes = counted(result.steps, "pass", "passes")
                yield f"{title_of(HEAD)}: {passes} ({duration(result.seconds)})"
            case TrainedBeside(result=result):
                # what is derived again takes no step
                done = counted(result.last_step, "step") if result.last_step else "derived again"
                yield f"{title_of(result.genome)}, {result.stage}: {done}"
            case FrontMeasured(measurement=measurement):
                test = measurement.test.get(self._metric)
                shown = figure(test.value if test else None, self._metric)
                title = title_of(measurement.genome)
                if measurement.genome is None and (head := self._untuned_head()):
                    title += f" ({head})"
                yield f"test split: {title} {self._metric} {shown}"
            case _:
                pass


class LiveTable(Silent):
    """A table of the current generation that keeps itself up to date."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stack = ExitStack()
        self._note = "starting"

    def begin(self, config: Config) -> None:
        self._standings = Standings(config)
        live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # else it is a file's, and none of the table's
        )
        self._stack.enter_context(cursor_shown_while_suspended())
        self._stack.enter_context(live)

    def absorb(self, event: Event) -> None:
        self._standings.on_event(event)

    def _say(self, line: str) -> None:
        """Print above the table, no word broken."""
        style = "yellow" if line.startswith("warning:") else ""
        lines = folded(line, self._console.width)
        self._console.print(Text("\n".join(lines), style), soft_wrap=True)

    def on_signal(self, signal: StatusUpdate) -> None:
        if isinstance(signal, str) and signal.startswith("warning:"):
            self._say(signal)
        elif isinstance(signal, str):
            self._note = signal
        elif isinstance(signal, Progress):
            self._standings.on_progress(signal)
            has_row = signal.genome in self._standings.history.genomes
            state = self._standings.state[signal.genome]
            self._note = "" if has_row else f"{title_of(signal.genome)}, {state}"

    def on_event(self, event: Event) -> None:
        self._standings.on_event(event)
        if isinstance(event, StageDecided):
            where = f"generation {event.generation + 1}, {event.stage}"
            self._say(f"{where}: {_tally_and_remaining(self._standings, event)}")
            for line in _decision_lines(self._standings, event):
                self._say(line)
        for line in _common_lines(self._standings, event):
            self._say(line)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _render(self) -> RenderableType:
        width, height = self._console.size
        left = _remaining(self._standings)
        return board(self._standings, self._note, left, width, height - 1)


def _tally_and_remaining(standings: Standings, event: StageDecided) -> str:
    left = _remaining(standings)
    # a simulation takes no time worth telling
    return tally(event.verdicts) + ("" if left == SIMULATED else f"; {left}")


def _remaining(standings: Standings) -> str:
    if standings.is_searched:
        return standings.closing()
    left = standings.remaining()
    started = standings.history.started
    if started is not None and started.facts.device == "none":
        return SIMULATED
    return "time left unknown" if left is None else f"about {duration(left)} left"


def _common_lines(standings: Standings, event: Event) -> Iterator[str]:
    """What both views print of the start, a resume, and failures."""
    match event:
        case RunStarted():
            yield from opening_lines(standings.config, event)
        case RunResumed():
            yield resumed_line(standings)
        case GenomeFailed():
            yield f"{title_of(event.genome)} failed at {event.stage}: {event.reason}"
        case DerivationFailed(genome=genome, reason=reason):
            yield f"{genome.id}, {standings.origin(genome)}, could not be derived: {reason}"
        case GenerationCompleted() if derived := standings.history.derived.get(event.generation):
            yield _derived_line(standings, [genome.id for genome in derived])
        case MeasurementFailed():
            yield f"warning: {unmeasured_warning(event.genome, event.reason)}"
        case _:
            pass


def _derived_line(standings: Standings, derived: Sequence[str]) -> str:
    """How many adapters were derived after a generation, and how many of them are on the front."""
    front = set(standings.front()) & set(derived)
    count = counted(len(derived), "adapter")
    return f"derived without training: {count}, {len(front) or 'none'} of them on the front"


def _decision_lines(standings: Standings, event: StageDecided) -> Iterator[str]:
    """What both views print of a stage's decision below its tally."""
    for verdict in event.verdicts:
        if isinstance(verdict, Stop):
            yield f"{verdict.genome} {describe(verdict, event.stage)}"
    if event.not_judged and standings.may_judge(event):
        yield f"too few steps to be judged by every stop rule: {', '.join(event.not_judged)}"
    yield from (f"warning: {warning}" for warning in event.warnings)


def resumed_line(standings: Standings) -> str:
    """Where a resumed run goes on."""
    results = counted(len(standings.history.results), "stage result")
    where = f"generation {standings.generation + 1}, {standings.stage.name}"
    return f"resumed at {where}; {results} so far"


def view_for(console: Console, *, quiet: bool) -> View:
    """The live table on a terminal, plain lines elsewhere, nothing if `quiet`."""
    if quiet:
        return Silent()
    lively = console.file.isatty() and not console.is_dumb_terminal
    return LiveTable(console) if lively else PlainLines(console)
