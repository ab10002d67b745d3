"""``tracebus search``: the runs in which words are, with the place where they are."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from ..outputs.store import Filter, Reader, RunSummary
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
BEFORE: Final = 16
"""Characters that are shown of what stands before the words."""
SHOWN: Final = 240


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
        pattern, now_ns = _pattern(asked), time.time_ns()
        rows = [_row(screen, reader, run, ids, pattern, now_ns) for run in found]
    print_list(screen, COLUMNS, rows, more, "the same with")


def _pattern(asked: str) -> re.Pattern[str]:
    words = [re.escape(word) for word in re.split(r"\W+", asked) if word]
    return re.compile("|".join(words), re.IGNORECASE)


def _row(
    screen: Screen, reader: Reader, run: RunSummary, ids: dict[str, str], pattern: re.Pattern[str], now_ns: int
) -> list[Text]:
    place, text = _place(reader, run, pattern)
    shown = said(text)
    shown.highlight_regex(pattern, f"bold {ACCENT}")
    return row_of(screen, run, ids, now_ns, Text(place, DIM), shown, Text(seconds(run.duration_ns)))


def _place(reader: Reader, run: RunSummary, pattern: re.Pattern[str]) -> tuple[str, str]:
    """Return where most of the words are, and the text around the first of them there."""
    texts = [("error", run.error or ""), ("output", run.output or ""), ("input", run.input or "")]
    if max(_hits(pattern, text) for _, text in texts) <= pattern.pattern.count("|"):  # some are in what lists do not show
        texts += _bodies(reader, run)
    place, text = max(texts, key=lambda one: _hits(pattern, one[1]))
    found = pattern.search(text)
    begin = found.start() - BEFORE if found is not None and found.start() > 2 * BEFORE else 0
    return place, ("…" if begin else "") + " ".join(text[begin : begin + SHOWN].split())


def _hits(pattern: re.Pattern[str], text: str) -> int:
    return len({word.lower() for word in pattern.findall(text)})


def _bodies(reader: Reader, run: RunSummary) -> Iterator[tuple[str, str]]:
    body = reader.bodies(run.trace_id, [run.span_id])[run.span_id]
    if body.error is not None:
        yield "error", "\n".join([body.error.message, *(str(cause.get("message")) for cause in body.error.causes)])
    yield "output", "\n".join([*_strings(body.output), body.streamed or ""])
    yield "input", "\n".join(_strings(body.inputs))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(item)
