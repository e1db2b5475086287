"""`make`, as a user calls it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.paths import ROOT

OF_A_MAKE_ABOVE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
"""With these `make` says which folder it enters, as in `make test`."""


def run_make(
    *words: str, first_on_path: Path | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """What `make` prints, with a folder before all others on the PATH. It must end with `code`."""
    places = [str(first_on_path)] if first_on_path else []
    own = {name: value for name, value in os.environ.items() if name not in OF_A_MAKE_ABOVE}
    done = subprocess.run(
        ["make", *words],
        cwd=ROOT,
        env={**own, "PATH": os.pathsep.join([*places, os.environ["PATH"]])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done
