"""One process at a time owns a run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from coralx.storage.layout import RunLayout
from coralx.storage.lock import owning

TRY_TO_OWN = """
import sys
from pathlib import Path
from coralx.errors import SetupError
from coralx.storage.layout import RunLayout
from coralx.storage.lock import owning
try:
    with owning(RunLayout(Path(sys.argv[1]))):
        print("owned")
except SetupError as error:
    print(error.message)
"""


def test_second_process_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "x")
    layout.root.mkdir()

    def attempt() -> str:
        command = [sys.executable, "-c", TRY_TO_OWN, str(layout.root)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with owning(layout):
        refused = attempt()
        assert "'x' is in use" in refused
        assert f"process {os.getpid()} " in refused
        assert layout.owner.exists()  # the refused one has not taken the owner's note away
    assert attempt() == "owned\n"
    assert not layout.owner.exists()
