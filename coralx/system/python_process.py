"""Further Python processes of CoralX's own: each runs one of its modules."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""Where this very CoralX lies."""

_RUN = (
    "import sys; from runpy import run_module; root, module = sys.argv[1:3]; del sys.argv[1:3]; "
    "sys.path.insert(0, root); import coralx; del sys.path[0]; "
    "run_module(module, run_name='__main__', alter_sys=True)"
)
"""ROOT is looked at for CoralX alone: it may be the working folder."""


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this very CoralX. Nothing is imported from the working
    folder, where a file may have the name of a library."""
    return [sys.executable, "-P", "-c", _RUN, str(ROOT), module, *arguments]
