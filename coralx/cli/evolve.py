"""`coralx evolve`: the main job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from coralx.api import runs as api
from coralx.api.profile import measure_matrix_products
from coralx.cli.common import (
    errors_naming,
    known_backend,
    list_setting,
    name_setting,
    print_outcome,
    warn,
    warn_of_plan,
)
from coralx.cli.consoles import error_console, output_console
from coralx.cli.resume import offered, resumed_config
from coralx.config import load_config
from coralx.config.mode import resolve_mode
from coralx.config.warnings import remote_code_warnings
from coralx.errors import UsageError
from coralx.records.mode import Mode
from coralx.report.live import view_for
from coralx.report.profile_table import print_profile
from coralx.storage.layout import find_run


def carry_out(
    config_path: Path | None,
    mode: Mode | None,
    seed: int | None,
    overrides: Sequence[str],
    name: str | None,
    resume: str | None,
    backend: str | None,
    learn_from: Sequence[str],
    *,
    baseline: bool,
    verify_front: bool,
    profile: bool,
    quiet: bool,
) -> None:
    """The command of that name, as `coralx.cli.commands` has it."""
    console = error_console()
    view = view_for(console, quiet=quiet)
    flags = _settings_of(seed, name, learn_from, baseline=baseline, verify_front=verify_front)
    settings = [*overrides, *flags]
    if resume is not None and name is not None:
        raise UsageError(
            "--name cannot be used with --resume: it names a new run", "Leave one of them out."
        )
    if resume is None and config_path is not None:
        resume = offered(name, config_path, settings, console, quiet=quiet)
    if resume is not None:
        layout = find_run(resume)
        config = resumed_config(layout, config_path, settings, mode, backend)
        warn(remote_code_warnings(config), console)  # the folder may come from somebody else
        outcome = api.resume(layout, config, view)
    else:
        if config_path is None:
            raise UsageError(
                "no CONFIG given", "For example: coralx evolve configs/quickstart.yaml"
            )
        with errors_naming(config_path):
            config = resolve_mode(load_config(config_path, settings), mode, known_backend(backend))
            warn_of_plan(config, console, quiet=quiet)
            outcome = api.evolve(config, name, view)
    try:
        print_outcome(outcome, output_console())  # raises where there is no front
    finally:
        if profile:
            measured = measure_matrix_products(outcome.layout)
            print_profile(outcome.report["profile"], measured, output_console())


def _settings_of(
    seed: int | None,
    name: str | None,
    learn_from: Sequence[str],
    *,
    baseline: bool,
    verify_front: bool,
) -> Iterator[str]:
    """Options that stand for a key of the config, as overrides of it."""
    if baseline:
        yield "runtime.baseline=true"
    if verify_front:
        yield "runtime.verify_front=true"
    if seed is not None:
        yield f"experiment.seed={seed}"
    if name is not None:
        yield name_setting(name)
    if learn_from:
        yield list_setting("evolution.learn_from", learn_from)
