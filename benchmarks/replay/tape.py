"""What one method has seen of a table, and what that cost: the same books for every method."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction

from curve_table import Table

FREE_LOOKS = 200
"""So many looks in a row that cost nothing end a search: it has nothing new to ask."""


class BudgetSpent(Exception):
    """The next look would cost more than is left, or the method only repeats itself."""


class Tape:
    """Looks at curves against a budget, in the table's unit of cost.

    A look at a share of a configuration's curve pays for the training up to there which this
    method has not paid for yet: what was trained before is continued, and asking again is free.

    `recommended` is (spent, configuration) whenever the recommendation changed: the lowest loss
    among those seen at the greatest share so far, the first of equals. `finished` is the same for
    every configuration seen to its end.
    """

    def __init__(self, table: Table, budget: float | Fraction) -> None:
        self.table = table
        self.budget = budget
        self.spent = 0
        self.recommended: list[tuple[int, int]] = []
        self.finished: list[tuple[int, int]] = []
        self._free_looks = 0
        self._trained: dict[int, int] = {}
        self._best = (Fraction(0), 0.0)

    @property
    def seen(self) -> Collection[int]:
        """Configurations that were looked at, to whatever share."""
        return self._trained.keys()

    def look(self, config: int, share: Fraction) -> float:
        """The loss after `share` of the configuration's curve; raises BudgetSpent."""
        checkpoint = self.table.checkpoint(config, share)
        total = self.table.costs[config][checkpoint]
        price = max(0, total - self._trained.get(config, 0))
        self._free_looks = 0 if price else self._free_looks + 1
        if self.spent + price > self.budget or self._free_looks > FREE_LOOKS:
            raise BudgetSpent
        self.spent += price
        self._trained[config] = self._trained.get(config, 0) + price
        loss = self.table.curves[config][checkpoint]
        if (-share, loss) < (-self._best[0], self._best[1]):
            self._best = (share, loss)
            self.recommended.append((self.spent, config))
        if price and total == self.table.costs[config][-1]:
            self.finished.append((self.spent, config))
        return loss
