"""Where errors become messages: what is wrong, what to do, and where the details are."""

from __future__ import annotations

import platform
import shlex
import sys
import tempfile
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from rich.markup import escape

from coralx import __version__
from coralx.cli.consoles import error_console
from coralx.errors import RUN, CoralXError, Interrupted, UsageError
from coralx.system.os_errors import WITHOUT_FOLDER, as_setup_error, has_working_folder

REPORT_IT = "This is a bug in CoralX. Please report it to the project's issue tracker"


def show_error(error: BaseException) -> int:
    """Print on standard error what went wrong, and return the exit code. An unexpected error is one
    line, and a file with the details."""
    if isinstance(error, KeyboardInterrupt):
        known: CoralXError | None = Interrupted("interrupted")
    elif isinstance(error, CoralXError):
        known = error
    else:
        known = as_setup_error(error) if isinstance(error, Exception) else None
    if known is None:
        known = _unexpected(error)
    elif known.details:
        known = type(known)(known.message, _sentences(known.hint, _where(error, known.details)))
    if isinstance(known, UsageError) and not has_working_folder():
        # no path can be found then, so whatever the message says is missing is not the cause
        known = UsageError(known.message, f"The working folder is gone. {WITHOUT_FOLDER}")
    console = error_console()
    console.print(f"[bold red]error:[/] {escape(known.message)}", soft_wrap=True)
    if known.hint:
        console.print(escape(known.hint), soft_wrap=True)
    if "--debug" in sys.argv:
        details = getattr(error, "details", "")
        trace = "".join(traceback.format_exception(error))
        console.print(f"{details}\n{trace}".strip(), markup=False, soft_wrap=True)
    return known.exit_code


def _unexpected(error: BaseException) -> CoralXError:
    line = next(iter(str(error).splitlines()), "")
    message = f"unexpected {type(error).__name__}{': ' if line else ''}{line}"
    way_on = " ".join(getattr(error, "__notes__", []))
    file = _details_file(error, "")
    hint = f"{REPORT_IT}, with {file}." if file else f"{REPORT_IT}; --debug shows the details."
    return CoralXError(message, _sentences(hint, way_on))


def _where(error: BaseException, details: str) -> str:
    file = _details_file(error, details)
    return f"Details: {file}" if file else "coralx --debug ... shows the details."


def _sentences(*parts: str) -> str:
    """One after the other; what quotes others, as a last line of a log, may lack its full stop."""
    *first, last = [part for part in parts if part] or [""]
    return " ".join(
        [*(part if part.endswith((".", "!", "?")) else f"{part}." for part in first), last]
    )


def _details_file(error: BaseException, details: str) -> Path | None:
    """Write a file with what is needed to find the cause, and return its path: in the run folder if
    there is one, else in the folder for temporary files; None where neither can be written."""
    text = _report(error, details)
    run = getattr(error, RUN, None)
    if run is not None and run.root.is_dir():
        with suppress(OSError):
            run.error.write_text(text, encoding="utf-8", errors="backslashreplace")
            return Path(run.error)
    with (
        suppress(OSError),
        tempfile.NamedTemporaryFile(
            "w",
            prefix="coralx-error-",
            suffix=".txt",
            delete=False,
            encoding="utf-8",
            errors="backslashreplace",
        ) as file,
    ):
        file.write(text)
        return Path(file.name)
    return None


def _report(error: BaseException, details: str) -> str:
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
        f"command: {shlex.join(sys.argv)}",
        f"CoralX {__version__}, Python {platform.python_version()}, {platform.platform()}",
    ]
    with suppress(Exception):
        from coralx.system.environment import versions

        lines.append(", ".join(f"{name} {version}" for name, version in versions().items()))
    trace = "".join(traceback.format_exception(error))
    return "\n".join([*lines, "", trace, *([details, ""] if details else [])])
