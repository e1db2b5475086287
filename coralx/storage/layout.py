"""Every path of a run folder, and the names of runs under `runs/`."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatch
from pathlib import Path
from shlex import quote

from coralx.errors import CoralXError, DamagedRunError, UsageError
from coralx.system.files import TEMPORARY
from coralx.text import shown

RUNS = Path("runs")
LEDGER = "ledger.jsonl"

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}")
"""A genome's id or a stage's name: one that is no path. The ledger may not be our own."""

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class RunLayout:
    """The files of one run. Nothing else in the project joins paths of a run folder.

    Whatever is asked for lies in it: a genome or a stage whose name could lead out of it (`..`, a
    slash) raises DamagedRunError.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.name = self.root.name
        self.config = self.root / "config.yaml"
        self.ledger = self.root / LEDGER
        self.lock = self.root / "run.lock"
        self.owner = self.root / "owner.json"
        self.checkpoints = self.root / "checkpoints"
        self.partials = self.root / "partial"
        self.test_scores = self.root / "scores"
        self.report = self.root / "report.json"
        self.profile = self.root / "profile.json"
        self.pareto = self.root / "pareto.csv"
        self.best = self.root / "best"
        self.error = self.root / "error.txt"

    def checkpoint(self, genome: str, stage: str) -> Path:
        return self.checkpoints / self._part(genome) / self._part(stage)

    def partial(self, genome: str, stage: str) -> Path:
        """Where a stage that is under way keeps what it has trained."""
        return self.partials / self._part(genome) / self._part(stage)

    def scores(self, genome: str | None) -> Path:
        """What a genome, or the untuned base, says about each row of the test split."""
        return self.test_scores / f"{self._part(genome or '_untuned')}.safetensors"

    def predictions(self, genome: str, stage: str) -> Path:
        """What a genome says about each validation row at the end of a stage, if that is kept."""
        folder = self.root / "predictions" / self._part(genome)
        return folder / f"{self._part(stage)}.safetensors"

    def best_adapter(self, genome: str) -> Path:
        return self.best / self._part(genome)

    def _part(self, name: str) -> str:
        if not _PART.fullmatch(name):
            raise DamagedRunError(
                f"{self.ledger}: {shown(name)} is not a valid name of a genome or stage",
                "The ledger was changed by other means than CoralX: restore it from a backup.",
            )
        return name

    @staticmethod
    def is_half_written(path: Path) -> bool:
        """Whether the path is one of a temporary file or folder."""
        return fnmatch(path.name, TEMPORARY)

    def half_written(self) -> list[Path]:
        """Temporary files and folders, whoever writes them or has left them."""
        genomes = (*self.checkpoints.glob("*"), *self.partials.glob("*"))
        folders = (self.root, self.best, self.test_scores, *genomes)
        # A folder that came from elsewhere may hold links to folders that are not the run's.
        own = [folder for folder in folders if not folder.is_symlink()]
        return sorted(path for folder in own for path in folder.glob(TEMPORARY))

    @property
    def shortest_name(self) -> str:
        """What names the run on a command line given here, in quotes where the shell needs them:
        its name under ./runs, else its path."""
        return quote(self.name if self._is_here() else str(self.root))

    def _is_here(self) -> bool:
        """Whether it lies under ./runs; the working folder may be gone."""
        try:
            return self.root.parent == RUNS.resolve()
        except OSError:
            return False

    def relative(self, path: Path) -> str:
        """`path` as it is written into reports: relative to the run folder, with slashes."""
        return path.relative_to(self.root).as_posix()


def is_run(folder: Path) -> bool:
    """Whether a run has begun there: its ledger holds a complete first line."""
    try:
        with (folder / LEDGER).open("rb") as file:
            return file.readline().endswith(b"\n")
    except (OSError, ValueError):  # a name that no file can have
        return False


def is_free(folder: Path) -> bool:
    """Whether a new run can be made there and nothing is lost by it: there is nothing, or what a
    process leaves that is killed before its run has begun. What cannot be looked at is not free."""
    try:
        if not os.path.isdir(folder):
            return not os.path.lexists(folder)
        names = {path.name for path in folder.iterdir() if not RunLayout.is_half_written(path)}
        layout = RunLayout(folder)
        if layout.owner.name in names:  # what was killed was about to write the first event
            names.discard(layout.config.name)
        if _is_torn(layout.ledger):
            names.discard(LEDGER)
        return names <= {layout.lock.name, layout.owner.name}
    except OSError:
        return False


def _is_torn(ledger: Path) -> bool:
    """Whether it can be read, and has not even one complete line."""
    try:
        return ledger.is_file() and b"\n" not in ledger.read_bytes()
    except OSError:
        return False


def ledger_fault(layout: RunLayout) -> str | None:
    """What keeps a ledger from being read at all; None where it has a complete first line."""
    try:
        with layout.ledger.open("rb") as file:
            line = file.readline()
    except FileNotFoundError:
        is_link = layout.ledger.is_symlink()
        return "a link that leads nowhere" if is_link else "missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if line.endswith(b"\n"):
        return None
    return "cut off in its first line" if line else "empty"


def ledger_error(layout: RunLayout, fault: str) -> DamagedRunError:
    """The error for a run that cannot be taken up, for what `ledger_fault` says of its ledger."""
    return DamagedRunError(f"{layout.ledger}: {fault}", ledger_way_out(layout))


def run_gone_error(ledger: Path) -> DamagedRunError:
    """The error for a run folder, or its ledger, that is not there any more while a process is at
    work on it."""
    what = ledger if ledger.parent.is_dir() else ledger.parent
    return DamagedRunError(
        f"{what}: deleted, moved or replaced during the run, which therefore ended",
        "If it was moved, move it back, or resume it where it is: coralx evolve --resume FOLDER",
    )


def ledger_way_out(layout: RunLayout) -> str:
    """What can be done where the ledger of a run is lost."""
    best = f" The adapters in {layout.best} can be used as they are." if _has(layout.best) else ""
    return (
        "Restore the ledger from a backup, or fix its permissions: nothing replaces it. To start "
        f"anew, choose another name, or remove the folder {layout.root}.{best}"
    )


def _has(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def _holds_remains(folder: Path) -> bool:
    """Whether a run was there, as far as can be told; its ledger may be gone. A config alone is a
    sign of one under `runs/`, or beside a lock. Raises DamagedRunError where one cannot look."""
    if not os.path.isdir(folder):
        return False
    try:
        names = set(os.listdir(folder))
    except OSError as error:
        raise DamagedRunError(
            f"{folder.absolute()}: cannot be read ({error.strerror})",
            "Fix its permissions, or choose another name.",
        ) from None
    layout = RunLayout(folder)
    parts = {layout.ledger, layout.checkpoints, layout.partials, layout.best}
    if layout.root.parent == RUNS.resolve() or layout.lock.name in names:
        parts.add(layout.config)
    return not names.isdisjoint(path.name for path in parts)


def _newest(folders: list[Path]) -> RunLayout | None:
    """The run among these folders whose ledger was written last, whatever state it is in: one that
    has lost it counts by its folder's own time, so that no older run is taken for it. Raises
    DamagedRunError where it cannot be read."""
    runs = [path for path in folders if not is_free(path) and _was_a_run(path)]
    if not runs:
        return None
    layout = RunLayout(max(runs, key=_last_written))
    if (fault := ledger_fault(layout)) is not None:
        raise ledger_error(layout, fault)
    return layout


def _was_a_run(folder: Path) -> bool:
    try:
        return _holds_remains(folder)
    except DamagedRunError:  # it cannot be looked into, so nobody knows
        return True


def _last_written(folder: Path) -> float:
    try:
        return (folder / LEDGER).lstat().st_mtime
    except OSError:
        return folder.lstat().st_mtime


def _folders() -> list[Path]:
    return sorted(path for path in RUNS.iterdir() if path.is_dir()) if RUNS.is_dir() else []


def find_run(name: str) -> RunLayout:
    """A run by folder, by its name under `runs/`, or `latest`. Raises UsageError where there is
    none, DamagedRunError where its ledger is gone or cannot be read."""
    layout = find_remains(name)
    if (fault := ledger_fault(layout)) is None:
        return layout
    if is_free(layout.root):
        raise UsageError(
            f"no run has begun in {layout.root}: it ended before its first event",
            "Start it again: coralx evolve CONFIG",
        )
    raise ledger_error(layout, fault)


def find_remains(name: str) -> RunLayout:
    """As `find_run`, and also what is left of a run that has lost its ledger. Raises UsageError."""
    if name == "latest":
        if (newest := _newest(_folders())) is None:
            raise UsageError("there is no run under runs/ yet", "Start one: coralx evolve CONFIG")
        return newest
    folders = (Path(name), RUNS / name)
    # A complete run under either meaning comes before the remains of one.
    for folder in folders:
        if is_run(folder):
            return RunLayout(folder)
    for folder in folders:
        if _holds_remains(folder):
            return RunLayout(folder)
    known = [path.name for path in _folders() if is_run(path)]
    listed = f"Runs here: {', '.join(known)}." if known else "There is no run under runs/ here."
    raise UsageError(f"{shown(name)} is neither a run folder nor a run under runs/", listed)


def latest_run(name: str) -> RunLayout:
    """The newest run called `name` or `name-<number>`. Raises UsageError if there is none."""
    pattern = re.compile(rf"{re.escape(name)}(-\d+)?")
    newest = _newest([path for path in _folders() if pattern.fullmatch(path.name)])
    if newest is None:
        raise UsageError(
            f"there is no run named {name!r} under runs/", "The first stage starts one."
        )
    return newest


def refuse_taken(name: str) -> None:
    """Raise UsageError if no run can be called so, or something lies there already; DamagedRunError
    if it is a run whose ledger cannot be read."""
    if not _RUN.fullmatch(name):
        raise UsageError(
            f"{shown(name)} cannot name a run",
            "Use letters (a-z, A-Z), digits, dots, dashes and underscores, 100 at most, and begin "
            "with a letter or a digit.",
        )
    folder = RUNS / name
    if not is_free(folder):
        raise _taken(folder)


def _taken(folder: Path) -> CoralXError:
    if is_run(folder):
        return UsageError(
            f"a run named {folder.name!r} exists already ({folder.resolve()})",
            f"Continue it with --resume {folder.name}, or choose another --name.",
        )
    if _holds_remains(folder):
        layout = RunLayout(folder)
        fault = f"{layout.ledger}: {ledger_fault(layout)}"
        return DamagedRunError(
            f"the name {folder.name!r} is taken by a run that cannot be read: {fault}",
            ledger_way_out(layout),
        )
    what = "a folder without a run" if os.path.isdir(folder) else "not a folder"
    return UsageError(
        f"{folder.absolute()} exists already, and is {what}",
        "Choose another --name, or move it away.",
    )
