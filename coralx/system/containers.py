"""The CPUs and memory that a container or a batch system grants: control groups, v1 and v2.

The limits of a group hold together with those of the groups around it: the tightest counts.
Formats: the kernel's Documentation/admin-guide/cgroup-v1/memory.rst, Documentation/scheduler/
sched-bwc.rst, and Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

UNLIMITED = 1 << 60
"""A limit of so many bytes is none: v1 writes "no limit" as the largest whole number of pages."""


@dataclass(frozen=True)
class Limits:
    """The limits of control groups; each is None where there is none."""

    cpus: float | None = None
    """CPUs whose time may be used."""
    memory_bytes: int | None = None
    """Bytes that may be held in memory."""
    free_bytes: int | None = None
    """Those of them that are still free, page cache that can be dropped included."""


@dataclass(frozen=True)
class Memory:
    """Bytes of memory within the limits of this process, and how many of them are free."""

    total_bytes: int
    free_bytes: int


def cores(limits: Limits | None = None) -> int:
    """Cores that this process may keep busy: with more threads than whole CPUs in its quota, the
    system would pause them in the middle of their work."""
    available = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux only; taskset and batch systems lower it
        available = len(os.sched_getaffinity(0))
    cpus = (limits or limits_of()).cpus
    return available if cpus is None else max(1, min(available, int(cpus)))


def memory(limits: Limits | None = None) -> Memory:
    """The machine's memory, within the limits."""
    limits, machine = limits or limits_of(), psutil.virtual_memory()
    total = min(machine.total, limits.memory_bytes or machine.total)
    free = machine.available if limits.free_bytes is None else limits.free_bytes
    return Memory(total, min(machine.available, free))


def limits_of(root: Path = Path("/")) -> Limits:
    """The limits of this process; `root` is where /proc and /sys are looked for."""
    groups = list(_groups(root))
    quotas = [quota for group in groups if (quota := _quota(group)) is not None]
    ceilings = [ceiling for group in groups if (ceiling := _ceiling(group)) is not None]
    return Limits(
        cpus=min(quotas, default=None),
        memory_bytes=min((limit for limit, _ in ceilings), default=None),
        free_bytes=min((free for _, free in ceilings), default=None),
    )


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the groups that this process is in, and of those that these lie in. Seen from
    inside a container, a group may lie at the root of what is mounted, whatever it is called."""
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        names = [controllers, *controllers.split(",")] if controllers else ["", "unified"]
        # A group outside the container's own part of the tree has a path that begins with "..".
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in {(mounts / name).resolve() for name in names}:
            for depth in range(len(parts), -1, -1):
                yield mount.joinpath(*parts[:depth])


def _quota(group: Path) -> float | None:
    """CPUs whose time a group may use."""
    quota, period = [*_text(group / "cpu.max").split(), "", ""][:2]  # v2
    if not quota:
        quota, period = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
    microseconds, out_of = _number(quota), _number(period)
    return microseconds / out_of if microseconds and out_of else None


def _ceiling(group: Path) -> tuple[int, int] | None:
    """Bytes that a group may hold in memory, and those of them that are free."""
    for limit, usage, cache in (
        ("memory.max", "memory.current", "inactive_file"),  # v2
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # v1
    ):
        most = _number(_text(group / limit))
        if most is not None and most < UNLIMITED:
            held = _number(_text(group / usage)) or 0
            lines = (line.partition(" ") for line in _text(group / "memory.stat").splitlines())
            droppable = sum(_number(count) or 0 for name, _, count in lines if name == cache)
            return most, max(0, most - max(0, held - droppable))
    return None


def _number(text: str) -> int | None:
    """A count; None for "max", "-1", and where nothing can be read."""
    return int(text) if text.strip().isdecimal() else None


def _text(path: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="ascii").strip()
    return ""
