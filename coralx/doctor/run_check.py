"""Whether a run is damaged: its files, its reports, its disk; as a person reads it, and as JSON."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from coralx.doctor.requirements import free_bytes, require_room
from coralx.doctor.run_artifacts import best_adapters, checkpoints, ownership, partials, scores
from coralx.doctor.run_files import Finding, ReadableRun, State, read_run
from coralx.errors import SetupError
from coralx.report.pareto_table import pareto_csv
from coralx.report.summary import summarise
from coralx.storage.layout import RunLayout
from coralx.storage.lock import holder
from coralx.text import counted, gib

COLOURS: dict[State, str] = {"ok": "green", "notice": "yellow", "damaged": "bold red"}
LOOKS, BETWEEN_LOOKS = 4, 0.3
"""How often, and how many seconds apart, a run in progress is looked at before it is judged."""

WRITE_AGAIN = "A resume writes it again; coralx report shows what belongs in it."


def check_run(layout: RunLayout) -> tuple[Finding, ...]:
    """Look at every file of a run. Nothing in its folder changes.

    While a process is at work on it, files come, change and go between one look and the next: only
    what every look finds damaged counts as damaged then.
    """
    looks: list[tuple[Finding, ...]] = []
    for left in reversed(range(LOOKS)):
        is_held = holder(layout) is not None
        try:
            looks.append(_look(layout))
        except FileNotFoundError:  # it went while its folder was listed
            if not (left or looks):
                raise
            continue
        if not is_damaged(looks[-1]) or not (is_held or holder(layout)):
            break
        time.sleep(BETWEEN_LOOKS if left else 0.0)
    always_damaged = set.intersection(*map(_damaged_files, looks))
    return tuple(f for f in looks[-1] if f.state != "damaged" or f.file in always_damaged)


def _look(layout: RunLayout) -> tuple[Finding, ...]:
    run, findings = read_run(layout)
    return (
        *findings,
        *checkpoints(layout, run),
        *partials(layout),
        *best_adapters(layout, run),
        *scores(layout, run),
        *_reports(layout, run),
        *ownership(layout),
        *_disk(layout, run),
    )


def _damaged_files(findings: Sequence[Finding]) -> set[str]:
    return {finding.file for finding in findings if finding.state == "damaged"}


def is_damaged(findings: Sequence[Finding]) -> bool:
    """Whether anything is not as it was written, beyond what is harmless."""
    return any(finding.state == "damaged" for finding in findings)


# -- reports and disk ------------------------------------------------------------------------------


def _reports(layout: RunLayout, run: ReadableRun) -> Iterator[Finding]:
    """`report.json` and `pareto.csv` against those that config and ledger give now."""
    files = (layout.report, layout.pareto)
    if run.config is None or run.entries is None or run.history is None:
        for path in files:
            if path.exists():
                state = "not checked: config or ledger cannot be read"
                yield Finding("notice", layout.relative(path), state)
        return
    report = summarise(run.config, run.entries, layout)
    is_older = _covers_less(layout.report, report)
    for path in files:
        if path.exists():
            yield _report(layout, path, report, is_older=is_older)
        elif run.history.completed is not None:
            yield Finding("notice", layout.relative(path), "missing", WRITE_AGAIN)


def _covers_less(path: Path, report: dict[str, Any]) -> bool:
    """Whether a written report is of an earlier time of the run. The times of the files do not show
    it once they were copied."""
    try:
        return bool(json.loads(path.read_bytes())["wall_seconds"] < report["wall_seconds"])
    except (ValueError, OSError, LookupError, TypeError):
        return False


def _report(layout: RunLayout, path: Path, report: dict[str, Any], *, is_older: bool) -> Finding:
    name = layout.relative(path)
    try:
        text = path.read_bytes().decode()
        differing = _differing(text, report) if path == layout.report else []
    except (ValueError, OSError) as error:
        return Finding("damaged", name, f"cannot be read: {error}", WRITE_AGAIN)
    if path == layout.pareto and text != pareto_csv(report):
        differing = ["the front"]
    if not differing:
        return Finding("ok", name, "matches config and ledger")
    if is_older or path.stat().st_mtime_ns < layout.ledger.stat().st_mtime_ns:
        return Finding("notice", name, "older than the ledger's last event", WRITE_AGAIN)
    problem = f"differs from what config and ledger give in {', '.join(differing)}"
    return Finding("damaged", name, problem, WRITE_AGAIN)


def _differing(text: str, report: dict[str, Any]) -> list[str]:
    """Keys of a written report whose values are not those of `report`. Keys that one of the two
    lacks are another version's, but not where each lacks some: versions add keys and keep the old.
    Raises ValueError for what is no report."""
    written = json.loads(text)
    if not isinstance(written, dict):
        raise ValueError("not a report")
    shared = written.keys() & report.keys()
    differing = {k for k in shared if _without_paths(written[k]) != _without_paths(report[k])}
    if report.keys() - written.keys():
        differing |= written.keys() - report.keys()
    return sorted(differing)


def _without_paths(value: Any) -> Any:
    """The value without the paths of adapters: those have findings of their own."""
    if isinstance(value, dict):
        return {key: _without_paths(part) for key, part in value.items() if key != "adapter"}
    return [_without_paths(part) for part in value] if isinstance(value, list | tuple) else value


def _disk(layout: RunLayout, run: ReadableRun) -> Iterator[Finding]:
    """What is free, and whether that is enough to go on."""
    started = run.history.started if run.history else None
    warning, way_out = None, ""
    if run.config and started and run.history and run.history.completed is None:
        try:
            warning = require_room(run.config, started.facts.footprint, layout)
        except SetupError as error:
            warning, way_out = error.message, error.hint
    if warning is not None:
        yield Finding("notice", ".", warning, way_out)
    else:
        yield Finding("ok", ".", f"{gib(free_bytes(layout.root))} free on its disk")


# -- output ----------------------------------------------------------------------------------------


def findings_json(layout: RunLayout, findings: Sequence[Finding]) -> dict[str, Any]:
    """What `coralx doctor RUN --json` prints."""
    return {
        "run": layout.name,
        "folder": str(layout.root),
        "damaged": is_damaged(findings),
        "findings": [asdict(finding) for finding in findings],
    }


def print_findings(layout: RunLayout, findings: Sequence[Finding], console: Console) -> None:
    """One line a finding, what to do below it; then the sum."""
    console.print(f"Run: {layout.root}", soft_wrap=True, highlight=False, markup=False)
    for finding in findings:
        state = f"[{COLOURS[finding.state]}]{finding.state:>7}[/]"
        file = "run folder" if finding.file == "." else finding.file
        line = f"{state}  {escape(file)}: {escape(finding.found)}"
        console.print(line, soft_wrap=True, highlight=False)
        if finding.way_out:
            console.print(f"         {finding.way_out}", soft_wrap=True, markup=False)
    console.print(_sum_line(findings))


def _sum_line(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.state for finding in findings)
    notices = [counted(counts["notice"], "notice")] if counts["notice"] else []
    if counts["damaged"]:
        return f"DAMAGED: {', '.join([counted(counts['damaged'], 'file'), *notices])}."
    return f"OK: {', '.join([*notices, 'no damage'])}."
