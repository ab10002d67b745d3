"""``tracebus tail``: what happens in all processes that write the store, as trees that grow, until Ctrl-C.

On a terminal the traces in flight are drawn over and over, and printed above once they have ended. In a pipe only the
latter are, and with ``--json`` each change is a line.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Annotated, Final

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from ..figures import count
from ..outputs.store import Filter, Reader, TraceSummary, default_path
from ..payload import printable
from .following import Follower, wait_for_store
from .options import Db, Json, filtered
from .screen import DIM, Screen, as_json
from .stores import explained, pages, short_ids
from .trees import Tree, heading, tree_lines

__all__ = ["command"]

INTERRUPTED: Final = 130
"""What shells expect of a program that Ctrl-C has ended."""
REDRAWN_EVERY_S: Final = 0.5
"""How often trees grow by time alone."""


@filtered
def command(
    wanted: Filter,
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="Begin with so many that have ended.")] = 0,
    as_lines: Json = False,
    db: Db = None,
) -> None:
    """Print what happens until Ctrl-C."""
    path = default_path() if db is None else db
    try:
        with explained(path):
            is_there = path.exists()
            if not is_there:
                waiting = f"waiting for {printable(str(path))}, which save() or `tracebus run --save` makes"
                print(waiting, file=sys.stderr, flush=True)
            with wait_for_store(path) as reader:
                _follow(reader, Follower(reader, wanted, from_the_start=not is_there), last, as_lines)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _follow(reader: Reader, follower: Follower, last: int, as_lines: bool) -> None:
    found, _ = pages(lambda **page: reader.traces(follower.wanted, **page), last) if last else ([], None)
    earlier = [trace for trace in reversed(found) if trace.trace_id not in follower.growing]
    if as_lines:
        _print_json(follower, earlier)
        return
    screen = Screen()
    for trace in earlier:
        _print(screen, reader, follower.tree(trace))
    if screen.is_terminal and not screen.console.is_dumb_terminal:
        _draw(screen, reader, follower)
        return
    for ended in follower.looks():
        for trace in ended:
            _print(screen, reader, follower.tree(trace))
        sys.stdout.flush()


def _print_json(follower: Follower, earlier: list[TraceSummary]) -> None:
    """Write a line for each trace and run in flight and for each that changes, with what a model has written so far."""
    for trace in earlier:
        as_json({"trace": trace})
    for tree in follower.growing.values():
        for row in tree.rows:
            as_json({"run": row.run, "text": tree.writing.get(row.run.span_id)})
        as_json({"trace": tree.trace})
    sys.stdout.flush()
    for _ in follower.looks():
        for run in follower.changes.runs:
            as_json({"run": run, "text": follower.text_of(run)})
        for trace in follower.changes.traces:
            as_json({"trace": trace})
        for trace_id in follower.changes.removed:
            as_json({"removed": trace_id})
        sys.stdout.flush()


def _print(screen: Screen, reader: Reader, tree: Tree) -> None:
    for line in _lines(screen, reader, tree):
        screen.print(line)


def _lines(screen: Screen, reader: Reader, tree: Tree) -> Iterator[Text]:
    now_ns, trace_id = time.time_ns(), tree.trace.trace_id
    shown_id = short_ids(reader, [trace_id])[trace_id] if screen.is_terminal else trace_id
    yield heading(screen, tree, shown_id, now_ns)
    yield from tree_lines(screen, tree, now_ns)


# -- on a terminal -----------------------------------------------------------------------------------------------------


def _draw(screen: Screen, reader: Reader, follower: Follower) -> None:
    """Draw what is in flight over and over, and print above it what has ended."""
    waiting = Text(f"following {printable(str(reader.path))}, Ctrl-C ends", DIM, no_wrap=True, overflow="ellipsis")
    drawn_s = 0.0
    with Live(waiting, console=screen.console, auto_refresh=False, transient=True) as live:
        try:
            live.refresh()
            for ended in follower.looks():
                for trace in ended:
                    _print(screen, reader, follower.tree(trace))
                is_due = bool(follower.growing) and time.monotonic() > drawn_s + REDRAWN_EVERY_S
                if is_due or ended or follower.changes.traces or follower.changes.removed:
                    lines = _growing(screen, reader, follower)
                    live.update(Group(*lines) if lines else waiting, refresh=True)
                    drawn_s = time.monotonic()
        finally:
            live.transient = bool(not follower.growing)  # what was in flight stays to be read


def _growing(screen: Screen, reader: Reader, follower: Follower) -> list[Text]:
    """Return the lines of the traces in flight that there is room for, of each the heading and its end."""
    trees = list(follower.growing.values())
    room = max(4, screen.console.height - 1)
    shown = trees[-max(1, room // 4) :]
    each = max(3, (room - 1) // max(1, len(shown)))
    lines: list[Text] = []
    for tree in shown:
        first, *rest = _lines(screen, reader, tree)
        if len(rest) > each - 1:
            hidden = len(rest) - each + 2
            rest = [Text(f"{screen.glyphs.through}{screen.glyphs.cut} {count(hidden, 'line')}", DIM), *rest[hidden:]]
        lines += [first, *rest]
    if len(trees) > len(shown):
        lines.append(Text(f"{screen.glyphs.cut} and {len(trees) - len(shown)} more in flight", DIM))
    return lines
