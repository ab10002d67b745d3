"""``tracebus search``: the runs in which words are, with the place where they are."""

from __future__ import annotations

import time
from typing import Annotated, Final

import typer
from rich.text import Text

from ..outputs.store import Filter, Found
from ..outputs.store.passages import Search, phrases_of
from ..payload import printable
from .lists import print_list, row_of
from .options import After, Db, Json, Limit, filtered
from .screen import ACCENT, DIM, Screen, as_json, said
from .stores import opened, pages, short_ids
from .tables import Column
from .words import seconds

__all__ = ["command"]

COLUMNS: Final = (
    Column("trace", 32),
    Column("", 12),
    Column("name", 20),
    Column("found in", 8, rank=5),
    Column("text", 0),
    Column("duration", 8, rank=3, is_number=True),
    Column("when", 19, rank=2, is_number=True),
)


@filtered
def command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="WORD", help='Words that must all be there; "next to one another" in quotes; the beginning* of some.'
        ),
    ],
    wanted: Filter,
    limit: Limit = 20,
    after: After = None,
    as_lines: Json = False,
    db: Db = None,
) -> None:
    """Print the runs that have the words, the latest first."""
    asked = " ".join(f'"{word}"' if " " in word and '"' not in word else word for word in words)
    with opened(db) as reader:
        found, more = pages(lambda **page: reader.search(asked, wanted, **page), limit, after)
        if as_lines:
            for run in found:
                as_json(run)
            return
        screen = Screen()
        if not found:
            print(f"nothing with {printable(asked)} is in {reader.path}")
            return
        ids = short_ids(reader, [run.trace_id for run in found]) if screen.is_terminal else {}
        search, now_ns = Search(phrases_of(asked)), time.time_ns()
        rows = [_row(screen, run, ids, search, now_ns) for run in found]
    print_list(screen, COLUMNS, rows, more, "the same with")


def _row(screen: Screen, run: Found, ids: dict[str, str], search: Search, now_ns: int) -> list[Text]:
    shown = said(run.passage)
    for hit in search.hits(shown.plain):
        shown.stylize(f"bold {ACCENT}", hit.begin, hit.end)
    return row_of(screen, run, ids, now_ns, Text(run.found_in, DIM), shown, Text(seconds(run.duration_ns)))
