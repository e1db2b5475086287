"""`coralx evolve`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coralx import api
from coralx.cli.consoles import error_console, output_console
from coralx.cli.resuming import offered, resumed_config
from coralx.cli.shared import (
    Overrides,
    errors_naming,
    known_backend,
    name_setting,
    print_outcome,
    run_names,
    warn,
    warn_of_plan,
)
from coralx.config import load_config
from coralx.config.modes import Mode, resolve_mode
from coralx.errors import UsageError
from coralx.report.live import view_for
from coralx.run.layout import find_run
from coralx.schedule.caveats import remote_code


def command(
    config_path: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="The YAML config. Not needed with --resume."),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="simulation: simulated learning curves, seconds. hyperband: real training through "
            "stages, only the promising advance. full: every genome to the end, the naive "
            "baseline. Unset: what the config says.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Override experiment.seed.", min=0)] = None,
    overrides: Overrides = None,
    name: Annotated[
        str | None, typer.Option(help="The run's folder under runs/. Unset: experiment.name.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a run: its folder, its name under runs/, or latest.",
            autocompletion=run_names,
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="What trains: unsloth (causal models, fast on GPUs), peft (everything, everywhere)"
            ", simulated, or auto, which takes what task and machine allow. [config: auto]",
        ),
    ] = None,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline",
            help="Also train the default recipe (rank 16, alpha 16, 2e-4, all linear layers) to "
            "the end, counted apart, unless the search does.",
        ),
    ] = False,
    verify_front: Annotated[
        bool,
        typer.Option(
            "--verify-front",
            help="Once the front is measured, also train those of it that started from the "
            "weights of others from scratch, counted apart, and show both side by side.",
        ),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the final report only.")] = False,
) -> None:
    """Evolve LoRA adapters: train, cut, breed, and hand over the Pareto front.

    Writes ledger, checkpoints, report.json, pareto.csv and best/ under runs/ in the current folder.
    Exit codes: 0 done, also where a budget ended it with a front; 2 usage or config; 3 ended, by
    whatever, before any genome finished the last stage; 4 environment; 130 interrupted (resumable).
    """
    console = error_console()
    view = view_for(console, quiet=quiet)
    settings = list(overrides or [])
    if baseline:
        settings.append("runtime.baseline=true")
    if verify_front:
        settings.append("runtime.verify_front=true")
    if seed is not None:
        settings.append(f"experiment.seed={seed}")
    if resume is not None and name is not None:
        raise UsageError("--name starts a new run, --resume goes on with one", "Leave one out.")
    if name is not None:
        settings.append(name_setting(name))
    if resume is None and config_path is not None:
        resume = offered(name, config_path, settings, console, quiet=quiet)
    if resume is not None:
        layout = find_run(resume)
        config = resumed_config(layout, config_path, settings, mode, backend)
        warn(remote_code(config), console)  # the folder may be another's
        outcome = api.resume(layout, config, view)
    else:
        if config_path is None:
            raise UsageError(
                "a CONFIG is needed", "For example: coralx evolve configs/quickstart.yaml"
            )
        with errors_naming(config_path):
            config = resolve_mode(load_config(config_path, settings), mode, known_backend(backend))
            warn_of_plan(config, console, quiet=quiet)
            outcome = api.evolve(config, name, view)
    print_outcome(outcome, output_console())
