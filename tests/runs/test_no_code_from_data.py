"""No module of CoralX makes code of data."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import coralx

KIN = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
CALLS = {"eval", "exec", "compile", "__import__"}
SOURCES = sorted(Path(coralx.__file__).parent.rglob("*.py"))


def forbidden_in(tree: ast.AST) -> list[str]:
    """Pickle and its kin, torch's use of it, and text run as code. `model.eval()` is neither."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                found += [a.name for a in names if a.name.split(".")[0] in KIN]
            case ast.ImportFrom(module=str(module), names=names):
                found += [module] if module.split(".")[0] in KIN else []
                if module == "torch":
                    found += [f"torch.{a.name}" for a in names if a.name in ("load", "save")]
            case ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save" as name):
                found.append(f"torch.{name}")
            case ast.Attribute(value=ast.Name(id="builtins"), attr=name) if name in CALLS:
                found.append(f"builtins.{name}")
            case ast.Name(id=name) if name in CALLS:
                found.append(name)
            case ast.Attribute(attr="read_pickle" | "to_pickle" as name):
                found.append(name)
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                found.append("allow_pickle")
            case _:
                pass
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_package_pickles_nothing_and_runs_no_text(path: Path) -> None:
    assert forbidden_in(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import joblib.x as y",
        "from marshal import loads",
        "import torch\ntorch.load('x')",
        "from torch import save",
        "eval('1')",
        "run = exec",
        "builtins.eval('1')",
        "np.load('x', allow_pickle=True)",
        "frame.to_pickle('x')",
    ],
)
def test_what_is_forbidden_would_be_found(code: str) -> None:
    assert forbidden_in(ast.parse(code))


def test_putting_a_model_into_evaluation_is_allowed() -> None:
    assert forbidden_in(ast.parse("model.eval()\nre.compile('x')\nconfig.load()")) == []
