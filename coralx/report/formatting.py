"""Figures and times as people read them, and the console through which all of it is printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from coralx.text import printable

BYTES = ("memory", "adapter_bytes")
COUNTS = ("trainable_parameters",)
"""Metrics that are counts, of bytes or of anything."""


def duration(seconds: float | None) -> str:
    """Seconds in the unit that reads best."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def figure(value: float | None, metric: str = "") -> str:
    """A metric: bytes in the unit that reads best, milliseconds to two places, counts whole; of
    others whole numbers with separators, the rest to four places."""
    if value is None:
        return "-"
    if metric in BYTES:
        size, unit = _unit(value)
        return f"{value / size:,.2f} {unit}"
    if metric == "latency_ms":
        return f"{value:,.2f}"
    is_whole = float(value).is_integer() and (abs(value) >= 10 or metric in COUNTS)
    return f"{value:,.0f}" if is_whole else f"{value:.4f}"


def _unit(value: float) -> tuple[int, str]:
    """The unit of bytes in which a size reads best, and its name."""
    power = sum(abs(value) >= 1 << bits for bits in (20, 30))
    return 1 << 10 * (power + 1), ("KiB", "MiB", "GiB")[power]


def modules(value: str | Sequence[str], layers: str | int = "all") -> str:
    """Target modules in one cell, and of which layers, unless it is all."""
    named = value if isinstance(value, str) else "+".join(value)
    if layers == "all" or not named:
        return named
    return f"{named}, {layers if isinstance(layers, str) else f'top {layers}'}"


def ratio(value: float | None) -> str:
    """How many times cheaper."""
    return "-" if value is None else f"{value:.2f}x"


def cheaper(value: float) -> str:
    """How many times cheaper, or more expensive, something was."""
    return f"{value:.2f}x cheaper" if value >= 1 else f"{1 / value:.2f}x more expensive"


def with_interval(
    measured: Mapping[str, float | None] | None, metric: str = "", *, below: bool = False
) -> str:
    """A measured figure, its interval behind or `below` it, in rich's markup."""
    if not measured:
        return "-"
    value, low, high = measured["value"], measured["low"], measured["high"]
    if value is None or low is None or high is None or low == high:
        return figure(value, metric)
    size = _unit(value)[0] if metric in BYTES else 1
    places = 2 if metric in BYTES or metric == "latency_ms" else 3
    interval = f"{low / size:.{places}f}-{high / size:.{places}f}"
    between = "\n" if below else " "
    return f"{figure(value, metric)}{between}[dim]{interval}[/]"


class HarmlessConsole(Console):
    """A console whose text cannot control the terminal.

    All lines, cells and titles pass here, so that nobody who prints has to think of escaping.
    Rich's own styles and cursor movements are segments of another kind, and stay.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As rich has it, with control characters made visible."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else _harmless(segment)


def _harmless(segment: Segment) -> Segment:
    text = printable(segment.text)
    return segment if text == segment.text else Segment(text, segment.style)
