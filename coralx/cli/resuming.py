"""Under which config a run is resumed: its own, or one that differs in how it runs alone."""

from __future__ import annotations

from pathlib import Path

from coralx import api
from coralx.cli.shared import errors_naming, known_backend
from coralx.config import Config, load_config
from coralx.config.compare import MAY_DIFFER, contradictions
from coralx.config.modes import Mode, mode_of, resolve_mode
from coralx.errors import UsageError
from coralx.run.history import History
from coralx.run.layout import RunLayout
from coralx.run.ledger import Ledger
from coralx.training.backend import settled


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
            loaded = load_config(path, settings)
            if mode is None and backend is None:
                mode = mode_of(own)
                backend = own.runtime.backend if mode == "full" else None
            config = resolve_mode(loaded, mode, known_backend(backend))
        name = config.experiment.model_copy(update={"name": own.experiment.name})
        beside = {
            "baseline": own.runtime.baseline or config.runtime.baseline,
            "verify_front": own.runtime.verify_front or config.runtime.verify_front,
        }
        runtime = config.runtime.model_copy(update=beside)
        config = config.model_copy(update={"experiment": name, "runtime": runtime})
        config = settled(config, _recorded_backend(layout))
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
