"""The worker process: `coralx.execution.worker BACKEND ORDERS REPLIES`, the latter two being the
descriptors of the pipes from and to its driver.

It imports one backend, loads the base once, then does jobs until it is told to stop. It ends at
once when its driver goes away, which it sees by the closing of its pipe of orders; on Linux the
kernel ends it, too, in case it is stuck where no thread can look.
"""

from __future__ import annotations

import ctypes
import faulthandler
import io
import os
import queue
import signal
import sys
import threading
import time
import traceback
from typing import BinaryIO, cast

from coralx.backends.protocol import Backend, PackingBackend, Paused, create
from coralx.config import parse_config
from coralx.errors import ConfigError, CoralXError
from coralx.execution.messages import (
    BaseDescribed,
    Calling,
    Derive,
    DerivingDone,
    DescribeBase,
    Failed,
    Goodbye,
    Heartbeat,
    Hello,
    JobPaused,
    Measure,
    MeasuringDone,
    Note,
    Order,
    Pause,
    Prepare,
    Ready,
    Reply,
    Shutdown,
    Step,
    Train,
    TrainingDone,
    TrainPack,
    decode_order,
    encode,
)
from coralx.records.results import Progress
from coralx.system.process_memory import return_freed_memory
from coralx.training import process_state

BEAT_SECONDS = 1.0
"""Between two signs of life, at least."""

PARENT_DEATH_SIGNAL = 1
"""Of Linux's prctl(2): PR_SET_PDEATHSIG."""


class Worker:
    """One backend, answering orders one by one. `pause` is set where the driver wants the job that
    is under way to be paused."""

    def __init__(self, channel: BinaryIO, pause: threading.Event) -> None:
        self._channel = channel
        self._pause = pause
        self._jobs = 0
        self._last_reply = 0.0

    def send(self, reply: Reply) -> None:
        self._channel.write(encode(reply))
        self._channel.flush()
        self._last_reply = time.monotonic()

    def beat(self) -> None:
        """Say that work continues, if no reply has said so for a while. Raises Paused where the
        driver wants it to stop."""
        if self._pause.is_set():
            raise Paused
        if time.monotonic() - self._last_reply >= BEAT_SECONDS:
            self.send(Heartbeat())

    def serve(self, backend_name: str, orders: queue.SimpleQueue[Order]) -> None:
        """Answer orders until Shutdown; errors are reported, and the driver decides."""
        try:
            backend = create(backend_name)
            self.send(Hello(*backend.devices()))
        except Exception as error:
            self._fail(error)
            return
        while not isinstance(order := orders.get(), Shutdown):
            try:
                self._carry_out(backend, order)
            except Paused:
                self.send(JobPaused())
            except Exception as error:
                self._fail(error)
        self.send(Goodbye(backend.base_loads, self._jobs))

    def _carry_out(self, backend: Backend, order: Order) -> None:
        match order:
            case Prepare():
                began = time.monotonic()
                config = parse_config(order.config, "config")
                facts = backend.prepare(
                    config,
                    order.precision,
                    order.threads,
                    self._note,
                    order.revision,
                    order.checkpointing,
                    order.memory,
                )
                if order.pack != 1:
                    packing = cast(PackingBackend, backend)
                    facts = packing.decide_pack(facts, order.pack, self._note)
                self.send(Ready(facts, backend.base_loads, round(time.monotonic() - began, 3)))
            case Train(job=job):
                self._jobs += 1
                result = backend.train(job, self._progress, self.beat)
                return_freed_memory()
                self.send(TrainingDone(result))
            case TrainPack(jobs=jobs):
                self._jobs += len(jobs)
                packing = cast(PackingBackend, backend)
                for result in packing.train_pack(jobs, self._progress, self.beat):
                    self.send(TrainingDone(result))
                return_freed_memory()
            case Measure(job=measure_job):
                self._jobs += 1
                measurement = backend.measure(measure_job, self.beat)
                return_freed_memory()
                self.send(MeasuringDone(measurement))
            case Derive(job=derive_job):
                self._jobs += 1
                derived = backend.derive(derive_job, self.beat)
                return_freed_memory()
                self.send(DerivingDone(derived))
            case DescribeBase():
                # Imported here, as the simulated backend must not load torch for other orders.
                from coralx.training.footprint import footprint_without_weights

                described = parse_config(order.config, "config")
                self.send(BaseDescribed(footprint_without_weights(described, memory=order.memory)))
            case _:
                raise TypeError(f"unexpected order {order!r}")

    def _note(self, text: str) -> None:
        self.send(Note(text))

    def _progress(self, progress: Progress) -> None:
        self.send(Step(progress))

    def _fail(self, error: Exception) -> None:
        known = isinstance(error, CoralXError)
        message = error.message if isinstance(error, CoralXError) else str(error)
        hint = error.hint if isinstance(error, CoralXError) else ""
        problems = error.problems if isinstance(error, ConfigError) else ()
        trace = traceback.format_exc()
        self.send(Failed(type(error).__name__, message, hint, known, trace, problems))


def _listen(pipe: BinaryIO, orders: queue.SimpleQueue[Order], pause: threading.Event) -> None:
    """Queue what comes through the pipe; when it closes, the driver is gone."""
    for line in pipe:
        order = decode_order(line)
        if isinstance(order, Pause):
            pause.set()
            continue
        if isinstance(order, Train | TrainPack | Measure | Derive):
            pause.clear()  # one that came too late was meant for the job before
        orders.put(order)
    os._exit(0)  # sys.exit would end this thread alone


def _end_with_driver() -> None:
    """Have the kernel kill this process when its driver ends, where it can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _keep_from_children(*descriptors: int) -> None:
    """Have no process that a user's function starts or forks hold the pipes: it may outlive this
    one, and the driver would not see this one end."""
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)

    def replace() -> None:  # not close: another file could take the number
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in descriptors:
            os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)

    os.register_at_fork(after_in_child=replace)


def _log_at_once() -> None:
    """What is printed, and where a crash came from, is in the log before this process ends."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    faulthandler.enable()


def main(backend: str, orders_from: int, replies_to: int) -> None:
    """Serve the driver."""
    _end_with_driver()
    _keep_from_children(orders_from, replies_to)
    _log_at_once()
    orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
    pause = threading.Event()
    pipe = os.fdopen(orders_from, "rb")
    threading.Thread(target=_listen, args=(pipe, orders, pause), daemon=True).start()
    worker = Worker(os.fdopen(replies_to, "wb"), pause)
    process_state.on_call = lambda name: worker.send(Calling(name))
    worker.serve(backend, orders)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
