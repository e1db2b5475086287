"""Whether a run is sound: its files, its reports, its disk; as a person reads it, and as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from coralx.doctor.requirements import free_bytes, require_room
from coralx.doctor.run_artifacts import at_work, checkpoints, handed_over, partials, scores
from coralx.doctor.run_files import Finding, Readable, State, read_run
from coralx.errors import SetupError
from coralx.report.summary import pareto_csv, summarise
from coralx.storage.layout import RunLayout
from coralx.storage.lock import holder
from coralx.text import gib

COLOURS: dict[State, str] = {"ok": "green", "notice": "yellow", "damaged": "bold red"}
LOOKS, BETWEEN_LOOKS = 4, 0.3
"""How often, and how many seconds apart, a run in progress is looked at before it is judged."""

WRITE_AGAIN = "A resume writes it; coralx report shows what it is to hold."


def examine(layout: RunLayout) -> tuple[Finding, ...]:
    """Look at every file of a run. Nothing in its folder changes.

    While a process is at work on it, files come, change and go between one look and the next: what
    is damaged then is what is found so every time.
    """
    looks: list[tuple[Finding, ...]] = []
    for left in reversed(range(LOOKS)):
        is_held = holder(layout) is not None
        try:
            looks.append(_looked(layout))
        except FileNotFoundError:  # it went while its folder was listed
            if not (left or looks):
                raise
            continue
        if not is_damaged(looks[-1]) or not (is_held or holder(layout)):
            break
        time.sleep(BETWEEN_LOOKS if left else 0.0)
    lasting = set.intersection(*({f.file for f in look if f.state == "damaged"} for look in looks))
    return tuple(f for f in looks[-1] if f.state != "damaged" or f.file in lasting)


def _looked(layout: RunLayout) -> tuple[Finding, ...]:
    run, findings = read_run(layout)
    return (
        *findings,
        *checkpoints(layout, run),
        *partials(layout),
        *handed_over(layout, run),
        *scores(layout, run),
        *_reports(layout, run),
        *at_work(layout),
        *_disk(layout, run),
    )


def is_damaged(findings: Sequence[Finding]) -> bool:
    """Whether anything is not as it was written, beyond what is harmless."""
    return any(finding.state == "damaged" for finding in findings)


# -- reports and disk ------------------------------------------------------------------------------


def _reports(layout: RunLayout, run: Readable) -> Iterator[Finding]:
    """`report.json` and `pareto.csv` against what config and ledger give."""
    files = (layout.report, layout.pareto)
    if run.config is None or run.entries is None or run.history is None:
        for path in files:
            told = "not compared: config or ledger cannot be read"
            if path.exists():
                yield Finding("notice", layout.relative(path), told)
        return
    report = summarise(run.config, run.entries, layout)
    is_older = _tells_of_less(layout.report, report)
    for path in files:
        if path.exists():
            yield _report(layout, path, report, is_older=is_older)
        elif run.history.completed is not None:
            yield Finding("notice", layout.relative(path), "missing", WRITE_AGAIN)


def _tells_of_less(path: Path, report: dict[str, Any]) -> bool:
    """Whether a written report is of an earlier time of the run. The times of files tell that only
    as long as nobody has copied them."""
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
        return Finding("ok", name, "says what config and ledger say")
    if is_older or path.stat().st_mtime_ns < layout.ledger.stat().st_mtime_ns:
        return Finding("notice", name, "older than the ledger's last event", WRITE_AGAIN)
    told = f"says other than config and ledger: {', '.join(differing)}"
    return Finding("damaged", name, told, WRITE_AGAIN)


def _differing(text: str, report: dict[str, Any]) -> list[str]:
    """Keys of a written report whose values are not those of `report`; keys that one of the two
    has not are another version's. Raises ValueError for what is no report."""
    written = json.loads(text)
    if not isinstance(written, dict):
        raise ValueError("not a report")
    shared = written.keys() & report.keys()
    return sorted(k for k in shared if _no_paths(written[k]) != _no_paths(report[k]))


def _no_paths(value: Any) -> Any:
    """Without where adapters lie, which is judged apart."""
    if isinstance(value, dict):
        return {key: _no_paths(part) for key, part in value.items() if key != "adapter"}
    return [_no_paths(part) for part in value] if isinstance(value, list | tuple) else value


def _disk(layout: RunLayout, run: Readable) -> Iterator[Finding]:
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
        yield Finding("ok", ".", f"{gib(free_bytes(layout.root))} are free on its disk")


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
    """One line a finding, its way out below it; then the sum."""
    console.print(f"Run: {layout.root}", soft_wrap=True, highlight=False, markup=False)
    for finding in findings:
        state = f"[{COLOURS[finding.state]}]{finding.state:>7}[/]"
        line = f"{state}  {escape(finding.file)}: {escape(finding.found)}"
        console.print(line, soft_wrap=True, highlight=False)
        if finding.way_out:
            console.print(f"         {finding.way_out}", soft_wrap=True, markup=False)
    count = {state: sum(f.state == state for f in findings) for state in COLOURS}
    if count["damaged"]:
        console.print(f"{count['damaged']} damaged, {count['notice']} to notice.")
    else:
        console.print(f"Sound; {count['notice']} to notice." if count["notice"] else "Sound.")
