"""An option that takes several runs after one flag, which neither click nor typer knows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand

LEARN_FROM, TUNE_SCHEDULE = "--learn-from", "--tune-schedule"
FLAGS = (LEARN_FROM, TUNE_SCHEDULE)
CONFIGS = (".yaml", ".yml")
CURVES = ".csv"


class SeveralRuns(TyperCommand):
    """A command whose `--learn-from A B C` means `--learn-from A --learn-from B --learn-from C`.
    `--tune-schedule` does likewise, and may also stand alone.

    The runs end before the next option, and before a config: runs are folders, configs are files,
    and files of curves end in .csv.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, flagged(args))


def flagged(arguments: Sequence[str]) -> list[str]:
    """The arguments with the flag before each run that follows the first. `--tune-schedule` that
    stands alone gets an empty value."""
    written: list[str] = []
    flag, is_first = "", False
    for place, argument in enumerate(arguments):
        if argument == "--":  # only arguments follow
            return [*written, *_alone(flag, is_first), *arguments[place:]]
        if argument.startswith("-"):
            written += _alone(flag, is_first)
            flag = next((f for f in FLAGS if argument == f or argument.startswith(f"{f}=")), "")
            is_first = argument in FLAGS
        elif flag and not is_first:
            flag = "" if _is_config(argument) else flag
            written += [flag] if flag else []
        elif flag == TUNE_SCHEDULE and _is_config(argument):
            written += _alone(flag, is_first)
            flag, is_first = "", False
        else:
            is_first = False
        written.append(argument)
    return [*written, *_alone(flag, is_first)]


def _alone(flag: str, is_first: bool) -> list[str]:
    return [""] if flag == TUNE_SCHEDULE and is_first else []


def _is_config(argument: str) -> bool:
    is_file = os.path.isfile(argument) and not argument.lower().endswith(CURVES)
    return argument.endswith(CONFIGS) or is_file
