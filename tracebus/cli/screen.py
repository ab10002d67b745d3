"""What commands write on: standard output as a terminal of some width, or as a pipe that others read.

Text that came from outside becomes a ``Text`` by ``said``, which leaves nothing in it that could turn a terminal.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Final, NamedTuple

import msgspec
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from ..payload import printable

__all__ = ["ACCENT", "DIM", "FAILED", "FAILURE", "MODELS", "Glyphs", "Screen", "as_json", "said"]

PIPE_WIDTH: Final = 120
"""How wide lines are that nobody looks at, whatever COLUMNS says: what reads them finds a column where it was."""
UNBOUNDED: Final = 100_000
ACCENT: Final = "cyan"
FAILURE: Final = "red"
DIM: Final = "dim"
MODELS: Final = frozenset({"llm", "chat_model"})
"""The kinds of run that the accent is for."""
FAILED: Final = frozenset({"error", "aborted", "lost"})


class Glyphs(NamedTuple):
    """How things are drawn."""

    signs: dict[str, str]
    """By the status of a run."""
    branch: str
    last: str
    through: str
    fork: str
    end: str
    waiting: str
    """Of a bar: before the first token."""
    bar: str
    begins: str
    """Half a cell of a bar, the right one; then the left one, and what hardly takes any time."""
    ends: str
    instant: str
    dot: str
    arrow: str
    cut: str
    at_least: str


_STATUSES: Final = ("open", "ok", "error", "aborted", "lost", "cancelled", "closed_early", "paused")
_DRAWN: Final = Glyphs(dict(zip(_STATUSES, "●■✗✗✗⊘◧‖", strict=True)), *"├─ |╰─ |│  |├ |╰ |─|━|╺|╸|▏|·|→|…|≥".split("|"))
_ASCII: Final = Glyphs(dict(zip(_STATUSES, "o*xxx/-=", strict=True)), *"+- ;`- ;|  ;+ ;` ;-;=;=;=;|;-;->;...;>=".split(";"))
_ALL_DRAWN: Final = "".join((*_DRAWN.signs.values(), *_DRAWN[1:]))


class Screen:
    """Standard output, and how things look there."""

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):  # text from outside may have what the encoding lacks
            sys.stdout.reconfigure(errors="backslashreplace")
        self.is_terminal: bool = sys.stdout.isatty()
        self.console = Console(
            width=None if self.is_terminal else UNBOUNDED,
            color_system=None if os.environ.get("NO_COLOR") else "auto",
            highlight=False,
            markup=False,
            emoji=False,
        )

    @property
    def width(self) -> int:
        """How many cells a line has; a terminal may have become narrower meanwhile."""
        return self.console.width if self.is_terminal else PIPE_WIDTH

    @cached_property
    def glyphs(self) -> Glyphs:
        """What things are drawn with."""
        try:
            _ALL_DRAWN.encode(self.console.encoding)
        except (UnicodeEncodeError, LookupError):
            return _ASCII
        return _DRAWN

    def sign(self, status: str) -> Text:
        """Return the sign of a status."""
        style = FAILURE if status in FAILED else ACCENT if status == "open" else ""
        return Text(self.glyphs.signs.get(status, "?"), style)

    def cut(self, text: str, room: int) -> str:
        """Return ``text``, or its beginning and a mark, in at most ``room`` cells."""
        if cell_len(text) <= room:
            return text
        mark = self.glyphs.cut
        return set_cell_size(text, room - len(mark)) + mark if room > len(mark) else mark[: max(0, room)]

    def fitting(self, parts: Iterable[Text], room: int, gap: str = "  ") -> Text:
        """Join parts, leaving out those at the end for which there is no room; in a pipe there always is."""
        line = Text(no_wrap=True, overflow="crop")
        for part in parts:
            if not part:
                continue
            more = Text(gap).append_text(part) if line else part
            if self.is_terminal and line and line.cell_len + more.cell_len > room:
                break
            line.append_text(more)
        return line

    def print(self, what: Any) -> None:
        """Print what rich can render. In a pipe no line ends with spaces."""
        if self.is_terminal:
            self.console.print(what, no_wrap=True, overflow="crop")
            return
        with self.console.capture() as captured:
            self.console.print(what, no_wrap=True, overflow="ignore", crop=False)
        sys.stdout.write("\n".join(line.rstrip() for line in captured.get().split("\n")))


def said(text: object, style: str = "") -> Text:
    """Return text from outside, on one line, with what could break or turn it escaped."""
    return Text(printable("" if text is None else str(text)), style)


def as_json(value: Any, write: Callable[[str], object] | None = None) -> None:
    r"""Write a value as one line of JSON. What could turn a terminal is escaped: ``\u009b``."""
    text = _TURNING.sub(lambda found: json.dumps(found[0])[1:-1], msgspec.json.encode(value).decode())
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        text = json.dumps(json.loads(text))
    (write or sys.stdout.write)(f"{text}\n")


_TURNING: Final = re.compile(r"[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
