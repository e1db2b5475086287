"""The devices of a run: which worker gets which GPU, and what it may use of its memory."""

from __future__ import annotations

import sys
from dataclasses import replace

from coralx.config.schema import Config
from coralx.execution.executor import Listener
from coralx.execution.gpu_sharing import (
    Describe,
    memory_of_smallest,
    planned,
    require_shareable,
    sharing_of,
)
from coralx.execution.messages import Hello
from coralx.execution.placement import gpus_in_use, idle_gpu_warning, late_pins, pin_variable
from coralx.execution.process import cuda_environment
from coralx.records.run_facts import NO_MEMORY, DeviceMemory, Facts, Footprint, Settings
from coralx.system.gpus import VARIABLE
from coralx.text import counted


class Devices:
    """What NVIDIA's driver names, or else what the first worker finds.

    Raises ConfigError for a number in `runtime.devices` that no GPU has.
    """

    def __init__(self, config: Config, backend: str) -> None:
        self._config, self._backend = config, backend
        self._gpus = gpus_in_use(config, backend)
        """As far as NVIDIA's driver knows them."""
        self._pins = tuple(gpu.uuid for gpu in self._gpus)
        """One entry a GPU in use; worker after worker takes the next one."""
        self._variable = VARIABLE
        """By which a worker is given its GPU."""
        self._kind = ""
        """Of the device that the first worker trains on, such as cuda."""
        self.memory = NO_MEMORY
        """Of the smallest GPU, as far as it is known, and how many workers share it."""

    def environment_of(self, slot: int) -> dict[str, str]:
        """The variables that give the worker of that slot its GPU; none on a CPU."""
        if not self._pins:
            return {}
        pin = {self._variable: self._pins[slot % len(self._pins)]}
        return pin | cuda_environment(self._backend)

    def learn(self, hello: Hello) -> bool:
        """Take in what the first worker sees; whether another is to take its place, since it would
        train on another GPU than its own.

        Torch may see no GPU though NVIDIA's driver names some, and those of ROCm only torch sees.
        Raises as `late_pins` does.
        """
        self._kind = hello.device
        if hello.device.startswith("cuda") and self._pins:
            return False
        self._gpus = ()
        self._pins = late_pins(self._config, hello.device, hello.device_count)
        self._variable = pin_variable()
        devices = self._config.runtime.devices
        return bool(self._pins) and devices != "auto" and devices[0] != 0

    def why_unfit(self, hello: Hello) -> str | None:
        """Why a later worker is not to be used: it would train elsewhere than the first one, since
        torch cannot open its GPU. None if it is."""
        if hello.device == self._kind:
            return None
        return f"it can use no GPU, and would train on the {hello.device}"

    def likely(self, recorded: Settings | None) -> Settings | None:
        """The plan of a run on the CPU, if it is likely to be one: before a worker has said so.
        None where it is not: then it must be known first which worker gets which GPU."""
        if self._gpus or self._backend == "simulated" or sys.platform == "darwin":
            return None
        return planned(self._config, recorded, "cpu", 1, (), _described_by_none)

    def plan(
        self, recorded: Settings | None, hello: Hello, describe: Describe, say: Listener
    ) -> Settings:
        """Workers and threads, see `gpu_sharing.planned`; from now on `memory` is known. Raises
        SetupError where a GPU cannot be shared."""
        count = len(self._pins) or hello.device_count
        plan = planned(self._config, recorded, hello.device, count, self._gpus, describe)
        if self._pins:  # a CPU's workers share no device
            sharing = sharing_of(plan.workers, count)
            require_shareable(self._gpus, sharing)
            self.memory = replace(memory_of_smallest(self._gpus), sharing=sharing)
            if sharing > 1:
                say(f"{plan.workers} workers share {counted(count, 'GPU')}")
        return plan

    def complete(self, facts: Facts) -> Facts:
        """A worker's facts, of all devices: it sees its own GPU alone."""
        count = len(self._pins) or facts.device_count
        warnings = (*facts.warnings, *idle_gpu_warning(facts.device))
        return replace(facts, device_count=count, warnings=warnings)


def _described_by_none(memory: DeviceMemory) -> Footprint:
    raise LookupError(f"a CPU's workers share no GPU of {memory.total_bytes} bytes")
