"""`coralx stage`: one stage at a time, for batch systems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from coralx.api import runs as api
from coralx.cli.common import (
    errors_naming,
    name_setting,
    print_outcome,
    warn,
    warn_of_plan,
)
from coralx.cli.consoles import error_console, output_console
from coralx.cli.resume import resumed_config, warn_of_taken
from coralx.config import Config, load_config
from coralx.config.mode import resolve_mode
from coralx.config.warnings import remote_code_warnings
from coralx.errors import UsageError
from coralx.records.mode import Mode
from coralx.report.live import view_for
from coralx.storage.layout import (
    RUNS,
    RunLayout,
    find_run,
    is_run,
    latest_run,
)


def carry_out(
    config_path: Path,
    stage: str,
    run: str | None,
    mode: Mode | None,
    overrides: Sequence[str],
    *,
    quiet: bool,
) -> None:
    """The command of that name, as `coralx.cli.commands` has it."""
    settings = list(overrides)
    if run is not None and "/" not in run:
        settings.append(name_setting(run))
    with errors_naming(config_path):
        config = load_config(config_path, [*settings, "evolution.generations=1"])
    console = error_console()
    view = view_for(console, quiet=quiet)
    is_first = _is_first(stage, config, config_path)
    layout = _existing(run, config.experiment.name, is_first=is_first)
    if layout is not None:
        # the run's own number, whatever the config says now: a stage never adds a generation
        generations = api.run_config(layout).evolution.generations
        settings.append(f"evolution.generations={generations}")
        config = resumed_config(layout, config_path, settings, mode, None)
        warn(remote_code_warnings(config), console)
        outcome = api.train_stage(layout, stage, config, view)
    else:
        with errors_naming(config_path):
            config = resolve_mode(config, mode, None)
            warn_of_plan(config, console, quiet=quiet)
            if run is None and not quiet:
                warn_of_taken(config.experiment.name, console)
            outcome = api.start_stage(config, run, view)
    same_stage = f"coralx stage {quote(str(config_path))} {quote(stage)}"
    print_outcome(
        outcome,
        output_console(),
        command=f"{same_stage} --run {outcome.layout.shortest_name}",
        prefix=f"stage {stage} was not completed: ",
    )


def _is_first(stage: str, config: Config, path: Path) -> bool:
    """Whether `stage` is the config's first; raises UsageError where it is none of its stages."""
    names = [configured.name for configured in config.hyperband_config.training_stages]
    if stage not in names:
        raise UsageError(f"{path} has no stage {stage!r}", f"Use one of: {', '.join(names)}.")
    return stage == names[0]


def _existing(run: str | None, name: str, *, is_first: bool) -> RunLayout | None:
    """The run to go on with; None where a first stage starts a new one."""
    if is_first:
        taken = run is not None and (is_run(RUNS / run) or "/" in run)
        return find_run(str(run)) if taken else None
    return find_run(run) if run is not None else latest_run(name)
