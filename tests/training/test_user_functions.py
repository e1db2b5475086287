"""Functions of the user's own: where they are found, and how what is wrong with them is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coralx.config import Config, load_config
from coralx.config.load import without_functions
from coralx.errors import ConfigError
from coralx.metrics.user_metrics import Predictions
from coralx.training import user_functions as functions
from tests.support.paths import ROOT

NOTHING = Predictions(
    "",
    "validation",
    ("a",),
    ("",),
    ("no", "yes"),
    np.array([[0.2, 0.8]]),
    np.array([1]),
    np.zeros((0, 2)),
    np.zeros(0),
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a config lies; what is imported from there is forgotten afterwards."""
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def config_in(folder: Path, code: str, function: str = "mine:f") -> Config:
    (folder / "mine.py").write_text(code)
    path = folder / "c.yaml"
    path.write_text(f"objectives: [{{metric: '{function}', direction: maximize}}]")
    return load_config(path)


def told(error: pytest.ExceptionInfo[ConfigError]) -> str:
    (problem,) = error.value.problems
    return problem


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return 0.25", 0.25),
        ("return 3", 3.0),
        ("return None", None),
        ("return True", 1.0),
        ("return float('nan')", None),
        ("return float('-inf')", None),
        ("import numpy\n return numpy.float32(0.5)", 0.5),
        ("import numpy\n return numpy.array(0.5)", 0.5),
        ("return p.probabilities[0, p.labels[0]]", 0.8),
        ("import numpy\n return numpy.bool_(True)", 1.0),
        ("import numpy\n return numpy.array([0.5])", 0.5),
        ("import torch\n return torch.tensor(0.5, requires_grad=True)", 0.5),
        ("import torch\n return torch.tensor([[2]])", 2.0),
        ("import fractions\n return fractions.Fraction(1, 4)", 0.25),
    ],
)
def test_a_metric_is_a_number_or_undefined(folder: Path, body: str, expected: float | None) -> None:
    config = config_in(folder, f"def f(p):\n {body}\n")
    assert functions.metric(config, "mine:f")(NOTHING) == expected


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("None", "the function returned None"),
        ("float('nan')", "the function returned NaN"),
        ("float('inf')", "the function returned inf"),
        ("float('-inf')", "the function returned -inf"),
        ("__import__('numpy').float32('nan')", "the function returned NaN"),
        ("__import__('torch').tensor(float('nan'))", "the function returned NaN"),
        ("0.5", ""),
    ],
)
def test_why_a_metric_is_undefined_is_told(folder: Path, value: str, why: str) -> None:
    metric = functions.metric(config_in(folder, f"def f(p):\n return {value}\n"), "mine:f")
    assert (metric(NOTHING) is None) == bool(why)
    assert metric.undefined == why


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return '0.5'", "mine:f: returned str (0.5), not a number or None"),
        ("return b'1'", "mine:f: returned bytes (b'1'), not a number or None"),
        ("return 1j", "mine:f: returned complex (1j), not a number"),
        ("import numpy\n return numpy.complex64(1j)", "mine:f: returned complex (1j)"),
        ("import numpy\n return numpy.zeros(2)", "mine:f: returned ndarray ([0. 0.])"),
        ("import numpy\n return numpy.zeros(0)", "mine:f: returned ndarray ([])"),
        ("import torch\n return torch.zeros(2)", "mine:f: returned Tensor (tensor([0., 0.]))"),
        ("raise KeyboardInterrupt", "mine:f: KeyboardInterrupt ("),
        ("raise GeneratorExit", "mine:f: GeneratorExit ("),
        ("return 'high'", "mine:f: returned str (high), not a number or None"),
        ("return [1, 2]", "mine:f: returned list ([1, 2]), not a number or None"),
        ("return {'f': 1}", "mine:f: returned dict"),
        ("return 1 / 0", "ZeroDivisionError: division by zero ("),
        ("return p.nothing", "AttributeError: "),
        ("return f(p)", "RecursionError: "),
        ("raise SystemExit(3)", "SystemExit: 3 ("),
    ],
)
def test_a_metric_that_fails_is_told_with_its_line(folder: Path, body: str, says: str) -> None:
    config = config_in(folder, f"def f(p):\n {body}\n")
    with pytest.raises(ConfigError) as caught:
        functions.metric(config, "mine:f")(NOTHING)
    assert says in told(caught)
    if ": returned" not in says:
        assert "mine.py, line 2)" in told(caught)


@pytest.mark.parametrize(
    ("code", "function", "says"),
    [
        ("x = 1", "mine:f", "has no function 'f'"),
        ("f = 1", "mine:f", "has no function 'f'"),
        ("def f(:", "mine:f", "SyntaxError"),
        ("raise ValueError('not today')", "mine:f", "ValueError: not today ("),
        ("import sys\nsys.exit(2)", "mine:f", "SystemExit: 2 ("),
        ("raise KeyboardInterrupt", "mine:f", "KeyboardInterrupt ("),
        ("import nowhere_to_be_found", "mine:f", "No module named 'nowhere_to_be_found'"),
        ("", "yours:f", "no module 'yours'"),
        ("", "pack.yours:f", "no module 'pack.yours'"),
    ],
)
def test_a_function_that_is_not_there_is_told(
    folder: Path, code: str, function: str, says: str
) -> None:
    config = config_in(folder, code, function)
    with pytest.raises(ConfigError) as caught:
        functions.load(config, function)
    assert told(caught).startswith(f"{function}: ")
    assert says in told(caught)


def test_functions_are_found_in_files_folders_and_installed_modules(folder: Path) -> None:
    (folder / "pack").mkdir()
    (folder / "pack" / "inner.py").write_text("from helper import g\ndef f(p):\n return g()\n")
    (folder / "helper.py").write_text("def g():\n return 7\n")
    assert functions.metric(config_in(folder, "", "pack.inner:f"), "pack.inner:f")(NOTHING) == 7
    installed = config_in(folder, "", "math:isnan")
    assert functions.load(installed, "math:isnan")(float("nan"))


def test_a_file_beside_the_config_hides_no_installed_module_from_others(folder: Path) -> None:
    (folder / "json.py").write_text("def f(p):\n return 1\n")
    config = config_in(folder, "", "json:f")
    assert functions.metric(config, "json:f")(NOTHING) == 1
    import json

    assert json.loads("[1]") == [1]


def test_without_the_users_own_config_file_no_function_runs(folder: Path) -> None:
    config = config_in(folder, "raise SystemExit('it ran')\n")
    with pytest.raises(ConfigError) as caught:
        functions.load(without_functions(config), "mine:f")
    assert "runs only from a config file that you give" in told(caught)
    assert load_config(folder / "c.yaml", resolved=True).runtime.functions_from is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return 'no' in a", True),
        ("return len(q) > 99", False),
        ("import numpy\n return numpy.bool_(True)", True),
        ("import torch\n return torch.tensor(False)", False),
        ("return 1", "returned int (1), not True or False"),
        ("return None", "returned NoneType (None), not True or False"),
        ("return a.index('x')", "ValueError: "),
    ],
)
def test_a_judge_says_yes_or_no(folder: Path, body: str, expected: bool | str) -> None:
    judge = functions.judge(config_in(folder, f"def f(q, a):\n {body}\n"), "mine:f")
    if isinstance(expected, bool):
        assert judge("how?", "no, never") is expected
        return
    with pytest.raises(ConfigError) as caught:
        judge("how?", "no, never")
    assert expected in told(caught)


def test_the_fingerprint_changes_with_the_file(folder: Path) -> None:
    def after(code: str) -> str:
        return functions.fingerprint(config_in(folder, code))

    first = after("def f(p):\n return 1\n")
    assert after("def f(p):\n return 1\n") == first
    assert after("def f(p):\n return 2\n") != first
    path = folder / "plain.yaml"
    path.write_text("objectives: [{metric: auroc}]")
    assert functions.fingerprint(load_config(path)) == ""


def test_what_is_no_plain_function_has_a_fingerprint_too(folder: Path) -> None:
    built_in = functions.fingerprint(config_in(folder, "", "builtins:len"))
    made = "from functools import partial\nf = partial(max, {})\n"
    one, other = (functions.fingerprint(config_in(folder, made.format(n))) for n in (0, 1))
    assert len({built_in, one, other, ""}) == 4


def test_a_function_that_is_only_passed_on_has_both_files_in_its_fingerprint(folder: Path) -> None:
    found = set()
    for number in range(2):
        sys.modules.pop("helper", None)
        (folder / "helper.py").write_text(f"def f(p):\n return {number}\n")
        for comment in ("", "# again"):
            code = f"from helper import f{comment}\n"
            found.add(functions.fingerprint(config_in(folder, code)))
    assert len(found) == 4


def test_a_metric_that_closes_the_files_of_others_is_to_blame(folder: Path) -> None:
    """In a process of its own, whose files it may close."""
    config_in(folder, "import os\ndef f(p): os.closerange(3, 256)\n")
    code = (
        "from pathlib import Path\n"
        "from tests.training.test_user_functions import NOTHING, load_config\n"
        "from coralx.training import user_functions as functions\n"
        "functions.metric(load_config(Path('c.yaml')), 'mine:f')(NOTHING)\n"
    )
    path = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        input="",
        capture_output=True,
        text=True,
    )
    assert (
        "mine:f: OSError: it closed files of this process that it had not opened\n" in done.stderr
    )
