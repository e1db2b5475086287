"""What kind of model a config's base is, and how wide, as far as this machine knows without torch.

A base on the hub is known by the task alone, whether it was downloaded before or not: so a plan and
a run, and two machines, take the same priors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coralx.config.experiment import Model
from coralx.config.metric_catalogue import CAUSAL

Kind = Literal["encoder", "decoder"]

MOST_BYTES = 1 << 20
"""Of a config.json that is read."""

WIDTHS = ("hidden_size", "n_embd", "d_model", "dim")
"""What configs of transformers call the width of a model."""

ENCODERS = frozenset(
    "albert bert camembert deberta deberta-v2 distilbert electra ernie eurobert modernbert mpnet "
    "nomic_bert roberta xlm-roberta xlm-roberta-xl".split()
)
"""`model_type` of encoders in transformers."""


@dataclass(frozen=True)
class BaseKind:
    """Kind and hidden size of a base; None: not known."""

    kind: Kind | None = None
    width: int | None = None


BUILTIN = {"minilm": BaseKind("encoder", 384), "smollm2": BaseKind("decoder", 576)}
"""The same whether their package is installed or the hub is asked."""


def kind_of_base(model: Model, folders: Iterable[Path]) -> BaseKind:
    """That of a builtin, or by the config.json of a local folder, looked for below each of
    `folders`; else what the task says."""
    name = model.base or ""
    if name.startswith("builtin:"):
        return BUILTIN.get(name.removeprefix("builtin:"), BaseKind())
    described = next((d for f in folders if (d := _described(f, name))), {}) if name else {}
    kind: Kind | None = "decoder" if model.task in CAUSAL else _kind(described)
    return BaseKind(kind, _width(described))


def _described(folder: Path, name: str) -> Mapping[str, Any]:
    """The config.json of a base; empty where there is none that can be read."""
    try:
        path = folder / Path(name).expanduser() / "config.json"
        if path.stat().st_size > MOST_BYTES:
            return {}
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError, RecursionError):
        return {}  # a base that cannot be read is refused where it is to be trained
    return described if isinstance(described, dict) else {}


def _kind(described: Mapping[str, Any]) -> Kind | None:
    if described.get("model_type") in ENCODERS:
        return "encoder"
    names = described.get("architectures")
    names = names if isinstance(names, list) else []
    is_causal = any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in names)
    return "decoder" if is_causal else None


def _width(described: Mapping[str, Any]) -> int | None:
    inner = described.get("text_config")
    for section in (inner, described):
        if isinstance(section, dict):
            found = (section.get(name) for name in WIDTHS)
            width = next((w for w in found if isinstance(w, int) and w > 0), None)
            if width is not None:
                return width
    return None
