"""The terminal, as everything that CoralX prints reaches it."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from coralx.printable import printable


class HarmlessConsole(Console):
    """A console on which text can do nothing but be read.

    Here pass all lines, cells and titles, rich's own styles and cursor movements being something
    else than text; so no one who prints has to think of it.
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
