"""``tracebus show``: one trace as a tree, or everything that went into one of its runs and came out."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.text import Text

from ..figures import number
from ..outputs.store import Reader
from .bodies import body_lines
from .options import Db, Json, Trace
from .screen import DIM, Screen, as_json
from .stores import opened, pages, short_ids, trace_id
from .trees import Tree, heading, tree_lines

__all__ = ["command"]


def command(
    trace: Trace,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Only this run, by the first digits of its span.")] = None,
    full: Annotated[bool, typer.Option("--full", help="With all that went in and came out, run by run.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many runs, at most.")] = 500,
    as_lines: Json = False,
    db: Db = None,
) -> None:
    """Print a trace."""
    with opened(db) as reader:
        which = trace_id(reader, trace)
        if as_lines:
            _print_json(reader, which, run, full, limit)
        elif run is not None:
            screen = Screen()
            for line in body_lines(screen, reader.run(which, run)):
                screen.print(line)
        else:
            _print_tree(reader, which, full, limit)


def _print_tree(reader: Reader, which: str, full: bool, limit: int) -> None:
    screen, now_ns = Screen(), time.time_ns()
    rows, more = pages(lambda **page: reader.tree(which, **page), limit)
    tree = Tree(reader.trace(which), rows, {})
    shown_id = short_ids(reader, [which])[which] if screen.is_terminal else which
    screen.print(heading(screen, tree, shown_id, now_ns))
    for line in tree_lines(screen, tree, now_ns):
        screen.print(line)
    if more is not None:
        screen.print(Text(f"{number(tree.trace.runs - len(rows))} more runs: --limit {tree.trace.runs}", DIM))
    for row in rows if full else ():
        screen.print("")
        for line in body_lines(screen, reader.run(which, row.run.span_id)):
            screen.print(line)


def _print_json(reader: Reader, which: str, run: str | None, full: bool, limit: int) -> None:
    """Write one value: the trace with its runs, which with ``full`` have their bodies, or one run."""
    if run is not None:
        as_json(reader.run(which, run))
        return
    rows, _ = pages(lambda **page: reader.tree(which, **page), limit)
    runs = [reader.run(which, row.run.span_id) if full else row for row in rows]
    as_json({"trace": reader.trace(which), "runs": runs})
