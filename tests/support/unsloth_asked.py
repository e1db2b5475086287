"""What CoralX asks of Unsloth: `unsloth_asked.py FOLDER`, with the stand-ins of Unsloth's
packages on the path. Writes FOLDER/seen.json.

FOLDER holds `model`, and versions of it: `two` and `three`, classifiers of so many classes, and
`unpaddable`, whose tokenizer has no padding, and `bert`. A process of its own, as with Unsloth
itself.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import coralx.training.unsloth as ours  # isort: skip
import torch
from unsloth import ASKED, ENVIRONMENT
from unsloth_zoo.gradient_checkpointing import CALLED

from coralx.backends.unsloth_models import FusedTypes
from coralx.config import Config, parse_config
from coralx.errors import CoralXError
from coralx.training import base_model

FOLDER = Path(sys.argv[1])
GIVEN = json.loads((FOLDER / "config.json").read_text())
GPU, CPU = SimpleNamespace(type="cuda", index=0), SimpleNamespace(type="cpu", index=None)
SEEN: dict[str, Any] = {"environment": ENVIRONMENT}
ACCELERATOR: dict[str, Any] = {
    "is_available": lambda: True,
    "synchronize": lambda: CALLED.append("synchronize"),
    "empty_host_cache": lambda: CALLED.append("empty host cache"),
}
"""A GPU, as far as giving memory back asks for one."""


def configured(model: str, task: str, **changes: Any) -> Config:
    raw = copy.deepcopy(GIVEN)
    raw["model"] |= {"base": str(FOLDER / model), "task": task, **changes}
    if task == "sequence-classification":
        raw["data"].pop("prompt")
    return parse_config(raw, "test")


def loaded(config: Config, device: Any, dtype: torch.dtype = torch.bfloat16) -> tuple[Any, Any]:
    backend = ours.UnslothBackend()
    backend._base = backend.load(config, ["a", "b"], device, dtype, lambda said: None)  # noqa: ARG005
    return backend, backend._base


def refusal(config: Config, device: Any) -> str:
    try:
        loaded(config, device)
    except CoralXError as error:
        return f"{error.message}\n{error.hint}"
    return ""


def recomputing() -> None:
    """What is asked for texts of several lengths, and what dropping an adapter does."""
    for length in (48, 511, 512, 900):
        for device in (GPU, CPU):
            for recomputes in (True, False):
                config = configured("model", "label-tokens", max_length=length)
                backend, base = loaded(config, device)
                CALLED.clear()
                backend.wrap(config, base, recomputes=recomputes)
                with patch.multiple(torch.accelerator, **ACCELERATOR):
                    backend.dropped()
                SEEN[f"{length} {device.type} {recomputes}"] = {
                    "length": ASKED[-2]["max_seq_length"],
                    "loaded": ASKED[-2]["use_gradient_checkpointing"],
                    "wrapped": ASKED[-1]["use_gradient_checkpointing"],
                    "called": list(CALLED),
                }


def classifying() -> None:
    """The head, beside the one that PEFT's backend has on a CPU."""
    for model in ("model", "two", "three"):
        config = configured(model, "sequence-classification")
        theirs = base_model.load(
            config,
            ["a", "b"],
            torch.device("cpu"),
            torch.float32,
            lambda said: None,  # noqa: ARG005
        )
        backend, base = loaded(config, GPU)
        backend.wrap(config, base, recomputes=False)
        SEEN[f"head of {model}"] = {
            "equal": torch.equal(base.model.score.weight, theirs.model.score.weight),
            "type": str(base.model.score.weight.dtype),
            "backbone": str(base.model.model.embed_tokens.weight.dtype),
            "head": base.head,
            "task": base.task_type,
            "padding": [base.padding, base.model.config.pad_token_id, theirs.padding],
            "notes": [note for note in base.notes if "classes" in note],
            "same notes": [n for n in theirs.notes if n not in base.notes],
            "targets": ASKED[-1]["target_modules"],
        }


recomputing()
classifying()
SEEN["compiles"] = [os.environ.get("UNSLOTH_COMPILE_DISABLE")]
setattr(ours, "fused_types", lambda: FusedTypes(frozenset()))  # noqa: B010  mypy sees no such name
plain = configured("model", "label-tokens")
compiled = plain.runtime.model_copy(update={"block_compile": True})
loaded(plain.model_copy(update={"runtime": compiled}), GPU)
SEEN["compiles"].append(os.environ.get("UNSLOTH_COMPILE_DISABLE"))
loaded(plain, GPU)
SEEN["compiles"].append(os.environ.get("UNSLOTH_COMPILE_DISABLE"))
SEEN["on a CPU"] = refusal(configured("model", "sequence-classification"), CPU)
SEEN["encoder"] = refusal(configured("bert", "sequence-classification"), GPU)
SEEN["unpaddable"] = refusal(configured("unpaddable", "label-tokens"), GPU)
(FOLDER / "seen.json").write_text(json.dumps(SEEN))
