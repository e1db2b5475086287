"""An option that takes several runs after one flag, which neither click nor typer knows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

FLAG = "--learn-from"
CONFIGS = (".yaml", ".yml")


class SeveralRuns(TyperCommand):
    """A command whose `--learn-from A B C` means `--learn-from A --learn-from B --learn-from C`.

    The runs end before the next option, and before a config: runs are folders, configs are files.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, flagged(args))


def flagged(arguments: Sequence[str]) -> list[str]:
    """The arguments with the flag before each run that follows the first."""
    written: list[str] = []
    follows = is_first = False
    for place, argument in enumerate(arguments):
        if argument == "--":  # only arguments follow
            return [*written, *arguments[place:]]
        if argument.startswith("-"):
            follows = argument == FLAG or argument.startswith(f"{FLAG}=")
            is_first = argument == FLAG
        elif follows and not is_first:
            follows = not _is_config(argument)
            written += [FLAG] if follows else []
        else:
            is_first = False
        written.append(argument)
    return written


def _is_config(argument: str) -> bool:
    return argument.endswith(CONFIGS) or os.path.isfile(argument)
