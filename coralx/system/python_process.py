"""The command line of further Python processes, each of which runs a module of CoralX."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The folder that this CoralX is imported from."""

_RUN = (
    "import sys; from runpy import run_module; root, module = sys.argv[1:3]; del sys.argv[1:3]; "
    "sys.path.insert(0, root); import coralx; del sys.path[0]; "
    "run_module(module, run_name='__main__', alter_sys=True)"
)
"""ROOT is on the path only while CoralX is imported, since it may be the working folder."""


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of this CoralX. Nothing else is imported from the working
    folder (`-P`), where a file may have the name of a library."""
    return [sys.executable, "-P", "-c", _RUN, str(ROOT), module, *arguments]
