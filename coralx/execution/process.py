"""A worker process as its driver sees it: a pipe of orders in, a pipe of replies out.

Both are descriptors of their own, which nothing else prints to or reads from: what a worker and its
children print goes into its log, and their standard input is empty.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import TypeVar

from coralx.config.schema import Config
from coralx.data.builtin import needs_no_hub
from coralx.errors import CoralXError, WorkerError, error_from
from coralx.execution.executor import AnyJob
from coralx.execution.messages import (
    Calling,
    Failed,
    Note,
    Order,
    Reply,
    Shutdown,
    decode_reply,
    encode,
)
from coralx.execution.packs import Pack
from coralx.system.environment import torch_cuda
from coralx.system.python_process import module_command
from coralx.system.signals import Interruption, kept_from_children

Expected = TypeVar("Expected", bound=Reply)

EXIT_SECONDS = 5.0
LOG_LINES, LOG_BYTES = 15, 1 << 16
"""The last lines that are shown, and the last bytes that are read for them: a user's function may
print without end."""

CRASHED = "Current thread"
"""How the line begins after which faulthandler prints the innermost frame."""

POLL_SECONDS = 0.25
"""How long a driver listens before it looks for interruptions and the like."""

OUT_OF_MEMORY = " (as the kernel does when memory runs out)"

NEEDS_LESS_MEMORY = "If memory ran out, use a smaller base or fewer runtime.workers."

_QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore",
}

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""What sets torch's allocator on CUDA: the first from torch 2.10 on, the second before."""

NO_VIRTUAL_MEMORY = ("microsoft", "tegra")
"""Kernels on which CUDA cannot map memory as growing segments need it: WSL and Jetson."""


def environment(config: Config) -> dict[str, str]:
    """Variables that a worker for such a config needs: where everything lies on this machine, no
    library may ask the network."""
    offline = {"HF_HUB_OFFLINE": "1"} if needs_no_hub(config) else {}
    # Unsloth reads it when it is imported; without it, the backend's own default applies.
    compiling = {"UNSLOTH_BLOCK_COMPILE": "1"} if config.runtime.block_compile else {}
    return offline | compiling


def cuda_environment(backend: str) -> dict[str, str]:
    """Variables with which a worker on an NVIDIA GPU loses less memory to fragmentation, as batches
    differ in length. None where the user has set the allocator, and for Unsloth, which does."""
    kernel = platform.release().lower()
    is_able = torch_cuda() is not None and not any(name in kernel for name in NO_VIRTUAL_MEMORY)
    if backend != "peft" or not is_able or any(name in os.environ for name in ALLOCATOR):
        return {}
    return dict.fromkeys(ALLOCATOR, "expandable_segments:True")


class LostWorker(WorkerError):
    """A worker died or hung before it was ready; another may fare better."""


class WorkerProcess:
    """A worker process, started with `extra` variables in its environment."""

    def __init__(
        self, number: int, backend: str, threads: int, slot: int, extra: Mapping[str, str]
    ) -> None:
        self.number = number
        self.slot = slot
        """By which it gets its GPU; no two workers at a time have the same."""
        self.ready = False
        """Whether it has loaded the base."""
        self.job: AnyJob | Pack | None = None
        """What it works on."""
        self.silence = 0.0
        """Seconds since its last reply, of those in which the driver has listened."""
        self.spawned = time.monotonic()
        self.began = 0.0
        """When it was given its job, by the monotonic clock."""
        self._calling: str | None = None
        """The user's function that it runs."""
        self._rest = b""
        """The beginning of a reply whose end has not come yet."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        numbers = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        orders, self._orders = os.pipe()  # no other child inherits them
        self._replies, replies = os.pipe()
        try:
            with kept_from_children():
                self._process = subprocess.Popen(
                    module_command("coralx.execution.worker", backend, str(orders), str(replies)),
                    stdin=subprocess.DEVNULL,
                    stdout=self._log,
                    stderr=self._log,
                    env={**os.environ, **_QUIET, **numbers, **extra},
                    pass_fds=(orders, replies),
                )
        except BaseException:
            self._release()
            raise
        finally:
            # The worker's ends: as long as this process holds them, the pipes would never close.
            os.close(orders)
            os.close(replies)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """The pipe to wait on for replies."""
        return self._replies

    def send(self, order: Order) -> None:
        """Give an order. A worker that is gone is noticed by its closed pipe of replies."""
        left = memoryview(encode(order))
        with contextlib.suppress(BrokenPipeError):
            while left:
                left = left[os.write(self._orders, left) :]

    def receive(self) -> Iterator[Reply | None]:
        """The replies that have come; None once the worker is gone. Blocks until one of both."""
        chunk = os.read(self._replies, 1 << 16)
        if not chunk:
            yield None
            return
        self.silence = 0.0
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            try:
                reply = decode_reply(line)
            except ValueError:
                # A library or a user's function may have found the pipe; the worker is not broken.
                note = f"coralx: ignored a line that is not a reply: {line[:200]!r}\n"
                os.write(self._log.fileno(), note.encode())
                continue
            if isinstance(reply, Calling):
                self._calling = reply.function
            yield reply

    def end_of_log(self) -> str:
        """The last lines that the process and its children printed."""
        return "\n".join(self._printed()[-LOG_LINES:])

    def last_words(self) -> tuple[str, str]:
        """A hint: what to do, and where it crashed or the last line that it printed; and the
        details."""
        lines = self._printed()
        crashes = [after for line, after in pairwise(lines) if line.startswith(CRASHED)]
        printed = f"The last line it printed: {lines[-1].strip()}" if lines else ""
        where = f"It crashed in: {crashes[0].strip()}" if crashes else printed
        return " ".join(part for part in (self._way_out(), where) if part), self.end_of_log()

    def _printed(self) -> list[str]:
        log = self._log.fileno()
        start = max(0, os.fstat(log).st_size - LOG_BYTES)
        return os.pread(log, LOG_BYTES, start).decode(errors="replace").strip().splitlines()

    @property
    def within(self) -> str:
        """Which function of the user's it runs, as the end of a sentence; "" if it runs none."""
        return f" while it ran {self._calling}" if self._calling else ""

    def _way_out(self) -> str:
        """What to do about its end, as far as the cause is known."""
        code = self._process.poll()
        if not self._calling:
            return NEEDS_LESS_MEMORY if code == -signal.SIGKILL else ""
        if code == -signal.SIGKILL:
            fault = "takes more memory than there is"
        elif code is not None and code < 0:
            fault = "crashes the process"
        else:
            fault = "ends the process, or closes files that it did not open"
        return f"Fix {self._calling}: most likely it {fault}."

    def exit_reason(self) -> str:
        """What happened to the process, in words: "was killed by ..."."""
        try:
            code = self._process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return f"closed its pipe and did not end{self.within}"
        if code >= 0:
            return f"ended with exit code {code}{self.within}"
        why = OUT_OF_MEMORY if -code == signal.SIGKILL else ""
        known = -code in set(signal.Signals)
        name = signal.Signals(-code).name if known else f"signal {-code}"
        return f"was killed by {name}{why}{self.within}"

    def dismiss(self) -> None:
        """Ask it to stop; its last reply is Goodbye."""
        self.send(Shutdown())

    def kill(self) -> None:
        """End it at once and release its pipes."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel, which ends it
            self._process.wait(EXIT_SECONDS)
        self._release()

    def _release(self) -> None:
        os.close(self._orders)
        os.close(self._replies)
        self._log.close()


def replies(
    workers: Iterable[WorkerProcess], seconds: float
) -> Iterator[tuple[WorkerProcess, Reply | None]]:
    """Wait, at most so long, for a reply, and pass on those that have come, each with its worker;
    None in place of a reply where the worker is gone."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker, selectors.EVENT_READ, worker)
        for key, _ in selector.select(max(0.0, seconds)):
            for reply in key.data.receive():
                yield key.data, reply


def await_reply(
    worker: WorkerProcess,
    expected: type[Expected],
    say: Callable[[str], None],
    interruption: Interruption,
    patience: float = math.inf,
) -> Expected:
    """The next reply of the `expected` kind. Raises what the worker reports instead, LostWorker for
    one that dies or is silent for `patience` seconds, and KeyboardInterrupt for an interruption."""
    while True:
        interruption.raise_if_requested()
        worker.silence += POLL_SECONDS
        if worker.silence > patience:
            minutes = f"{patience / 60:g} min{worker.within}"
            raise LostWorker(
                f"the first worker gave no sign of life for {minutes}",
                "If it is slow but not stuck, raise runtime.heartbeat_minutes.",
            )
        for _, reply in replies([worker], POLL_SECONDS):
            if isinstance(reply, expected):
                return reply
            match reply:
                case Note(text=text):
                    say(text)
                case Failed():
                    raise reported(reply)
                case None:
                    # What ended it may have been a signal to all processes.
                    interruption.raise_if_requested()
                    raise LostWorker(
                        f"the first worker {worker.exit_reason()} before it was ready",
                        *worker.last_words(),
                    )
                case _:
                    pass


def reported(reply: Failed) -> CoralXError:
    """The error that a worker reports."""
    if reply.known:
        return error_from(reply.error, reply.message, reply.hint, reply.problems)
    return WorkerError(
        f"the worker failed: {reply.error}: {reply.message}", details=reply.traceback
    )
