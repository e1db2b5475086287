"""`coralx evolve`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coralx import api
from coralx.cli.shared import Overrides, output_console
from coralx.config import Config, load_config
from coralx.config.compare import differences
from coralx.config.modes import Mode, mode_of, resolve_mode
from coralx.errors import ConfigError, NoResultError, UsageError
from coralx.report.live import view_for
from coralx.report.terminal import print_report
from coralx.run.layout import RunLayout, find_run
from coralx.schedule.stages import finisher_warning, schedule_of


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
            metavar="RUN", help="Go on with a run: its folder, its name under runs/, or latest."
        ),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="What trains: auto, peft or simulated. [config: auto]")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the final report only.")] = False,
) -> None:
    """Evolve LoRA adapters: train, cut, breed, and hand over the Pareto front.

    Writes ledger, checkpoints, report.json, pareto.csv and best/ under runs/ in the current folder.
    Exit codes: 0 done, 2 usage or config, 3 no genome finished, 4 environment, 130 interrupted
    (resumable).
    """
    console = output_console()
    view = view_for(console, quiet=quiet)
    if resume is not None:
        layout = find_run(resume)
        if name is not None:
            raise UsageError("--name starts a new run, --resume goes on with one", "Leave one out.")
        if config_path is not None:
            config = _configured(config_path, mode, seed, overrides, None, backend, layout)
            _require_same(config, layout)
        elif any(flag is not None for flag in (mode, seed, overrides, backend)):
            raise UsageError(
                "--resume goes on with the run's own config, so --mode, --seed, --set and "
                "--backend have nothing to change",
                "Leave them out, or start a new run without --resume.",
            )
        outcome = api.resume(layout, view)
    else:
        config = _configured(config_path, mode, seed, overrides, name, backend, None)
        warning = finisher_warning(
            schedule_of(config.hyperband_config), config.evolution.population_size
        )
        if warning and not quiet:
            console.print(f"[yellow]warning:[/] {warning}")
        try:
            outcome = api.evolve(config, name, view)
        except ConfigError as error:  # a worker looked at model and data, and knows no file name
            raise error.located(str(config_path)) from None
    print_report(outcome.report, console)
    console.print(f"\n{outcome.layout.root}", soft_wrap=True, highlight=False)
    if not outcome.report["front"]:
        raise NoResultError(
            "no genome finished the last stage, so there is no front",
            "The report says why each was taken out. Looser stop rules, higher survival rates or "
            "another learning-rate range help.",
        )


def _configured(
    path: Path | None,
    mode: Mode | None,
    seed: int | None,
    overrides: list[str] | None,
    name: str | None,
    backend: str | None,
    resumed: RunLayout | None,
) -> Config:
    """The config with every flag written into it; a resumed run keeps its mode if none is given."""
    if path is None:
        raise UsageError("a CONFIG is needed", "For example: coralx evolve configs/quickstart.yaml")
    if backend not in (None, "auto", "peft", "simulated"):
        raise UsageError(f"no backend named {backend!r}", "Known: auto, peft, simulated.")
    settings = list(overrides or [])
    if seed is not None:
        settings.append(f"experiment.seed={seed}")
    if name is not None:
        settings.append(f"experiment.name={name}")
    config = load_config(path, settings)
    if resumed is not None and mode is None and backend is None:
        mode = mode_of(api.run_config(resumed))
        backend = api.run_config(resumed).runtime.backend if mode == "full" else None
    return resolve_mode(config, mode, backend)


def _require_same(config: Config, layout: RunLayout) -> None:
    """Refuse to resume a run under another config; how it runs here and now may differ."""
    changed = [
        key
        for key in differences(api.run_config(layout), config)
        if not key.startswith("runtime.") and key != "experiment.name"
    ]
    if changed:
        raise UsageError(
            f"the config differs from that of run {layout.name!r} in {', '.join(changed)}",
            f"Go on with the run's own config: coralx evolve --resume {layout.name}",
        )
