"""Earlier runs that a new one is to learn from: read, and never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coralx.config import Config, load_config
from coralx.doctor.run_files import recorded_config
from coralx.errors import ConfigError, DamagedRunError, UsageError
from coralx.records.run_facts import Facts
from coralx.storage.consistency import require_consistent
from coralx.storage.history import History
from coralx.storage.layout import RunLayout, find_run
from coralx.storage.ledger import Ledger
from coralx.text import shown

LEAVE_OUT = "Or leave it out of --learn-from (evolution.learn_from)."


@dataclass(frozen=True)
class EarlierRun:
    """A run that has begun, finished or not."""

    path: str
    """As it was given."""
    layout: RunLayout
    config: Config
    facts: Facts
    history: History


def read_earlier_runs(names: Sequence[str], *, is_simulated: bool) -> list[EarlierRun]:
    """The runs in these folders, or of these names under `runs/`, as far as they have come.

    Raises UsageError for what is no run, for one that is named twice, and for a simulated one
    unless the new run `is_simulated` too; DamagedRunError for one that cannot be read.
    """
    runs: list[EarlierRun] = []
    for name in names:
        run = read_run(name, "learn from", LEAVE_OUT)
        twice = next((r.path for r in runs if r.layout.root == run.layout.root), None)
        if twice is not None:
            same = shown(name) if twice == name else f"{shown(twice)} and {shown(name)}"
            raise UsageError(
                f"cannot learn twice from one run: {same} "
                f"{'is named twice' if twice == name else 'are the same folder'}",
                "Name it once in --learn-from (evolution.learn_from).",
            )
        if run.facts.backend == "simulated" and not is_simulated:
            raise UsageError(
                f"cannot learn from {shown(name)}: it was simulated, so its figures say nothing "
                "about real training",
                LEAVE_OUT.removeprefix("Or ").capitalize(),
            )
        runs.append(run)
    return runs


def read_run(name: str, purpose: str, way_out: str) -> EarlierRun:
    """One run. Raises UsageError and DamagedRunError, which say that it cannot serve the purpose,
    such as "learn from", and for a damaged one the way out, too."""
    try:
        layout = find_run(name)
        history = History(Ledger.read_events(layout.ledger))
        config = _config(history, layout)
        require_consistent(history, config, layout)
        if history.started is None:
            raise DamagedRunError(f"{layout.ledger}: does not begin with its first event")
    except UsageError as error:
        hint = f"A path is taken from the working folder. {error.hint}"
        raise UsageError(f"cannot {purpose} {shown(name)}: {error.message}", hint) from None
    except DamagedRunError as error:
        hint = " ".join(part for part in (error.hint, way_out) if part)
        raise DamagedRunError(f"cannot {purpose} {shown(name)}: {error.message}", hint) from None
    return EarlierRun(name, layout, config, history.started.facts, history)


def _config(history: History, layout: RunLayout) -> Config:
    """That of the run's last start or resume; of earlier versions, which did not record it, the
    file's. Raises DamagedRunError where neither can be read."""
    recorded = recorded_config(history, layout)
    if recorded is not None:
        return recorded
    if not layout.config.is_file():
        raise DamagedRunError(f"{layout.config}: missing", "Restore the config that it began with.")
    try:
        return load_config(layout.config, resolved=True)
    except ConfigError as error:
        raise DamagedRunError(f"{layout.config}: {error.problems[0]}") from None
