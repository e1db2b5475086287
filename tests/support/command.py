"""The command line: in a process of its own, or in this one, where torch is imported already."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Said:
    """What a command ended with and printed."""

    code: int
    out: str
    err: str


def coralx(folder: Path, *arguments: str, code: int = 0, **environment: str) -> str:
    """Run the command in `folder`, in a process of its own; its output, whatever the stream."""
    done = subprocess.run(
        [sys.executable, "-m", "coralx", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    assert "Traceback" not in output
    return output


def coralx_here(folder: Path, *arguments: str, code: int = 0) -> str:
    """The same in this process: what a search without worker processes costs is its training."""
    from coralx.cli import main

    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(output):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["coralx", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
    assert (caught.value.code or 0) == code, output.getvalue()
    assert "Traceback" not in output.getvalue()
    return output.getvalue()
