"""What a report remarks on how genomes were trained."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from coralx.records.events import StageCompleted
from coralx.report.terminal import print_report
from tests.support.derived_runs import derived_run, report_of


def test_steps_that_fp16_skipped_are_counted() -> None:
    events = derived_run(derived=())
    stages = [event for event in events if isinstance(event, StageCompleted)]
    ill = {id(stage): count for stage, count in zip(stages, (2, 1), strict=False)}
    skipping = [
        replace(event, result=replace(event.result, skipped_steps=ill[id(event)]))
        if isinstance(event, StageCompleted) and id(event) in ill
        else event
        for event in events
    ]
    steps = sum(stage.result.steps for stage in stages)
    genomes = [stage.result.genome for stage in stages[:2]]
    wanted = f"3 of {steps:,} steps were skipped because a gradient overflowed in fp16"
    report = report_of(skipping)
    assert report["notes"] == [{"note": wanted, "genomes": genomes}]
    assert report_of(events)["notes"] == []
    console = Console(file=io.StringIO(), width=200)
    print_report(report, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"note: {wanted} (2: {', '.join(genomes)})" in text
