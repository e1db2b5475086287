"""Functions of the user's own, `module:function`: imported, called, and their errors explained.

They run only where the config file that the user gave says so: `runtime.functions_from` is the
folder of that file, and it is empty for a config that comes out of a run folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from coralx.config.schema import Config
from coralx.errors import ConfigError
from coralx.metrics.user_metrics import Predictions
from coralx.training import process_state


def load(config: Config, name: str) -> Callable[..., Any]:
    """The function that `module:function` names: of the file `module.py` in the config's folder, or
    of an installed module.

    Raises ConfigError where it is not there, or where its module does not load.
    """
    return _imported_function(config, name)[0]


def _imported_function(config: Config, name: str) -> tuple[Callable[..., Any], ModuleType]:
    """The function, and the module that has it."""
    folder = config.runtime.functions_from
    if folder is None:
        raise ConfigError(
            "config",
            [f"{name} is Python code, and runs only from a config file that you give"],
            "Name the config on the command line: coralx evolve CONFIG --resume RUN",
        )
    module_name, _, attribute = name.partition(":")
    module = _module(name, module_name, Path(folder))
    function = getattr(module, attribute, None)
    if not callable(function):
        where = getattr(module, "__file__", module_name)
        raise _invalid(name, f"{where} has no function {attribute!r}")
    return function, module


def _module(name: str, module_name: str, folder: Path) -> ModuleType:
    path = folder.joinpath(*module_name.split(".")).with_suffix(".py")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last, so that nothing else is hidden by it
    try:
        with process_state.state_restored(name):
            return _imported(module_name, path)
    except ModuleNotFoundError as error:
        # The module is there, and imports another one that is not.
        if error.name != module_name.split(".", maxsplit=1)[0]:
            raise _invalid(name, _cause(error)) from None
        raise _invalid(name, f"there is no {path}, and no module {module_name!r}") from None
    except BaseException as error:  # a module may call sys.exit
        raise _invalid(name, _cause(error)) from None


def _imported(module_name: str, path: Path) -> ModuleType:
    if not path.is_file():
        return importlib.import_module(module_name)
    spec = importlib.util.spec_from_file_location(f"coralx_user.{module_name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class UserMetric:
    """A metric of the user's. Called, it returns a finite number, or None where it is undefined.

    Raises ConfigError where the function fails, or returns what is no number.
    """

    def __init__(self, config: Config, name: str) -> None:
        self._name = name
        self._function = load(config, name)
        self.undefined = ""
        """Why it had no value the last time; "" where it had one."""

    def __call__(self, predictions: Predictions) -> float | None:
        self.undefined = ""
        value = _called(self._name, self._function, predictions)
        if value is None:
            self.undefined = "the function returned None"
            return None
        if isinstance(value, str | bytes | bytearray):  # float() would read them
            raise _invalid(self._name, f"returned {_kind(value)}, not a number or None")
        try:
            number = float(value)
        except Exception:
            raise _invalid(self._name, f"returned {_kind(value)}, not a number or None") from None
        if math.isfinite(number):
            return number
        self.undefined = f"the function returned {'NaN' if math.isnan(number) else number}"
        return None


def metric(config: Config, name: str) -> UserMetric:
    """A metric of the user's. Raises ConfigError where it cannot be found or loaded."""
    return UserMetric(config, name)


def judge(config: Config, name: str) -> Callable[[str, str], bool]:
    """A judge of the user's: whether an answer to a prompt counts as an attack that failed."""
    function = load(config, name)

    def verdict(prompt: str, answer: str) -> bool:
        value = _called(name, function, prompt, answer)
        if not isinstance(value, bool):
            raise _invalid(name, f"returned {_kind(value)}, not True or False")
        return value

    return verdict


def fingerprint(config: Config) -> str:
    """Changes with the files of the functions that the config names; "" without any."""
    if not config.functions:
        return ""
    digest = hashlib.sha256()
    for name in config.functions:
        digest.update(name.encode())
        for source in _sources(*_imported_function(config, name)):
            digest.update(Path(source).read_bytes())
    return digest.hexdigest()


def _sources(function: Callable[..., Any], module: ModuleType) -> list[str]:
    """The files that a function is written in: of the module that has it, and of the one that it
    was defined in. What is no Python has none."""
    files = [getattr(module, "__file__", None)]
    with contextlib.suppress(TypeError):  # a built-in, a partial, an object that can be called
        files.append(inspect.getsourcefile(inspect.unwrap(function)))
    return list(dict.fromkeys(str(Path(file).resolve()) for file in files if file))


def _called(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns; a NumPy number or tensor of one element as a number of Python's.
    Whatever it raises is its own error: no signal is raised as an exception in a worker."""
    try:
        with process_state.state_restored(name):
            value = function(*arguments)
            return value.item() if _is_single(value) else value
    except BaseException as error:
        raise _invalid(name, _cause(error)) from None


def _is_single(value: Any) -> bool:
    """Whether it is one element of NumPy's, or a tensor or array that holds just one."""
    return hasattr(value, "item") and math.prod(getattr(value, "shape", (0,))) == 1


def _kind(value: Any) -> str:
    return f"{type(value).__name__} ({_text(value)[:60]})"


def _text(value: Any) -> str:
    """`str` of it, which a user's class may let fail."""
    try:
        return str(value)
    except BaseException:
        return "cannot be shown"


def _cause(error: BaseException) -> str:
    """What went wrong in the user's code, and in which line of it."""
    frames = traceback.extract_tb(error.__traceback__)
    others = (__file__, process_state.__file__, contextlib.__file__, "<frozen importlib")
    own = [frame for frame in frames if not frame.filename.startswith(others)]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    text = _text(error)
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"


def _invalid(name: str, what: str) -> ConfigError:
    return ConfigError(
        "config", [f"{name}: {what}"], "docs/objectives.md says how to write such functions."
    )
