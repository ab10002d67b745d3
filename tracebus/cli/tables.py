"""Tables for terminals of any width, and for pipes: which columns there is room for, and how wide each is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from rich.table import Table
from rich.text import Text

from .screen import DIM, Screen

__all__ = ["Column", "print_table"]

GAP: Final = 2
LEAST_TEXT: Final = 12
"""Cells that a column of free text needs to be of any use."""
LEAST_NAME: Final = 4


class Column(NamedTuple):
    """A column. Of those that do not fit, the ones with the highest ``rank`` are left out first, and rank 0 never is."""

    title: str
    width: int
    """Cells in a pipe, and at most on a terminal; 0 takes what is left."""
    rank: int = 0
    is_number: bool = False


def print_table(screen: Screen, columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> None:
    """Print rows, which have a cell for every column."""
    widths = _widths(screen, columns, rows)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style=DIM)
    for at, width in widths.items():
        column = columns[at]
        table.add_column(column.title, width=width, justify="right" if column.is_number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_fitted(screen, row[at], width) for at, width in widths.items()))
    screen.print(table)


def _fitted(screen: Screen, cell: Text, width: int) -> Text:
    if cell.cell_len <= width:
        return cell
    mark = screen.glyphs.cut[:width]
    short = cell.copy()
    short.truncate(width - len(mark), overflow="crop")
    return short.append(mark)


def _widths(screen: Screen, columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> dict[int, int]:
    """Return how wide each column is that is shown, by its place."""
    if not screen.is_terminal:
        return {at: column.width or screen.width // 2 for at, column in enumerate(columns)}
    natural = [max([len(column.title), *(row[at].cell_len for row in rows)]) for at, column in enumerate(columns)]
    needs = {
        at: min(natural[at], column.width) if column.width else min(natural[at], LEAST_TEXT)
        for at, column in enumerate(columns)
    }
    while sum(needs.values()) + GAP * (len(needs) - 1) > screen.width:
        least = max(needs, key=lambda at: columns[at].rank)
        if columns[least].rank == 0:
            break
        del needs[least]
    _squeeze(needs, columns, screen.width)
    left = screen.width - sum(needs.values()) - GAP * (len(needs) - 1)
    for at in needs:
        if not columns[at].width:
            needs[at] = max(0, min(natural[at], needs[at] + left))
    return needs


def _squeeze(needs: dict[int, int], columns: Sequence[Column], room: int) -> None:
    """Take from the widest texts what is still too much."""
    while sum(needs.values()) + GAP * (len(needs) - 1) > room:
        texts = [at for at in needs if not columns[at].is_number]
        widest = max(texts, key=lambda at: needs[at], default=None)
        if widest is None or needs[widest] <= LEAST_NAME:
            break
        needs[widest] -= 1
