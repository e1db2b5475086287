"""`coralx doctor`: what can this machine do, and is a run undamaged?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from coralx.cli.common import errors_naming, warn
from coralx.cli.consoles import error_console, output_console, print_json
from coralx.config import Config, load_config
from coralx.config.warnings import remote_code_warnings
from coralx.doctor.check_output import gpu_check_json, print_gpu_check, print_part
from coralx.doctor.check_subject import Scale
from coralx.doctor.diagnosis import diagnose
from coralx.doctor.gpu_check import GpuCheck, check_gpu, require_gpu
from coralx.doctor.output import diagnosis_json, print_diagnosis
from coralx.doctor.recommendation import settings_yaml
from coralx.doctor.run_check import check_run, findings_json, is_damaged, print_findings
from coralx.errors import ConfigError, DamagedRunError, UsageError, WorkerError
from coralx.execution.executor import Listener, StatusUpdate
from coralx.storage.layout import RunLayout, find_remains
from coralx.system.files import write_atomically

EXIT_CODES = {"refused": ConfigError.exit_code, "failed": WorkerError.exit_code}
"""Of a trial batch that did not go well."""


def carry_out(
    subject: str | None,
    overrides: Sequence[str],
    *,
    gpu_check: bool,
    write: Path | None,
    as_json: bool,
) -> None:
    """The command of that name, as `coralx.cli.commands` has it."""
    began = time.monotonic()
    if subject is not None and not _is_config(subject):
        if gpu_check or overrides:
            raise UsageError(
                f"{subject!r} is not a config file, and --gpu-check, --set and --settings need one",
                "To check a run, leave them out.",
            )
        _check_run(find_remains(subject), as_json=as_json)
        return
    config_path = Path(subject) if subject is not None else None
    _require_writable(write, gpu_check=gpu_check)
    if gpu_check:
        require_gpu()
    console = output_console()
    config = load_config(config_path, overrides) if config_path else None
    if config is not None:
        warn(remote_code_warnings(config), error_console() if as_json else console)
    with errors_naming(config_path or Path("config")):
        # What a batch would show, the check shows by training.
        diagnosis = diagnose(config, _printing(error_console()), try_batch=not gpu_check)
        if not as_json:
            print_diagnosis(diagnosis, console)
        checked = None
        if gpu_check:
            checked = _checked(config, error_console() if as_json else console, began)
    if as_json:
        shown: dict[str, Any] = diagnosis_json(diagnosis)
        if checked is not None:
            shown["gpu_check"] = gpu_check_json(checked)
        print_json(shown)
    elif checked is not None:
        print_gpu_check(checked, console)
    if checked is not None and write is not None:
        _write_settings(checked, write, error_console() if as_json else console)
    if checked is not None and checked.failed:
        raise typer.Exit(WorkerError.exit_code)
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


def _checked(config: Config | None, console: Console, began: float) -> GpuCheck:
    """What the check finds, whose ten minutes count from when the command `began`."""
    scale = Scale()
    minutes = scale.seconds / 60
    console.print(f"\nChecking the GPU: at most {minutes:.0f} minutes.", highlight=False)
    return check_gpu(
        config,
        _printing(console),
        lambda result: print_part(result, console),
        scale=scale,
        until=began + scale.seconds,
    )


def _require_writable(path: Path | None, *, gpu_check: bool) -> None:
    """Raise UsageError for a file of settings that could not be written after the check."""
    if path is None:
        return
    if not gpu_check:
        raise UsageError("--write is for --gpu-check, which finds the settings", "Add --gpu-check.")
    if path.exists():
        raise UsageError(
            f"{path} exists, and is not overwritten", "Give --write another name, or delete it."
        )
    if not path.resolve().parent.is_dir():
        raise UsageError(f"{path}: no such folder", "Create the folder of --write first.")


def _write_settings(check: GpuCheck, path: Path, console: Console) -> None:
    """Leave what is recommended in a file, and say how it is used."""
    if not check.recommended:
        line = "Nothing is recommended beyond the defaults, so no settings were written."
    else:
        text = settings_yaml(check.recommended, f"For {check.base} on {check.card}.", path.name)
        write_atomically(path, text)
        line = f"Written to {path}. To use it: coralx evolve CONFIG --settings {path}"
    console.print(line, soft_wrap=True, highlight=False, markup=False)
