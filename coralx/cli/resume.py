"""Under which config a run is resumed: its own, or one that changes only what a run may change."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote

import typer
from rich.console import Console

from coralx.api import runs as api
from coralx.backends.choice import with_backend_defaults
from coralx.cli.common import errors_naming, known_backend, warn
from coralx.config import Config, load_config
from coralx.config.differences import MAY_DIFFER, contradictions, with_left_out_as_in
from coralx.config.mode import mode_of, resolve_mode
from coralx.errors import CoralXError, UsageError
from coralx.records.mode import Mode
from coralx.storage.history import History
from coralx.storage.layout import RUNS, RunLayout, is_free, is_run, refuse_taken
from coralx.storage.ledger import Ledger


def offered(
    name: str | None, path: Path, settings: list[str], console: Console, *, quiet: bool
) -> str | None:
    """The run of that name, or an unfinished one of the config's, if the user wants to go on with
    it; None for a new one. Asks on a terminal only; elsewhere an unfinished run is mentioned.

    Raises UsageError where a chosen name is taken and its run is not to go on.
    """
    run_name = load_config(path, settings).experiment.name
    layout = RunLayout(RUNS / run_name)
    if not is_run(layout.root):
        if name is None and not quiet:
            warn_of_taken(run_name, console)
        return None
    if name is None and not _is_unfinished(layout):
        return None  # a finished run stays, and the new one gets the next free name
    if all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        state = "is unfinished" if _is_unfinished(layout) else "exists already"
        if typer.confirm(f"Run {run_name!r} {state}. Go on with it?", default=True, err=True):
            return run_name
    elif name is None and not quiet:
        console.print(
            f"run {run_name!r} is unfinished; this starts a new one. To go on with it instead: "
            f"coralx evolve --resume {quote(run_name)}",
            soft_wrap=True,
            highlight=False,
        )
    if name is not None:
        refuse_taken(name)
    return None


def warn_of_taken(name: str, console: Console) -> None:
    """Warn where a new run cannot have its name, since something else than a run lies there."""
    if not is_run(RUNS / name) and not is_free(RUNS / name):
        folder = RUNS / name
        text = f"{folder} exists but holds no readable run; the new run gets the next free name"
        warn([text], console)


def _is_unfinished(layout: RunLayout) -> bool:
    """Whether a run has begun there and not ended, as far as its ledger can be read."""
    try:
        return History(Ledger.read_events(layout.ledger)).completed is None
    except CoralXError:
        return False


def resumed_config(
    layout: RunLayout,
    path: Path | None,
    settings: list[str],
    mode: Mode | None,
    backend: str | None,
) -> Config:
    """The run's own config with `settings`, or that of `path`, if it differs in budget, runtime
    and a greater number of generations at most. Raises UsageError naming what else differs."""
    own = api.run_config(layout)
    if path is None:
        config = api.run_config(layout, settings)
        if mode is not None or backend is not None:
            config = resolve_mode(config, mode, known_backend(backend))
    else:
        with errors_naming(path):
            loaded = with_left_out_as_in(own, load_config(path, settings))
            if mode is None and backend is None:  # the run's own, which the file may not name
                mode = mode_of(own)
                backend = own.runtime.backend if mode == "full" else None
            config = resolve_mode(loaded, mode, known_backend(backend))
        name = config.experiment.model_copy(update={"name": own.experiment.name})
        kept_on = {  # asked for once, on the command line perhaps, they stay
            "baseline": own.runtime.baseline or config.runtime.baseline,
            "verify_front": own.runtime.verify_front or config.runtime.verify_front,
        }
        runtime = config.runtime.model_copy(update=kept_on)
        learn_from = config.evolution.learn_from or own.evolution.learn_from
        evolution = config.evolution.model_copy(update={"learn_from": learn_from})
        config = config.model_copy(
            update={"experiment": name, "runtime": runtime, "evolution": evolution}
        )
        config = with_backend_defaults(config, _recorded_backend(layout))
    if changed := contradictions(own, config):
        raise UsageError(
            f"the config differs from that of run {layout.name!r} in {', '.join(changed)}",
            f"{MAY_DIFFER}. Go on with the run's own config: coralx evolve --resume "
            f"{layout.shortest_name}",
        )
    return config


def _recorded_backend(layout: RunLayout) -> str:
    started = History(Ledger.read_events(layout.ledger)).started
    return started.facts.backend if started is not None else ""
