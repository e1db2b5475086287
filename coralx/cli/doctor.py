"""`coralx doctor`: what can this machine do, and is a run undamaged?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from coralx.cli.common import errors_naming, warn
from coralx.cli.consoles import error_console, output_console, print_json
from coralx.config import Config, load_config
from coralx.config.metric_catalogue import CAUSAL
from coralx.config.warnings import remote_code_warnings
from coralx.doctor.diagnosis import diagnose
from coralx.doctor.gpu_check import (
    BACKENDS,
    BackendCheck,
    check_backends,
    require_gpu,
    specimen_config,
)
from coralx.doctor.output import diagnosis_json, print_check, print_diagnosis
from coralx.doctor.run_check import check_run, findings_json, is_damaged, print_findings
from coralx.errors import ConfigError, DamagedRunError, UsageError, WorkerError
from coralx.execution.executor import Listener, StatusUpdate
from coralx.storage.layout import RunLayout, find_remains

EXIT_CODES = {"refused": ConfigError.exit_code, "failed": WorkerError.exit_code}
"""Of a trial batch that did not go well."""


def carry_out(
    subject: str | None, overrides: Sequence[str], *, gpu_check: bool, as_json: bool
) -> None:
    """The command of that name, as `coralx.cli.commands` has it."""
    if subject is not None and not _is_config(subject):
        if gpu_check or overrides:
            raise UsageError(
                f"{subject!r} is not a config file, and --gpu-check and --set need one",
                "To check a run, leave them out.",
            )
        _check_run(find_remains(subject), as_json=as_json)
        return
    config_path = Path(subject) if subject is not None else None
    if gpu_check:
        require_gpu()
    console = output_console()
    config = load_config(config_path, overrides) if config_path else None
    if config is not None:
        warn(remote_code_warnings(config), error_console() if as_json else console)
    with errors_naming(config_path or Path("config")):
        diagnosis = diagnose(config, _printing(error_console()))
        if not as_json:
            print_diagnosis(diagnosis, console)
        checked = _checked(config, console, quiet=as_json) if gpu_check else None
    if as_json:
        shown: dict[str, Any] = diagnosis_json(diagnosis)
        if checked is not None:
            shown["gpu_check"] = [asdict(backend) for backend in checked]
        print_json(shown)
    elif checked is not None:
        print_check(checked, console)
    if diagnosis.trial in EXIT_CODES:
        raise typer.Exit(EXIT_CODES[diagnosis.trial])


def _is_config(subject: str) -> bool:
    # a run is a folder or a name; what ends like a config is one, if only to be named as missing
    return Path(subject).is_file() or Path(subject).suffix in (".yaml", ".yml")


def _check_run(layout: RunLayout, *, as_json: bool) -> None:
    """Print the findings, and exit with 4 where a file is damaged."""
    findings = check_run(layout)
    if as_json:
        print_json(findings_json(layout, findings))
    else:
        print_findings(layout, findings, output_console())
    if is_damaged(findings):
        raise typer.Exit(DamagedRunError.exit_code)


def _printing(console: Console) -> Listener:
    """Prints what workers report that they are doing."""

    def listen(signal: StatusUpdate) -> None:
        if isinstance(signal, str):
            console.print(f"  {signal}", style="dim", soft_wrap=True, highlight=False, markup=False)

    return listen


def _checked(config: Config | None, console: Console, *, quiet: bool) -> list[BackendCheck]:
    listener = _printing(error_console() if quiet else console)
    if config is not None and config.model.task in CAUSAL:  # only those both backends train
        return check_backends(config, BACKENDS, listener)
    with tempfile.TemporaryDirectory(prefix="coralx-") as folder:
        return check_backends(specimen_config(Path(folder), large=True), BACKENDS, listener)
