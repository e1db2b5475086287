"""Which model types Unsloth has fused kernels for, and which overflow in float16, as its installed
source says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from coralx.backends import unsloth_models as models
from coralx.backends.unsloth_models import KNOWN, FusedTypes, fused_types, overflows_in_half

Install = Callable[[str, str, str], None]

LOADER = """
class FastLanguageModel:
    def from_pretrained(model_name, dtype = None):
        if model_type == "llama":
            if rope == "llama3" and not SUPPORTS: raise ImportError("too old")
            dispatch_model = FastLlamaModel
        elif model_type in ("gemma9", "gemma9_text"):
            dispatch_model = FastGemma9Model
        elif model_type == "cohere":  # of no class of its own
            logger.warning("disabled")
        elif SUPPORTS and model_type == "qwen9":
            dispatch_model = FastQwen9Model if dtype else FastQwen9MoeModel
        elif not is_known(model_type):
            dispatch_model = None
        else:
            return FastModel.from_pretrained(model_name)
"""


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    fused_types.cache_clear()
    models._overflowing.cache_clear()
    yield
    fused_types.cache_clear()
    models._overflowing.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package of that name with one file, which is never to be imported."""

    def put(package: str, path: str, source: str) -> None:
        (tmp_path / package / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('imported')")
        (tmp_path / package / path).write_text(source, encoding="utf-8")
        monkeypatch.delitem(sys.modules, package, raising=False)
        monkeypatch.syspath_prepend(str(tmp_path))

    return put


def test_the_types_are_those_of_the_installed_release(install: Install) -> None:
    install("unsloth", "models/loader.py", LOADER)
    assert fused_types() == FusedTypes(frozenset({"llama", "gemma9", "gemma9_text", "qwen9"}))


@pytest.mark.parametrize(
    "source", ["DISPATCH = {'llama': FastLlamaModel}", "if:", "", "x = '\x00'"], ids=range(4)
)
def test_a_source_that_looks_otherwise_is_told_and_what_is_known_counts(
    install: Install, source: str
) -> None:
    install("unsloth", "models/loader.py", source)
    assert fused_types().names == KNOWN
    assert "could not be read" in fused_types().caveat


def test_a_release_without_the_file_is_told(install: Install) -> None:
    install("unsloth", "models/other.py", LOADER)
    assert fused_types().names == KNOWN
    assert fused_types().caveat


def test_without_unsloth_what_is_known_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "find_spec", lambda name: None)  # noqa: ARG005
    assert fused_types() == FusedTypes(KNOWN)
    assert overflows_in_half("gemma3n")


@pytest.mark.skipif(find_spec("unsloth") is None, reason="unsloth is not installed: make unsloth")
def test_the_tested_release_has_the_types_that_are_known() -> None:
    assert fused_types() == FusedTypes(KNOWN)
    assert set(models.OVERFLOWING) <= set(models._overflowing())


@pytest.mark.parametrize(
    ("kind", "overflows"),
    [
        ("gemma3", True),
        ("gemma3_text", True),
        ("gemma3n", True),
        ("qwen3_5_text", True),
        ("qwen3", False),
        ("gemma2", False),
        ("llama", False),
        (None, False),
    ],
)
def test_types_that_overflow_in_float16(kind: str | None, overflows: bool) -> None:
    assert overflows_in_half(kind) == overflows


def test_types_that_overflow_are_those_of_the_installed_release(install: Install) -> None:
    install("unsloth_zoo", "model_lists.py", 'FORCE_FLOAT32 = ["Llama9,", "phi9text"]')
    found = [overflows_in_half(kind) for kind in ("llama9", "llama9n", "phi9_text", "gemma3")]
    assert found == [True, False, True, False]
