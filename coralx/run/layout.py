"""Every path of a run folder, and the names of runs under `runs/`."""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote

from coralx.errors import DamagedRunError, UsageError
from coralx.files import TEMPORARY
from coralx.printable import shown

RUNS = Path("runs")

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
        self.ledger = self.root / "ledger.jsonl"
        self.lock = self.root / "run.lock"
        self.owner = self.root / "owner.json"
        self.checkpoints = self.root / "checkpoints"
        self.partials = self.root / "partial"
        self.test_scores = self.root / "scores"
        self.report = self.root / "report.json"
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
                f"{self.ledger}: {shown(name)} can name no genome and no stage",
                "CoralX has not written it so.",
            )
        return name

    def half_written(self) -> list[Path]:
        """Temporary files and folders, whoever writes them or has left them."""
        genomes = (*self.checkpoints.glob("*"), *self.partials.glob("*"))
        folders = (self.root, self.best, self.test_scores, *genomes)
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
        with (folder / "ledger.jsonl").open("rb") as file:
            return file.readline().endswith(b"\n")
    except (OSError, ValueError):  # a name that no file can have
        return False


def find_run(name: str) -> RunLayout:
    """A run by folder, by its name under `runs/`, or `latest`. Raises UsageError."""
    if name == "latest":
        candidates = [path for path in RUNS.iterdir() if is_run(path)] if RUNS.is_dir() else []
        if not candidates:
            raise UsageError("there is no run under runs/ yet", "Start one: coralx evolve CONFIG")
        return RunLayout(max(candidates, key=lambda path: (path / "ledger.jsonl").stat().st_mtime))
    for folder in (Path(name), RUNS / name):
        if is_run(folder):
            return RunLayout(folder)
    known = sorted(path.name for path in RUNS.iterdir() if is_run(path)) if RUNS.is_dir() else []
    listed = f"Runs here: {', '.join(known)}." if known else "There is no run under runs/ here."
    raise UsageError(f"{shown(name)} is neither a run folder nor a run under runs/", listed)


def find_remains(name: str) -> RunLayout:
    """As `find_run`, and also what is left of a run that has lost its ledger. Raises UsageError."""
    try:
        return find_run(name)
    except UsageError:
        for layout in (RunLayout(Path(name)), RunLayout(RUNS / name)):
            if any(p.exists() for p in (layout.config, layout.ledger, layout.checkpoints)):
                return layout
        raise


def latest_run(name: str) -> RunLayout:
    """The newest run called `name` or `name-<number>`. Raises UsageError if there is none."""
    pattern = re.compile(rf"{re.escape(name)}(-\d+)?")
    folders = RUNS.iterdir() if RUNS.is_dir() else ()
    found = [path for path in folders if pattern.fullmatch(path.name) and is_run(path)]
    if not found:
        raise UsageError(
            f"there is no run named {name!r} under runs/", "The first stage starts one."
        )
    return RunLayout(max(found, key=lambda path: (path / "ledger.jsonl").stat().st_mtime))


def refuse_taken(name: str) -> None:
    """Raise UsageError if there is a run of that name, or if no run can be called so."""
    if not _RUN.fullmatch(name):
        raise UsageError(
            f"{shown(name)} cannot name a run",
            "Use letters (a-z, A-Z), digits, dots, dashes and underscores, 100 at most, and begin "
            "with a letter or a digit.",
        )
    layout = RunLayout(RUNS / name)
    if is_run(layout.root):
        raise UsageError(
            f"a run named {name!r} exists already ({layout.root})",
            f"Continue it with --resume {name}, or choose another --name.",
        )
