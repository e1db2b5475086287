"""Control groups: what their limits leave of the machine."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from rich.console import Console

from coralx.config import Config
from coralx.doctor import diagnosis
from coralx.doctor.output import print_diagnosis
from coralx.execution import placement
from coralx.system import containers
from coralx.system.containers import Limits, cores, limits_of, memory

GIB = 1 << 30
LARGEST = "9223372036854771712"


def tree(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A machine's /proc and /sys, as far as they tell of control groups."""
    for path, text in {"proc/self/cgroup": groups, **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
    return root


def v2(folder: str, **files: str) -> dict[str, str]:
    return {f"sys/fs/cgroup{folder}/{name.replace('_', '.', 1)}": t for name, t in files.items()}


def test_without_groups_there_are_no_limits(tmp_path: Path) -> None:
    assert limits_of(tmp_path) == Limits()
    unlimited = {**v2("", cpu_max="max 100000", memory_max="max", memory_current="5")}
    assert limits_of(tree(tmp_path, "0::/", unlimited)) == Limits()


def test_a_container_of_version_2(tmp_path: Path) -> None:
    files = v2("", cpu_max="150000 100000", memory_max=str(4 * GIB), memory_current=str(3 * GIB))
    files["sys/fs/cgroup/memory.stat"] = f"anon 5\ninactive_file {GIB}\nactive_file 7"
    assert limits_of(tree(tmp_path, "0::/", files)) == Limits(1.5, 4 * GIB, 2 * GIB)


def test_of_nested_groups_the_tightest_limits_count(tmp_path: Path) -> None:
    files = {
        **v2("/a/b", cpu_max="max 100000", memory_max=str(8 * GIB), memory_current="0"),
        **v2("/a", cpu_max="50000 100000", memory_max="max"),
        **v2("", memory_max=str(9 * GIB), memory_current=str(4 * GIB)),
    }
    assert limits_of(tree(tmp_path, "0::/a/b", files)) == Limits(0.5, 8 * GIB, 5 * GIB)


@pytest.mark.parametrize("inside", ["", "/docker/abc"])
def test_version_1_as_seen_from_outside_and_from_inside(tmp_path: Path, inside: str) -> None:
    files = {
        f"sys/fs/cgroup/cpu,cpuacct{inside}/cpu.cfs_quota_us": "250000",
        f"sys/fs/cgroup/cpu,cpuacct{inside}/cpu.cfs_period_us": "100000",
        f"sys/fs/cgroup/memory{inside}/memory.limit_in_bytes": str(2 * GIB),
        f"sys/fs/cgroup/memory{inside}/memory.usage_in_bytes": str(GIB),
        f"sys/fs/cgroup/memory{inside}/memory.stat": "cache 9\ntotal_inactive_file 1024",
    }
    groups = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n0::/docker/abc"
    assert limits_of(tree(tmp_path, groups, files)) == Limits(2.5, 2 * GIB, GIB + 1024)


def test_no_limit_in_version_1_is_none(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": LARGEST,
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "77",
    }
    assert limits_of(tree(tmp_path, "2:memory:/\n1:cpu:/", files)) == Limits()


def test_what_cannot_be_read_limits_nothing(tmp_path: Path) -> None:
    files = {**v2("", cpu_max="", memory_max="much"), "sys/fs/cgroup/memory.stat": "x"}
    assert limits_of(tree(tmp_path, "nonsense\n0::/../..\n::", files)) == Limits()


def test_cores_and_memory_stay_within_the_limits() -> None:
    machine = psutil.virtual_memory()
    assert cores(Limits(cpus=0.25)) == cores(Limits(cpus=1.9)) == 1
    assert cores(Limits(cpus=1e6)) == cores(Limits())
    assert memory(Limits()).total_bytes == machine.total
    assert memory(Limits(memory_bytes=GIB, free_bytes=7)) == containers.Memory(GIB, 7)
    assert memory(Limits(memory_bytes=0, free_bytes=0)).free_bytes == 0
    assert memory(Limits(memory_bytes=1 << 59, free_bytes=1 << 59)).total_bytes == machine.total


def test_doctor_and_placement_go_by_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = Limits(0.5, 3 * GIB, GIB)
    monkeypatch.setattr(containers, "limits_of", lambda: limits)
    monkeypatch.setattr(diagnosis, "limits_of", lambda: limits)
    found = diagnosis.diagnose()
    assert (found.machine.usable_cores, found.machine.free_memory_bytes) == (1, GIB)
    print_diagnosis(found, Console(width=200))
    said = capsys.readouterr().out
    assert "limited by the container to 0.5 CPUs of time" in said
    assert "limited by the container to 3.0 GiB, 1.0 GiB free" in said
    settings = placement.share_out(Config(), "cpu", 0)
    assert (settings.workers, settings.threads_per_worker) == (1, 1)
