"""Tables on terminals of any width: narrower ones, and in the end lines."""

from __future__ import annotations

from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class FirstThatFits:
    """Shows the first of `choices` for which there is room, else the last."""

    choices: tuple[RenderableType, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unlimited = options.update(max_width=1 << 16)  # else rich measures it squeezed already
        for choice in self.choices[:-1]:
            if Measurement.get(console, unlimited, choice).maximum <= options.max_width:
                yield choice
                return
        yield self.choices[-1]


def fitting(table: Table) -> FirstThatFits:
    """A table of text cells: as it is, else without rules between columns and its titles a word a
    line, else a line a row, in which nothing is cut."""
    return FirstThatFits((table, _compact(table), _lines(table)))


def _compact(table: Table) -> Table:
    compact = Table(
        title=table.title,
        title_justify=table.title_justify,
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in table.columns:
        compact.add_column(str(column.header).replace(" ", "\n"), justify=column.justify)
    for cells in _rows(table):
        compact.add_row(*cells)
    return compact


def _lines(table: Table) -> Text:
    titles = [str(column.header) for column in table.columns]
    lines = [f"[italic]{table.title}[/]"]
    for first, *others in _rows(table):
        cells = [f"{title} {cell}" for title, cell in zip(titles[1:], others, strict=True) if cell]
        lines.append(f"[bold]{first}[/]: {', '.join(cells)}")
    return Text.from_markup("\n".join(lines))


def _rows(table: Table) -> list[list[str]]:
    columns = [list(map(str, column.cells)) for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]
