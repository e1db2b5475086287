"""The modes of a run, in a module of their own: the command line names them before it loads the
config."""

from __future__ import annotations

from typing import Literal

Mode = Literal["simulation", "hyperband", "full"]
