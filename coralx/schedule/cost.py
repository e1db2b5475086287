"""What a schedule costs before anything is trained: pure arithmetic in exact fractions.

There are two accountings. *Restart*: every stage trains from scratch. *Continue*: a stage resumes
the previous checkpoint and trains the difference only, which is what CoralX does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from coralx.schedule.brackets import entries
from coralx.schedule.stages import Stage


@dataclass(frozen=True)
class StagePlan:
    """One generation's plan for one stage. Steps are sums over its genomes."""

    name: str
    genomes: int
    steps_per_genome: Fraction
    restart_steps: Fraction
    continue_steps: Fraction
    data_fraction: Fraction


@dataclass(frozen=True)
class Plan:
    """What one generation costs, in optimizer steps, if no stop rule takes a genome out."""

    population_size: int
    generations: int
    steps_per_epoch: int
    naive_steps: Fraction
    """What it costs to train every genome to the end."""
    stages: tuple[StagePlan, ...]

    @property
    def restart_steps(self) -> Fraction:
        return sum((stage.restart_steps for stage in self.stages), Fraction(0))

    @property
    def continue_steps(self) -> Fraction:
        return sum((stage.continue_steps for stage in self.stages), Fraction(0))

    @property
    def restart_speedup(self) -> Fraction:
        return self.naive_steps / self.restart_steps

    @property
    def continue_speedup(self) -> Fraction:
        return self.naive_steps / self.continue_steps


def plan_of(
    stages: Sequence[Stage],
    population_size: int,
    generations: int,
    steps_per_epoch: int,
    brackets: int = 1,
) -> Plan:
    """Cost of one generation under both accountings, against training every genome to the end."""
    rows = []
    before = Fraction(0)
    for stage, (begun, going_on) in zip(
        stages, entries(stages, population_size, brackets), strict=True
    ):
        steps = stage.planned_steps(steps_per_epoch)
        genomes = begun + going_on
        rows.append(
            StagePlan(
                name=stage.name,
                genomes=genomes,
                steps_per_genome=steps,
                restart_steps=genomes * steps,
                continue_steps=begun * steps + going_on * (steps - before),
                data_fraction=stage.data_fraction,
            )
        )
        before = steps
    naive = population_size * stages[-1].planned_steps(steps_per_epoch)
    return Plan(population_size, generations, steps_per_epoch, naive, tuple(rows))
