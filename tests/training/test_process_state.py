"""What a function of the user's changes for the whole process is put back, whatever it is."""

from __future__ import annotations

import gc
import io
import locale
import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode_stack,
)

from coralx.training import process_state as surroundings
from coralx.training import torch_state as torchstate
from coralx.training.process_state import state_restored

open_contexts: list[Any] = []
"""As a function may keep them in a variable of its module."""


def entered(context: Any) -> Any:
    open_contexts.append(context)
    return context.__enter__()


class FunctionMode(torch.overrides.TorchFunctionMode):
    """Does nothing to a call."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), named: Any = None
    ) -> Any:
        return function(*args, **(named or {}))


class DispatchMode(TorchDispatchMode):
    """Does nothing to an operation."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), named: Any = None
    ) -> Any:
        return function(*args, **(named or {}))


def device_by_default(name: str) -> str:
    torch.set_default_device(name)
    return name


READINGS: dict[str, Callable[[], Any]] = {
    "gradients": torch.is_grad_enabled,
    "dtype": torch.get_default_dtype,
    "device": torch.get_default_device,
    "threads": torch.get_num_threads,
    "determinism": torch.are_deterministic_algorithms_enabled,
    "anomalies": torch.is_anomaly_enabled,
    "matmul": torch.get_float32_matmul_precision,
    "mkldnn": lambda: torch.backends.mkldnn.enabled,
    "attention kernels": torch.backends.cuda.flash_sdp_enabled,
    "inference mode": torch.is_inference_mode_enabled,
    "autocast": lambda: (torch.is_autocast_enabled("cpu"), torchstate._autocast_depth(torch)),
    "autocast's dtype": lambda: torch.get_autocast_dtype("cpu"),
    "autocast's copies": torch.is_autocast_cache_enabled,
    "devices": lambda: (torch.empty(1).device.type, torch.get_default_device().type),
    "devices, entered last": lambda: (torch.empty(1).device.type, torch.get_default_device().type),
    "function modes": torch.overrides._get_current_function_mode_stack,
    "dispatch modes": _get_current_dispatch_mode_stack,
    "saved tensors": lambda: torch._C._autograd._top_saved_tensors_default_hooks(True),
    "backward in threads": torch._C._is_multithreading_enabled,
    "torch's draws": lambda: torch.get_rng_state().tolist(),
    "numpy's draws": lambda: str(np.random.get_state()),
    "python's draws": random.getstate,
    "folder": os.getcwd,
    "streams": lambda: (sys.stdin, sys.stdout, sys.stderr),
    "warnings": lambda: warnings.filters[:],
    "floating point": np.geterr,
    "locale": lambda: locale.setlocale(locale.LC_ALL),
    "recursion": sys.getrecursionlimit,
    "collector": gc.isenabled,
    "handlers": lambda: signal.getsignal(signal.SIGUSR1),
    "alarm": lambda: signal.getitimer(signal.ITIMER_REAL),
}

CHANGES: dict[str, Callable[[], object]] = {
    "gradients": lambda: torch.set_grad_enabled(False),
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "device": lambda: torch.set_default_device("meta"),
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "determinism": lambda: torch.use_deterministic_algorithms(True),
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True),
    "matmul": lambda: torch.set_float32_matmul_precision("medium"),
    "mkldnn": lambda: setattr(torch.backends.mkldnn, "enabled", False),
    "attention kernels": lambda: torch.backends.cuda.enable_flash_sdp(False),
    "inference mode": lambda: entered(torch.inference_mode()),
    "autocast": lambda: entered(torch.autocast("cpu")),
    "autocast's dtype": lambda: torch.set_autocast_dtype("cpu", torch.float16),
    "autocast's copies": lambda: torch.set_autocast_cache_enabled(False),
    "devices": lambda: (entered(torch.device("meta")), device_by_default("meta")),
    "devices, entered last": lambda: (
        device_by_default("meta"),
        entered(torch.device("meta")),
    ),
    "function modes": lambda: (entered(FunctionMode()), entered(torch.device("meta"))),
    "dispatch modes": lambda: entered(DispatchMode()),
    "saved tensors": lambda: entered(torch.autograd.graph.save_on_cpu()),
    "backward in threads": lambda: torch.autograd.set_multithreading_enabled(False),
    "torch's draws": lambda: torch.manual_seed(1),
    "numpy's draws": lambda: np.random.seed(1),
    "python's draws": lambda: random.seed(1),
    "folder": lambda: os.chdir("/"),
    "streams": lambda: setattr(sys, "stdout", io.StringIO()),
    "warnings": lambda: warnings.simplefilter("error"),
    "floating point": lambda: np.seterr(all="raise"),
    "locale": lambda: locale.setlocale(locale.LC_ALL, "C"),
    "recursion": lambda: sys.setrecursionlimit(5000),
    "collector": gc.disable,
    "handlers": lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    "alarm": lambda: signal.setitimer(signal.ITIMER_REAL, 600),
}


@pytest.mark.parametrize("what", CHANGES)
def test_it_is_as_before(what: str) -> None:
    before = READINGS[what]()

    @state_restored("f")
    def fails() -> None:  # and if it returned, too
        CHANGES[what]()
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert READINGS[what]() == before


def test_a_function_finds_gradients_and_inference_mode_as_they_are() -> None:
    for context in (torch.no_grad(), torch.enable_grad(), torch.inference_mode()):
        with context:
            before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            with state_restored("f"):
                assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before


def test_what_a_module_sets_for_its_functions_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("MINE", "before")
    with state_restored("f"):
        os.environ["MINE"] = "after"
        sys.path.append("/mine")
    assert (os.environ["MINE"], sys.path[-1]) == ("after", "/mine")


def test_a_deleted_working_folder_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with state_restored("f"):
        os.chdir(tmp_path)


@pytest.fixture
def input_held_open() -> Iterator[int]:
    """A standard input that nobody writes to or closes."""
    before = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    yield os.stat(0).st_ino
    os.dup2(before, 0)
    for descriptor in (before, reading, writing):
        os.close(descriptor)


def test_who_reads_input_finds_its_end(input_held_open: int) -> None:
    with state_restored("f"):
        assert sys.stdin.read() == ""
        assert os.read(0, 1) == b""
        assert subprocess.run(["cat"], capture_output=True, timeout=30).stdout == b""
    assert os.stat(0).st_ino == input_held_open


def test_at_a_terminal_its_own_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda _: True)
    with pytest.raises(FileNotFoundError, match="none"), state_restored("f"):
        raise FileNotFoundError("none")


def test_what_it_prints_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with state_restored("f"):
        print("hello")
    print("results")
    assert capsys.readouterr() == ("results\n", "hello\n")


def test_a_process_that_it_forks_ends_where_it_does(tmp_path: Path) -> None:
    note = tmp_path / "note"
    parent = os.getpid()
    with state_restored("f"):
        child = os.fork()
    if os.getpid() != parent:
        note.write_text("a second process went on")
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert not note.exists()


def test_its_name_is_told_when_it_is_called_and_when_it_has_returned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str | None] = []
    monkeypatch.setattr(surroundings, "on_call", told.append)
    with pytest.raises(SystemExit), state_restored("mine:f"):
        raise SystemExit
    assert told == ["mine:f", None]
