"""What lists of traces and of runs have in common: what a row begins and ends with, and how to go on where a list ended."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from ..outputs.store import RunSummary, TraceSummary
from .quantities import moment, when
from .screen import ACCENT, DIM, FAILED, FAILURE, MODELS, Screen, said
from .tables import Column, print_table

__all__ = ["print_list", "row_of"]


def row_of(screen: Screen, one: TraceSummary | RunSummary, ids: dict[str, str], now_ns: int, *cells: Text) -> list[Text]:
    """Return a row: the trace, how it went and the name before what the list is about, and at the end when it was."""
    style = FAILURE if one.status in FAILED else ACCENT if one.kind in MODELS else ""
    return [
        Text(ids.get(one.trace_id, one.trace_id), DIM),
        screen.sign(one.status) if screen.is_terminal else Text(one.status),
        said(one.name or "?", style),
        *cells,
        Text(when(one.started_ns, now_ns) if screen.is_terminal else moment(one.started_ns), DIM),
    ]


def print_list(
    screen: Screen, columns: Sequence[Column], rows: Sequence[Sequence[Text]], more: str | None, again: str
) -> None:
    """Print the rows and, where there are ``more``, with what command to go on, which ``again`` begins."""
    print_table(screen, columns, rows)
    if more is not None and screen.is_terminal:
        screen.print(Text(f"older ones: {again} --after {more}", DIM))
