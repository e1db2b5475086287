"""Figures and times as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def duration(seconds: float | None) -> str:
    """Seconds in the unit that reads best."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def figure(value: float | None) -> str:
    """A metric: whole numbers with separators, others to four places."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:.4f}"


def modules(value: str | Sequence[str]) -> str:
    """Target modules in one cell."""
    return value if isinstance(value, str) else "+".join(value)


def ratio(value: float | None) -> str:
    """How many times cheaper."""
    return "-" if value is None else f"{value:.2f}x"


def with_interval(measured: Mapping[str, float | None] | None) -> str:
    """A measured figure, its interval behind it in rich's markup."""
    if not measured:
        return "-"
    value, low, high = measured["value"], measured["low"], measured["high"]
    if low is None or high is None or low == high:
        return figure(value)
    return f"{figure(value)} [dim]{low:.3f}-{high:.3f}[/]"
