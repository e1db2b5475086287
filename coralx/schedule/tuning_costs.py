"""A schedule as tuning sees it, and what a generation costs under it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from coralx.schedule.tuning_curves import METRIC

EVALUATION = 0.5
"""What scoring a row costs against training on it, where no run tells: 0.45 to 0.85 in runs on
MiniLM and SmolLM2, on CPUs."""

OVERHEAD = 5.0
"""What a stage costs a genome beside training and scoring, in training rows, where no run tells: 3
to 10 in the same runs."""


@dataclass(frozen=True, order=True)
class Rung:
    """A stage before the last one."""

    share: Fraction
    """Of a whole training, at the stage's end."""
    rows: int
    """Validation rows that it scores; 0: it scores nothing."""
    kept: int
    """Genomes that go on."""
    figure: str = METRIC
    """The kind of signal that it ranks by."""


@dataclass(frozen=True)
class Schedule:
    """How a generation goes through its stages; without rungs all are trained to the end."""

    rungs: tuple[Rung, ...] = ()


@dataclass(frozen=True)
class Prices:
    """What a genome costs, in training rows."""

    training: float
    """Rows that it reads from its birth to its end."""
    validation: int
    """Rows that the last stage scores."""
    evaluation: float = EVALUATION
    """What scoring a row costs against training on it."""
    overhead: float = OVERHEAD
    """What a stage costs beside that."""

    @property
    def whole(self) -> float:
        """A training from birth to end without any stage before the last one."""
        return self.ending(Fraction(0))

    def ending(self, before: Fraction) -> float:
        """What the last stage costs each genome that enters it."""
        scoring = self.evaluation * self.validation + self.overhead
        return float(1 - before) * self.training + scoring

    def rung(self, rung: Rung, before: Fraction) -> float:
        """What a stage costs each genome that enters it."""
        return (
            float(rung.share - before) * self.training + self.evaluation * rung.rows + self.overhead
        )

    def cost(self, schedule: Schedule, population: int) -> float:
        """Of a generation, if no stop rule takes a genome out."""
        total, entered, before = 0.0, population, Fraction(0)
        for rung in schedule.rungs:
            total += entered * self.rung(rung, before)
            entered, before = rung.kept, rung.share
        return total + entered * self.ending(before)
