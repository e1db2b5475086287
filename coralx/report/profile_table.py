"""A run's profile as a person reads it in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from coralx.report.formatting import duration
from coralx.report.profile import ACTIVITIES, STAGE_ACTIVITIES
from coralx.report.table_layout import fitting

WAITED_FOR = {
    "start": "the start",
    "stage": "the others of a stage",
    "derivation": "derivations",
    "end": "what the search is compared with",
}


def print_profile(
    profile: Mapping[str, Any], matrix_products: Mapping[str, Any] | None, console: Console
) -> None:
    """Print where the time went, and how near training came to the rate that was measured."""
    console.print(fitting(_by_worker(profile)))
    if profile["stages"]:
        console.print(fitting(_by_stage(profile["stages"])))
    for line in (*_waits(profile["waiting_for"]), *_rates(profile, matrix_products)):
        console.print(line, highlight=False)


def _by_worker(profile: Mapping[str, Any]) -> Table:
    """A row for each activity, a column for each worker; shares of all time at the end."""
    workers: Sequence[Mapping[str, float]] = profile["workers"]
    table = Table(title="Where the time went", title_justify="left")
    table.add_column("activity")
    for number in range(len(workers)):
        table.add_column(f"worker {number}", justify="right")
    table.add_column("all", justify="right")
    table.add_column("share", justify="right")
    total = profile["worker_seconds"]
    for name in ACTIVITIES:
        if seconds := profile["seconds"][name]:
            times = (duration(worker[name]) for worker in workers)
            table.add_row(name, *times, duration(seconds), f"{seconds / total:.1%}")
    sums = (duration(sum(worker.values())) for worker in workers)
    table.add_row("sum", *sums, duration(total), "100.0%")
    return table


def _by_stage(stages: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="By stage", title_justify="left")
    table.add_column("stage")
    for name in STAGE_ACTIVITIES:
        table.add_column(name, justify="right")
    for stage in stages:
        times = (duration(stage[name]) for name in STAGE_ACTIVITIES)
        table.add_row(str(stage["stage"]), *times)
    return table


def _waits(waiting_for: Mapping[str, float]) -> Iterator[str]:
    waits = [(WAITED_FOR[name], seconds) for name, seconds in waiting_for.items() if seconds]
    if waits:
        listed = ", ".join(f"{what} {duration(seconds)}" for what, seconds in waits)
        yield f"Workers waited for: {listed}"


def _rates(profile: Mapping[str, Any], matrix_products: Mapping[str, Any] | None) -> Iterator[str]:
    trained = sum(stage["train"] for stage in profile["stages"] if stage["is_searched"])
    if profile["trained_flops"] is None or not trained:
        return
    rate = profile["trained_flops"] / trained
    line = f"Training steps: {rate / 1e9:.1f} GFLOP/s a worker"
    if matrix_products is not None:
        possible = matrix_products["flops_per_second"]
        line += (
            f", {rate / possible:.0%} of the {possible / 1e9:.1f} GFLOP/s at which this machine "
            f"multiplies matrices of these shapes ({matrix_products['precision']}, threads: "
            f"{matrix_products['threads']})"
        )
    yield line
