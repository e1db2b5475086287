"""What Unsloth knows of model types, read off the installed package: which it trains by fused
kernels of its own, and which overflow in float16.

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

OVERFLOWING = (
    "embedding_gemma2",
    "gemma3,",
    "gemma3text",
    "gemma3n",
    "gemma4",
    "glm4_moe",
    "gpt_oss",
    "qwen3_5",
    "qwen3_moe",
)
"""Types that overflow in float16, as that release lists them; `overflows_in_half` reads them."""

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
    if find_spec("unsloth") is None:
        return FusedTypes(KNOWN)
    tree = _source("unsloth", "models/loader.py")
    found = frozenset(_dispatched(tree)) if tree else frozenset()
    if SURE in found:
        return FusedTypes(found)
    return FusedTypes(
        KNOWN,
        "as far as CoralX knows: which types the installed Unsloth has kernels for could not be "
        "read from its models/loader.py",
    )


def overflows_in_half(kind: str | None) -> bool:
    """Whether activations of models of this type exceed what float16 holds, so that they train in
    bf16 or float32 alone. The rule is that of Unsloth's loader."""
    if kind is None:
        return False
    lower = kind.lower()
    plain = lower.replace("-", "").replace("_", "")
    return any(entry == plain or entry in f"{lower}," for entry in _overflowing())


@cache
def _overflowing() -> tuple[str, ...]:
    tree = _source("unsloth_zoo", "model_lists.py")
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FORCE_FLOAT32":
            return tuple(_constants(node.value)) or OVERFLOWING
    return OVERFLOWING


def _source(package: str, path: str) -> ast.Module | None:
    """A file of an installed package, parsed; None where there is none that can be."""
    spec = find_spec(package)  # of a submodule, it would import the package
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0]) / path
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


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
        yield from _constants(node.comparators[0])


def _constants(node: ast.AST) -> Iterator[str]:
    """The texts that stand in an expression, in small letters."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value.lower()
