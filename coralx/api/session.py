"""Starts and resumes runs: executor, lock, ledger and engine, opened and closed in order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from coralx.api.earlier_runs import read_earlier_runs
from coralx.api.experience import experience_of
from coralx.api.graceful_exit import interruptible
from coralx.api.reporting import Session
from coralx.backends.choice import Choice, choose, require_available, with_backend_defaults
from coralx.config import Config, dump_yaml, load_config
from coralx.config.differences import MAY_DIFFER, contradictions
from coralx.config.load import overridden
from coralx.config.mode import mode_of
from coralx.doctor.requirements import require_room
from coralx.doctor.run_files import recorded_config
from coralx.engine.baselines import needs_training
from coralx.engine.budget import Allowance, budget_warnings
from coralx.engine.convergence import has_stalled
from coralx.engine.engine import Engine
from coralx.engine.hypervolume_reference import reference_of
from coralx.engine.state import RunState
from coralx.engine.verification import unverified
from coralx.errors import CoralXError, DamagedRunError, UsageError
from coralx.execution.executor import Executor
from coralx.execution.inprocess import InProcessExecutor
from coralx.execution.local import LocalExecutor
from coralx.records.events import (
    RunCompleted,
    RunResumed,
    RunStarted,
)
from coralx.records.genomes import Genome
from coralx.records.run_facts import Facts, Settings, decided
from coralx.report.live import Silent, View
from coralx.report.pareto_table import pareto_csv
from coralx.report.summary import summarise
from coralx.search.recipes import own_recipes
from coralx.search.space import space_of
from coralx.storage.adapter_card import about_adapters, origins_of
from coralx.storage.checkpoints import can_write_best, sweep, write_best
from coralx.storage.consistency import require_consistent
from coralx.storage.history import History
from coralx.storage.layout import RunLayout, refuse_taken
from coralx.storage.ledger import FORMAT, Ledger
from coralx.storage.lock import Owner, claiming, owning
from coralx.storage.machine_time import gpus_in_use, machine_use
from coralx.storage.unchanged_inputs import require_same_material
from coralx.system.environment import hardware, versions
from coralx.system.files import write_atomically
from coralx.system.signals import Interruption

Drive = Callable[[Engine], None]
"""What is to be done with an engine: search to the end, or train one stage."""


@dataclass(frozen=True)
class Outcome:
    """A run: where it lies, and the content of its `report.json`."""

    layout: RunLayout
    report: dict[str, Any]


def start(
    config: Config,
    drive: Drive,
    *,
    name: str | None = None,
    given: Sequence[Genome] = (),
    view: View | None = None,
) -> Outcome:
    """Make a new run and `drive` its engine; `given` genomes form generation 0 as they are."""
    if name is not None:
        refuse_taken(name)
    choice = choose(config)
    config = with_backend_defaults(config, choice.name)
    own_recipes(config, space_of(config))  # raises for a recipe outside the space
    # genomes that are given are neither drawn nor bred, so nothing could be taken over
    names = () if given else config.evolution.learn_from
    earlier = read_earlier_runs(names, is_simulated=choice.name == "simulated")
    began = time.monotonic()
    with interruptible() as (ending, interruption), ExitStack() as stack:
        ending.with_config = bool(config.functions)
        executor = stack.enter_context(_executor(config, choice, interruption))
        session = Session(stack.enter_context(view or Silent()))
        session.view.begin(config)
        facts = _started(executor, config, choice, None, session)
        _warn_of_disk(session, require_room(config, facts.footprint))
        owner = stack.enter_context(
            claiming(name or config.experiment.name, chosen=name is not None)
        )
        session.owner, layout = owner, owner.layout
        stack.callback(_sweep, owner)  # after the workers
        stack.callback(executor.close)  # the workers' last words come while the run is still ours
        ending.layout = layout
        write_atomically(layout.config, dump_yaml(config))
        layout.ledger.unlink(missing_ok=True)  # a torn first line of a run that never began
        experience = experience_of(config, facts, earlier)
        first = _first_event(config, layout.name, facts, executor.settings, began)
        first = replace(first, experience=experience)
        ledger = Ledger(layout.ledger)
        ledger.syncs = choice.name != "simulated"
        session.open(ledger, first)
        return _drive(config, facts, executor, session, layout, drive, given)


def _first_event(
    config: Config, run: str, facts: Facts, settings: Settings, began: float
) -> RunStarted:
    return RunStarted(
        format=FORMAT,
        run=run,
        mode=mode_of(config),
        seed=config.experiment.seed,
        facts=facts,
        settings=settings,
        versions=versions(),
        hardware=hardware(),
        startup_seconds=round(time.monotonic() - began, 3),
        config=config.model_dump(mode="json"),
        baseline_seed=config.experiment.seed,
        reference=reference_of(config, facts),
    )


def resume_run(
    layout: RunLayout,
    drive: Drive,
    *,
    config: Config | None = None,
    view: View | None = None,
) -> Outcome:
    """Open a run again and `drive` its engine from where its ledger ends."""
    config = config or run_config(layout)
    began = time.monotonic()
    with interruptible(layout) as (ending, interruption), ExitStack() as stack:
        ending.with_config = bool(config.functions)
        owner = stack.enter_context(owning(layout))
        sweep(layout)
        stack.callback(_sweep, owner)  # after the workers
        ledger = Ledger(layout.ledger)
        last = len(ledger.entries) - 1
        owner.reached(last)
        history = History(ledger)
        require_consistent(history, config, layout)
        if _is_finished(RunState(config, history), layout):
            write_atomically(layout.config, dump_yaml(config))
            return _report(config, ledger, layout)
        if history.started is None:
            raise DamagedRunError(f"{layout.ledger}: does not begin with its first event")
        _require_asked_for(config, layout)
        choice = _choice_again(config, history.started.facts)
        ledger.syncs = choice.name != "simulated"
        executor = stack.enter_context(_executor(config, choice, interruption))
        session = Session(stack.enter_context(view or Silent()))
        session.owner = owner
        session.view.begin(config)
        settings = _settings_again(config, history.started)
        facts = _started(executor, config, choice, settings, session)
        require_same_material(facts, history, config, layout)
        _warn_of_changes(session, config, facts, history.started.facts)
        _warn_of_disk(session, require_room(config, facts.footprint, layout))
        seconds = round(time.monotonic() - began, 3)
        lost = round(owner.killed.lost(last), 3)
        workers, values = executor.settings.workers, config.model_dump(mode="json")
        write_atomically(layout.config, dump_yaml(config))
        gpus = gpus_in_use(facts, workers)
        session.open(ledger, RunResumed(seconds, workers, lost, values, gpus))
        return _drive(config, facts, executor, session, layout, drive, ())


def _is_finished(state: RunState, layout: RunLayout) -> bool:
    """Whether nothing is left but to write reports: the config asks for no more, and the front is
    there to be handed over."""
    history = state.history
    if history.completed is None or history.unmeasured:
        return False
    if needs_training(state) or unverified(state):
        return False
    wanted = history.planned_generations or len(history.generations)
    if state.config.evolution.generations > wanted and not has_stalled(state):
        return False
    front = history.completed.front
    return all(can_write_best(layout, genome, state.last_stage) for genome in front)


def _require_asked_for(config: Config, layout: RunLayout) -> None:
    """Raise UsageError where a run uses functions and no config file was given that names them: the
    run folder may come from somebody else, and its functions are code."""
    if config.functions and config.runtime.functions_from is None:
        raise UsageError(
            f"run {layout.name!r} uses {', '.join(config.functions)}: functions run only from a "
            "config file that you give",
            f"Give it: coralx evolve CONFIG --resume {layout.shortest_name}",
        )


def _sweep(owner: Owner) -> None:
    """Remove what is half-written, unless another folder has come in the place of the run."""
    if owner.is_here():
        sweep(owner.layout)


def _warn_of_changes(session: Session, config: Config, facts: Facts, recorded: Facts) -> None:
    """Warn of functions that are not as the run began with, and of a budget without effect, which
    may be new."""
    if facts.functions != recorded.functions:
        session.view.on_signal(
            f"warning: {', '.join(config.functions)} changed since the run began; figures from "
            "before and after the change are compared all the same"
        )
    for warning in budget_warnings(config.budget, facts.device):
        session.view.on_signal(f"warning: {warning}")


def _warn_of_disk(session: Session, warning: str | None) -> None:
    if warning is not None:
        session.view.on_signal(f"warning: {warning}")


def _settings_again(config: Config, started: RunStarted) -> Settings:
    """The recorded settings, but as many workers, threads and genomes together as the config now
    names. Versions that did not record there whether a GPU's memory had gradients checkpointed have
    it among their facts."""
    recorded = started.settings
    if recorded.checkpointing is None:
        recorded = decided(recorded, started.facts)
    packs = ("pack",) if started.facts.backend == "peft" else ()
    named = {
        name: value
        for name in ("workers", "threads_per_worker", *packs)
        if (value := getattr(config.runtime, name)) != "auto"
    }
    return replace(recorded, **named)


def _choice_again(config: Config, recorded: Facts) -> Choice:
    """The recorded backend, whatever `auto` would take today."""
    require_available(config, recorded.backend)
    return Choice(recorded.backend, recorded.backend_reason)


@contextmanager
def _executor(config: Config, choice: Choice, interruption: Interruption) -> Iterator[Executor]:
    """The executor for the chosen backend; its workers are gone when the block ends."""
    name, configured = choice.name, config.runtime.executor
    # nothing to isolate where nothing is trained: a simulation needs no process of its own
    in_process = name == "simulated" if configured == "auto" else configured == "in-process"
    executor: Executor = (
        InProcessExecutor(name, interruption)
        if in_process
        else LocalExecutor(name, interruption, has_jobs=True)
    )
    try:
        yield executor
    finally:
        executor.close()


def _started(
    executor: Executor,
    config: Config,
    choice: Choice,
    settings: Settings | None,
    session: Session,
) -> Facts:
    facts = executor.start(config, settings, session.hear)
    return replace(facts, backend_reason=choice.reason)


def _drive(
    config: Config,
    facts: Facts,
    executor: Executor,
    session: Session,
    layout: RunLayout,
    drive: Drive,
    given: Sequence[Genome],
) -> Outcome:
    """Let the engine work, hand the front over, report."""
    ledger = session.ledger
    if ledger is None:
        raise RuntimeError("the session has no ledger yet")
    allowance = Allowance(
        budget=config.budget,
        spent_seconds=machine_use(ledger.entries).wall_seconds,
        since=time.monotonic(),
        gpus=gpus_in_use(facts, executor.settings.workers),
        spent_gpu_seconds=machine_use(ledger.entries).gpu_seconds,
    )
    engine = Engine(config, facts, executor, ledger, layout, allowance=allowance, given=given)
    try:
        drive(engine)
    except Exception:
        if not engine.has_more:  # the search is over: its result is worth a report all the same
            with suppress(CoralXError):
                _report(config, ledger, layout)
        raise
    executor.close()
    if engine.is_over and engine.history.completed is None:
        ledger.append(RunCompleted(engine.front()))
    return _report(config, ledger, layout)


def run_config(layout: RunLayout, overrides: Sequence[str] = ()) -> Config:
    """The resolved config of a run: its config.yaml, or where that is gone, the one that the ledger
    recorded. Raises DamagedRunError where there is neither, or where the file contradicts the
    ledger."""
    recorded = recorded_config(History(Ledger.read_events(layout.ledger)), layout)
    if not layout.config.is_file():
        if recorded is None:
            raise DamagedRunError(
                f"{layout.config}: missing", "Restore the config that the run began with."
            )
        return overridden(recorded, overrides)
    own = load_config(layout.config, resolved=True)
    if recorded is not None and (changed := contradictions(recorded, own)):
        raise DamagedRunError(
            f"{layout.config}: differs in {', '.join(changed)} from the config of the run's start",
            f"{MAY_DIFFER} change. Delete the file to have the ledger's config used instead.",
        )
    return overridden(own, overrides) if overrides else own


def _report(config: Config, ledger: Ledger, layout: RunLayout) -> Outcome:
    """Write `best/`, `report.json` and `pareto.csv`."""
    history = History(ledger)
    state = RunState(config, history)
    about = about_adapters(config, history.started) if history.started is not None else None
    front = state.front()
    write_best(layout, front, state.last_stage, about, origins_of(history, front))
    report = summarise(config, Ledger.read(layout.ledger), layout)
    write_atomically(layout.report, json.dumps(report, indent=2, allow_nan=False) + "\n")
    write_atomically(layout.pareto, pareto_csv(report))
    return Outcome(layout, report)
