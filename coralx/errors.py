"""What can go wrong, each with a message, a way out and an exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from coralx.text import counted, printable, shortened

LONGEST_PROBLEM = 2_000
"""Characters of one problem of a config; the values that it quotes may be of any length."""

RUN = "coralx_run"
"""The attribute in which an error of any class carries the layout of the run it happened in."""


class CoralXError(Exception):
    """A known failure: `message` says what is wrong and where, `hint` what to do about it.

    Both are printable, whatever they quote. `details`, such as a worker's traceback, are written to
    a file and not shown.
    """

    exit_code: ClassVar[int] = 4

    def __init__(self, message: str, hint: str = "", details: str = "") -> None:
        self.message = printable(message)
        self.hint = printable(hint)
        self.details = details
        super().__init__(self.message)


class UsageError(CoralXError):
    """The command line contradicts itself or the config, or names something that does not exist."""

    exit_code = 2


class ConfigError(CoralXError):
    """A config cannot be used. All its problems are reported together, one a line, each beginning
    with its key path; `source` is the file, or "config" where only the caller knows it."""

    exit_code = 2

    def __init__(self, source: str, problems: Sequence[str], hint: str = "") -> None:
        count = counted(len(problems), "problem")
        self.problems = tuple(shortened(printable(p), LONGEST_PROBLEM) for p in problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{source}: {count}\n{lines}", hint)
        self.source = source

    def located(self, source: str) -> ConfigError:
        """The same error, naming the file it is about."""
        return ConfigError(source, self.problems, self.hint)


class NoResultError(CoralXError):
    """The search ended and no genome finished the last stage."""

    exit_code = 3


class SetupError(CoralXError):
    """The environment prevents the run: a missing extra, a full disk, a lock held elsewhere."""

    exit_code = 4


class DamagedRunError(CoralXError):
    """A file of a run folder has changed since it was written, or is missing."""

    exit_code = 4


class WorkerError(CoralXError):
    """A worker process failed, and so did every further attempt."""

    exit_code = 4


class OutOfMemory(CoralXError):
    """A genome does not fit into the device's memory, not even with one row at a time."""

    exit_code = 4


class NotDerivable(CoralXError):
    """An operator that trains nothing cannot be applied to the adapters it is given."""

    exit_code = 4


class Interrupted(CoralXError):
    """The user stopped the run; it can be resumed."""

    exit_code = 130


def error_from(kind: str, message: str, hint: str, problems: Sequence[str]) -> CoralXError:
    """Rebuild an error that a worker reported by the name of its class."""
    if kind == ConfigError.__name__:
        return ConfigError("config", problems, hint)
    for cls in (UsageError, NoResultError, SetupError, DamagedRunError, OutOfMemory, NotDerivable):
        if cls.__name__ == kind:
            return cls(message, hint)
    return WorkerError(message, hint)
