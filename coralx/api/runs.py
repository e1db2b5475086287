"""CoralX from Python: run the search, go on with it, drive it stage by stage, report."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import Any

from coralx.api.session import Outcome, resume_run, run_config, start
from coralx.config import Config
from coralx.engine.engine import Engine
from coralx.engine.halving import next_stage
from coralx.engine.state import RunState
from coralx.engine.succession import succession_of
from coralx.errors import UsageError
from coralx.records.genomes import Genome
from coralx.report.live import View
from coralx.report.summary import summarise
from coralx.storage.consistency import require_consistent
from coralx.storage.history import History
from coralx.storage.layout import RunLayout
from coralx.storage.ledger import Ledger

__all__ = [
    "Outcome",
    "evolve",
    "read_report",
    "resume",
    "run_config",
    "start_stage",
    "train_population",
    "train_stage",
]


def evolve(config: Config, name: str | None = None, view: View | None = None) -> Outcome:
    """Run the search that a resolved config describes, in a new folder under `runs/`.

    Raises ConfigError for a model or data that do not fit, before any folder is made; Interrupted
    on Ctrl-C, after which `resume` goes on.
    """
    return start(config, Engine.run, name=name, view=view)


def resume(layout: RunLayout, config: Config | None = None, view: View | None = None) -> Outcome:
    """Go on with a run where its ledger ends; of a completed run, train and measure what `config`
    asks for in addition (`runtime.baseline`, `runtime.verify_front`), and write the reports.

    `config` may differ from the run's own in `runtime`, `budget` and a greater number of
    generations only. Raises SetupError while another process owns the run, DamagedRunError for a
    damaged ledger.
    """
    return resume_run(layout, Engine.run, config=config, view=view)


def train_stage(
    layout: RunLayout, stage: str, config: Config | None = None, view: View | None = None
) -> Outcome:
    """Train the next stage of a run, which must be the one named `stage`.

    The last stage of the last generation also measures baselines and front. Raises UsageError
    naming the next stage if it is another one; otherwise as `resume` does.
    """
    own = config or run_config(layout)
    _require_synchronous(own)
    history = History(Ledger.read_events(layout.ledger))
    _require_next(layout.name, RunState(own, history), stage)

    def drive(engine: Engine) -> None:
        _require_next(layout.name, engine.state, stage)  # again, now that the run is ours alone
        _one_stage(engine)

    return resume_run(layout, drive, config=own, view=view)


def start_stage(config: Config, name: str | None = None, view: View | None = None) -> Outcome:
    """Start a new run and train its first stage. Raises as `evolve` does, and UsageError for
    asynchronous promotion."""
    _require_synchronous(config)
    return start(config, _one_stage, name=name, view=view)


def train_population(
    config: Config, genomes: Sequence[Genome], view: View | None = None
) -> Outcome:
    """Run one generation of `genomes`, as they are, in a new run. Raises as `evolve` does."""
    return start(config, Engine.run, given=genomes, view=view)


def _require_synchronous(config: Config) -> None:
    """Raise UsageError where stages do not follow one another."""
    if succession_of(config.hyperband_config).overlaps:
        raise UsageError(
            "under `hyperband_config.promotion: asynchronous` stages overlap, so none can be "
            "trained by itself",
            "Use coralx evolve, or set it to synchronous.",
        )


def _require_next(run: str, state: RunState, stage: str) -> None:
    """Raise UsageError unless `stage` is the one that the run is to train next, or its last one,
    whose measuring was cut off."""
    names = [configured.name for configured in state.stages]
    if stage not in names:
        raise UsageError(f"the config has no stage {stage!r}", f"Use one of: {', '.join(names)}.")
    following = next_stage(state)
    if following is None:
        # all is trained; the last stage may be asked for once more to measure what was cut off
        if state.history.completed is None and stage == names[-1]:
            return
        raise UsageError(
            f"run {run!r} has completed all its stages",
            f"Start a new run: coralx stage CONFIG {quote(names[0])}",
        )
    due = following[1].name
    if stage != due:
        is_past = names.index(stage) < names.index(due)
        why = "is already completed" if is_past else "is not the next one"
        raise UsageError(f"stage {stage!r} of run {run!r} {why}", f"The next stage is {due}.")


def _one_stage(engine: Engine) -> None:
    """Train the engine's next stage; after the last one, derive, and measure."""
    engine.derive()  # what a process left that ended after a last stage
    engine.train_round()
    engine.derive()
    if not engine.has_more:
        engine.finish()


def read_report(layout: RunLayout) -> dict[str, Any]:
    """The report of a run in whatever state it is, made anew from config and ledger. Raises
    DamagedRunError where the two do not fit each other."""
    config, entries = run_config(layout), Ledger.read(layout.ledger)
    require_consistent(History(entry.event for entry in entries), config, layout)
    return summarise(config, entries, layout)
