"""A diagnosis as a person reads it, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from coralx.doctor.diagnosis import Diagnosis, Machine
from coralx.doctor.requirements import Need, Requirements
from coralx.records.genomes import Genes
from coralx.report.formatting import modules
from coralx.report.table_layout import fitting
from coralx.text import counted, gib


def diagnosis_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """What `coralx doctor --json` prints; sizes are bytes."""
    return asdict(diagnosis)


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """Facts line by line, then what the config needs, then problems."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for name, value in _machine_rows(diagnosis.machine):
        facts.add_row(name, escape(value))
    for task, choice in diagnosis.backends.items():
        facts.add_row(task, escape(f"{choice.name}: {choice.reason}"))
    console.print(facts, highlight=False)
    if diagnosis.requirements is not None:
        console.print()
        _print_requirements(diagnosis.requirements, console)
    console.print()
    if diagnosis.trial == "trained" and diagnosis.requirements is not None:
        console.print(
            _trial_line(diagnosis.requirements), soft_wrap=True, highlight=False, markup=False
        )
    for warning in diagnosis.warnings:
        console.print(f"[yellow]warning:[/] {escape(warning)}", soft_wrap=True, highlight=False)
    if not diagnosis.problems:
        console.print("No problems found.")
    for problem in diagnosis.problems:
        console.print(f"[yellow]problem:[/] {escape(problem.problem)}", soft_wrap=True)
        if problem.way_out:
            console.print(f"  {problem.way_out}", soft_wrap=True, markup=False, highlight=False)


def _machine_rows(machine: Machine) -> Iterator[tuple[str, str]]:
    hardware = machine.hardware
    yield "system", f"{hardware['system']}, {hardware['processor']}"
    yield "cores", f"{machine.usable_cores} of {hardware['cores']}{_of_cpus(machine)}"
    total = gib(int(hardware["memory_bytes"]))
    free = gib(machine.free_memory_bytes)
    yield "memory", f"{total}{_of_memory(machine)}, {free} free"
    for gpu in machine.gpus:
        version = ".".join(map(str, gpu.capability or ()))
        capability = f", compute capability {version}" if version else ""
        sizes = f"{gib(gpu.memory_bytes)}, {gib(gpu.free_bytes)} free"
        yield f"GPU {gpu.index}", f"{gpu.name}, {sizes}{capability}, driver {machine.driver}"
    if not machine.gpus:
        yield "GPU", "none visible"
    build = f"CUDA {machine.torch_cuda}" if machine.torch_cuda else "CPU build"
    yield "torch", f"{machine.torch}, {build}" if machine.torch else "not installed"
    runs = f"{machine.unsloth}, trains with {machine.unsloth_runs}"
    yield "unsloth", runs if machine.unsloth else "not installed"
    yield "disk", f"{gib(machine.free_disk_bytes)} free in this folder"


def _of_cpus(machine: Machine) -> str:
    cpus = machine.limits.cpus
    if cpus is None or cpus >= int(machine.hardware["cores"]):
        return ""
    return f", limited by the container to {cpus:.4g} CPUs of time"


def _of_memory(machine: Machine) -> str:
    limit = machine.limits.memory_bytes
    if limit is None or limit >= int(machine.hardware["memory_bytes"]):
        return ""
    return f", limited by the container to {gib(limit)}"


def _print_requirements(needs: Requirements, console: Console) -> None:
    table = Table(
        title=f"{escape(needs.base)}: {needs.base_parameters:,} parameters in "
        f"{gib(needs.base_bytes)}; {gib(needs.capacity_bytes)} of memory available",
        title_justify="left",
    )
    for name in ("genome", "rank", "batch", "modules"):
        table.add_column(name)
    for name in ("parameters", "at least", "likely", "verdict"):
        table.add_column(name, justify="right")
    table.add_row("smallest", *_cells(needs.smallest))
    table.add_row("largest", *_cells(needs.largest))
    console.print(fitting(table))
    for line in _on_device(needs):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(
        f"Memory holds one base and {counted(needs.together, 'genome')} of the largest size, with "
        f"one batch each. Disk: {gib(needs.disk_bytes)} at most, for "
        f"{counted(needs.checkpoints, 'checkpoint')}; {gib(needs.least_disk_bytes)} at least, for "
        "the first generation.",
        soft_wrap=True,
        highlight=False,
    )


def _on_device(needs: Requirements) -> Iterator[str]:
    """How a worker would use its device, where that is not as plain as can be."""
    if needs.sharing > 1:
        yield f"{needs.sharing} workers share a GPU; the memory above is the share of each."
    if needs.checkpointing:
        host = f"; Unsloth keeps up to {gib(needs.host_bytes)} of them in the machine's memory"
        yield (
            "Activations are recomputed (runtime.gradient_checkpointing)"
            f"{host if needs.host_bytes else ''}."
        )


def _trial_line(needs: Requirements) -> str:
    described = {
        name: f"{name} genome (rank {need.genes.rank} on {_modules(need.genes)})"
        for name, need in (("smallest", needs.smallest), ("largest", needs.largest))
    }
    return f"Trained one batch with the {described['smallest']} and the {described['largest']}."


def _modules(genes: Genes) -> str:
    return modules(genes.target_modules, genes.layers)


def _cells(need: Need) -> tuple[str, ...]:
    return (
        str(need.genes.rank),
        str(need.genes.batch_size),
        escape(_modules(need.genes)),
        f"{need.parameters:,}",
        gib(need.least_bytes),
        gib(need.likely_bytes),
        need.verdict,
    )
