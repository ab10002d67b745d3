"""``tracebus ls``: traces as a table, the latest first."""

from __future__ import annotations

import time
from typing import Final

from rich.text import Text

from ..outputs.store import Filter, TraceSummary
from .lists import print_list, row_of
from .options import After, Db, Json, Limit, filtered
from .screen import Screen, as_json, said
from .stores import opened, pages, short_ids
from .tables import Column
from .words import cost_of, seconds, tokens_of

__all__ = ["command"]

COLUMNS: Final = (
    Column("trace", 32),
    Column("", 12),
    Column("name", 20),
    Column("input", 0, rank=5),
    Column("duration", 8, is_number=True),
    Column("first token", 11, rank=7, is_number=True),
    Column("tokens", 10, rank=3, is_number=True),
    Column("cost", 9, rank=4, is_number=True),
    Column("when", 19, rank=2, is_number=True),
)


@filtered
def command(
    wanted: Filter,
    limit: Limit = 20,
    after: After = None,
    as_lines: Json = False,
    db: Db = None,
) -> None:
    """Print the traces that are wanted."""
    with opened(db) as reader:
        found, more = pages(lambda **page: reader.traces(wanted, **page), limit, after)
        if as_lines:
            for trace in found:
                as_json(trace)
            return
        screen = Screen()
        ids = short_ids(reader, [trace.trace_id for trace in found]) if screen.is_terminal else {}
    if not found:
        print(f"no traces in {reader.path}" + (" that are so" if wanted != Filter() else ""))
        return
    now_ns = time.time_ns()
    print_list(screen, COLUMNS, [_row(screen, trace, ids, now_ns) for trace in found], more, "tracebus ls")


def _row(screen: Screen, trace: TraceSummary, ids: dict[str, str], now_ns: int) -> list[Text]:
    elapsed_ns = now_ns - trace.started_ns if trace.status == "open" else trace.duration_ns
    return row_of(
        screen,
        trace,
        ids,
        now_ns,
        said(trace.input),
        Text(seconds(elapsed_ns) + (screen.glyphs.cut if trace.status == "open" else "")),
        Text(seconds(trace.first_token_ns)),
        Text(tokens_of(trace.tokens.total)),
        Text(cost_of(screen, trace)),
    )
