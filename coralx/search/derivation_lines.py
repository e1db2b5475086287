"""Searches along one parameter of a derivation, with as few looks as can be: golden section along
a factor, bisection along a ladder of cuts. Figures are to be minimised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

FACTORS = 0.5, 1.5
"""Between these the best factor is sought. At 0 there is the base; far beyond 1 nothing is gained.
"""

FIRST_FACTOR = 0.75
"""What is tried first, and then the same distance to the other side of 1: small adapters that were
trained to the end have mostly gone too far."""

FINEST = 0.05
"""Factors nearer to each other than this are not told apart."""

GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def next_factor(known: Mapping[float, float], first: float = FIRST_FACTOR) -> float | None:
    """The factor to be scored next, where `known` has the figure of each that was, 1 among them;
    None where the best is found. `first` is tried before all others, then the other side of 1, if
    the first was worse.

    From then on it is the lowest point of the parabola through the best and its neighbours (Brent
    1973, chapter 5), or where the best has but one neighbour, a golden section of what lies behind.
    """
    if len(known) == 1:
        return first
    best = min(known, key=lambda factor: (known[factor], abs(factor - 1.0)))
    if len(known) == 2 and best == 1.0:
        return round(2.0 - first, 2)
    below = max((factor for factor in known if factor < best), default=None)
    above = min((factor for factor in known if factor > best), default=None)
    if below is not None and above is not None:
        candidate = _lowest((below, best, above), known)
    else:
        end = FACTORS[0] if below is None else FACTORS[1]
        candidate = best + GOLDEN * (end - best)
    if candidate is None:
        return None
    factor = round(candidate, 2)
    return factor if all(abs(factor - other) >= FINEST for other in known) else None


def _lowest(factors: Sequence[float], known: Mapping[float, float]) -> float | None:
    """Where the parabola through three points is lowest; None where it is not, between them."""
    low, middle, high = factors
    left, right = known[low] - known[middle], known[high] - known[middle]
    if not (math.isfinite(left) and math.isfinite(right)) or left + right <= 0.0:
        return None
    before, after = middle - low, high - middle
    vertex = middle + 0.5 * (left * after**2 - right * before**2) / (left * after + right * before)
    return vertex if low < vertex < high else None


def next_cut(
    ladder: Sequence[float], known: Mapping[float, bool], first: float | None = None
) -> float | None:
    """The cut to be scored next. `ladder` goes from the deepest to the slightest; `known` says of
    each that was scored whether the adapter holds. None where the deepest that holds is known.

    `first` is where the search begins: what another adapter bore.
    """
    holding = [place for place, cut in enumerate(ladder) if known.get(cut) is True]
    failing = [place for place, cut in enumerate(ladder) if known.get(cut) is False]
    high = min(holding, default=len(ladder))
    low = max((place for place in failing if place < high), default=-1)
    if high - low <= 1:
        return None
    if not known and first in ladder:
        return first
    return ladder[low + math.ceil((high - low) / 2)]
