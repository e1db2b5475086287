"""The live table: of a generation, what fits on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coralx.records.genomes import Genome
from coralx.report.formatting import duration, figure, modules
from coralx.report.line_wrapping import cut, cut_in_the_middle, packed
from coralx.report.progress import Brief, Kind, Standings
from coralx.text import printable

KEPT_FIRST: tuple[Kind, ...] = (
    "training",
    "waiting",
    "evaluated",
    "finished",
    "derived",
    "stopped",
    "failed",
    "cut",
)
"""Whose rows stay where there are fewer lines than genomes: those in training first."""

STYLES: dict[Kind, str] = {
    "waiting": "dim",
    "finished": "green",
    "derived": "green",
    "stopped": "red",
    "failed": "red",
    "cut": "dim",
}

GAP = 2
"""Columns between two columns."""

TITLE, NAME, MODULES = 12, 8, 10
"""Widths that a title, a genome's id and modules are never cut below."""

BY_WORTH = ("genome", "state", "figure", "loss", "lr", "rank/alpha", "modules")
"""Columns, from the last that is dropped to the first."""

UNKNOWN = Brief("waiting", "waiting")
"""Of a genome that no event has named a state for."""


@dataclass(frozen=True)
class Column:
    """A title and a cell for each row."""

    title: str
    cells: tuple[str, ...]
    justify: Literal["left", "right"] = "left"

    @property
    def width(self) -> int:
        return max(map(cell_len, (self.title, *self.cells)))

    def within(self, width: int) -> Column:
        """The same, its cells cut to so many columns."""
        title, *cells = (cut_in_the_middle(text, width) for text in (self.title, *self.cells))
        return Column(title, tuple(cells), self.justify)


def board(standings: Standings, note: str, left: str, width: int, height: int) -> RenderableType:
    """A generation on at most `height` lines of `width` columns: the head with the time `left`, a
    `note` on what else is going on, and a row a genome."""
    heads = packed(_head(standings, left), width)
    lines = [Text(line, style="bold") for line in heads]
    if note:
        lines.append(Text(cut(printable(note), width), style="dim"))
    room = height - len(lines) - 1  # for the titles
    if room < 2:  # a terminal of a few lines: rows are worth more than the note
        lines, room = lines[:1], max(1, height - 2)
    if not standings.genomes:
        return Group(*lines)
    shown, left_out = _who(standings, room)
    parts: list[RenderableType] = [*lines, _table(standings, shown, width)]
    if left_out:
        parts.append(Text(cut(left_out, width), style="dim"))
    return Group(*parts)


def _head(standings: Standings, left: str) -> list[str]:
    config = standings.config
    generation = f"generation {standings.generation + 1} of {config.evolution.generations}"
    parts = [generation, standings.stage.name, f"{duration(standings.elapsed)} elapsed", left]
    best = standings.best()
    if best is not None:
        metric = config.objectives[0].metric
        parts.append(f"best {metric} {figure(best[1], metric)} ({best[0]})")
    return parts


def _who(standings: Standings, room: int) -> tuple[list[Genome], str]:
    """The genomes for which there is room, and a line about the others."""
    genomes = standings.genomes
    if len(genomes) <= room:
        return list(genomes), ""
    kinds = {genome.id: standings.brief.get(genome.id, UNKNOWN).kind for genome in genomes}
    by_rank = sorted(genomes, key=lambda genome: KEPT_FIRST.index(kinds[genome.id]))
    kept = {genome.id for genome in by_rank[: max(1, room - 1)]}
    others = Counter(kind for genome, kind in kinds.items() if genome not in kept)
    counts = [f"{others[kind]} {kind}" for kind in KEPT_FIRST if others[kind]]
    return [genome for genome in genomes if genome.id in kept], f"and {', '.join(counts)}"


def _table(standings: Standings, genomes: Sequence[Genome], width: int) -> Table:
    columns = _fitting(_columns(standings, genomes), width)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    for column in columns.values():
        title, justify = Text(column.title), column.justify
        table.add_column(title, justify=justify, no_wrap=True, min_width=column.width)
    states = [standings.brief.get(genome.id, UNKNOWN) for genome in genomes]
    for row, state in enumerate(states):
        style = {"state": STYLES.get(state.kind, "")}
        table.add_row(
            *(Text(column.cells[row], style.get(name, "")) for name, column in columns.items())
        )
    return table


def _columns(standings: Standings, genomes: Sequence[Genome]) -> dict[str, Column]:
    """All of them, in the order in which they are shown."""
    metric = standings.config.objectives[0].metric
    genes = [genome.genes for genome in genomes]
    losses = [standings.loss(genome.id) for genome in genomes]
    figures = tuple(figure(standings.latest(genome.id), metric) for genome in genomes)
    title = cut_in_the_middle(metric, max(TITLE, *map(len, figures)))
    states = tuple(standings.brief.get(genome.id, UNKNOWN).text for genome in genomes)
    return {
        "genome": Column("genome", tuple(genome.id for genome in genomes)),
        "rank/alpha": Column("rank/alpha", tuple(f"{g.rank}/{g.alpha:g}" for g in genes)),
        "lr": Column("lr", tuple(_rate(genome) for genome in genomes)),
        "modules": Column("modules", tuple(_modules(standings, genome) for genome in genomes)),
        "figure": Column(title, figures, "right"),
        "loss": Column("loss", tuple("" if v is None else f"{v:.3f}" for v in losses), "right"),
        "state": Column("state", states),
    }


def _rate(genome: Genome) -> str:
    """Empty for a derived genome, which is not trained."""
    return "" if genome.derived is not None else f"{genome.genes.learning_rate:.1e}"


def _modules(standings: Standings, genome: Genome) -> str:
    """Of a derived genome how it came to be, which says more."""
    genes = genome.genes
    return standings.origin(genome) or modules(genes.target_modules, genes.layers)


def _fitting(columns: dict[str, Column], width: int) -> dict[str, Column]:
    """The columns that are not empty and fit, by their worth: an id gives way to state and figure
    down to a few columns, modules are cut before they are dropped."""
    others = sum(columns[name].width + GAP for name in ("state", "figure"))
    taken = {"genome": columns["genome"].within(max(NAME, width - others))}
    free = width - taken["genome"].width
    for name in BY_WORTH[1:]:
        if not any(columns[name].cells):  # the loss, while none is in training
            continue
        column, room = columns[name], free - GAP
        if name == "modules" and MODULES <= room < column.width:
            column = column.within(room)
        if name == "state" and room < column.width:
            column = column.within(max(1, room))
        if column.width > room:  # nothing of less worth comes in its place
            break
        taken[name] = column
        free -= GAP + column.width
    return {name: taken[name] for name in columns if name in taken}
