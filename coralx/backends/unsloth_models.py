"""Which model types Unsloth trains by fused kernels of its own, read off the installed package.

Its loader hands a model of a type that it knows to a class of its own, and every other one to a
generic class (FastModel), which rewrites the forward of whatever transformers can load. The source
is read, not imported: importing Unsloth changes transformers and torch for the whole process.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

KNOWN = frozenset({"gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3"})
"""Those of Unsloth 2026.10.9: what counts where no package is installed, or where it cannot be
read."""

SURE = "llama"
"""A type that every release has kernels for: where it is not found, the source was misread."""

TYPE, CLASS = "model_type", "dispatch_model"
"""How the loader calls a model's type, and the class that it picks for it."""


@dataclass(frozen=True)
class FusedTypes:
    """Model types whose q, k, v and gate, up, down Unsloth trains by fused kernels."""

    names: frozenset[str]
    caveat: str = ""
    """What is to be said where they are not those of the installed release."""


@cache
def fused_types() -> FusedTypes:
    """Those of the installed Unsloth. Without it, or where its source looks otherwise, those that
    this release of CoralX knows of."""
    # find_spec of a submodule would import the package.
    spec = find_spec("unsloth")
    if spec is None or not spec.submodule_search_locations:
        return FusedTypes(KNOWN)
    loader = Path(spec.submodule_search_locations[0]) / "models" / "loader.py"
    try:
        found = frozenset(_dispatched(ast.parse(loader.read_text(encoding="utf-8"))))
    except (OSError, SyntaxError, ValueError, RecursionError):
        found = frozenset()
    if SURE in found:
        return FusedTypes(found)
    return FusedTypes(
        KNOWN,
        "as far as CoralX knows: which types the installed Unsloth has kernels for could not be "
        "read from its models/loader.py",
    )


def _dispatched(tree: ast.Module) -> Iterator[str]:
    """The types that an `if` of the loader compares with where it picks a class for them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and _picks_class(node.body):
            yield from _compared(node.test)


def _picks_class(body: Iterable[ast.stmt]) -> bool:
    return any(
        isinstance(node, ast.Name) and node.id == CLASS and isinstance(node.ctx, ast.Store)
        for statement in body
        for node in ast.walk(statement)
    )


def _compared(test: ast.expr) -> Iterator[str]:
    """The types of `model_type == "llama"`, or of `model_type in ("qwen3", ...)`."""
    for node in ast.walk(test):
        if not isinstance(node, ast.Compare) or not isinstance(node.left, ast.Name):
            continue
        if node.left.id != TYPE or not isinstance(node.ops[0], ast.Eq | ast.In):
            continue
        for constant in ast.walk(node.comparators[0]):
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                yield constant.value
