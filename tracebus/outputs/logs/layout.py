"""Where on a terminal the words of an event stand: columns, indentation, colours, and what is cut.

    14:02:07.118  ▶ answer            "How do I subscribe to tokens?"                       #7f3a
    14:02:07.119  │ ▶ search          "subscribe tokens"                                    #91c0
    14:02:07.131  │ ■ search    12 ms 4 documents

The words come from ``rows``. A layout remembers the rows before: how wide the names were, and whose row was the last.
"""

from __future__ import annotations

import os
import sys
import time
import unicodedata
from collections.abc import Iterable
from typing import Final, NamedTuple

from ...figures import ARROW
from .printer import Target
from .rows import Row, Sign

__all__ = ["Layout"]

LABEL: Final = 19
"""Cells for indentation, sign, name and duration. They become more as the names need it, and never fewer."""
LONGEST_LABEL: Final = 44
DEEPEST: Final = 12
"""How many levels are indented; what is deeper stands there too."""
FACTS: Final = 40
"""Cells for what is known of a call before its output, so that outputs stand below one another."""
SHORTEST_TEXT: Final = 8
NARROWEST: Final = 20
WIDEST: Final = 160
"""On a line wider than this the eye loses its way to the right end."""
USUAL_WIDTH: Final = 100
"""Where nobody says how wide the lines may be."""
DURATION: Final = 6

DIM: Final = "\x1b[2m"
ACCENT: Final = "\x1b[36m"
RED: Final = "\x1b[31m"
PLAIN: Final = "\x1b[0m"
LINK: Final = "\x1b]8;;"
LINK_END: Final = "\x1b\\"


class Glyphs(NamedTuple):
    """How the parts of a row are drawn."""

    signs: dict[Sign, str]
    branch: str
    dot: str
    arrow: str
    cut: str


_SIGNS: Final[tuple[Sign, ...]] = ("start", "ok", "error", "cancelled", "closed_early", "paused", "note", "token")
_DRAWN: Final = Glyphs(dict(zip(_SIGNS, "▶■✗⊘◧‖··", strict=True)), "│", "·", "→", "…")
_ASCII: Final = Glyphs(dict(zip(_SIGNS, ">*x/-=..", strict=True)), "|", "-", "->", "...")
_ALL_DRAWN: Final = "".join((*_DRAWN.signs.values(), *_DRAWN[1:]))


class Page(NamedTuple):
    """What a target can show."""

    width: int
    glyphs: Glyphs
    is_coloured: bool

    @classmethod
    def of(cls, target: Target) -> Page:
        """Look at the target and the environment; a terminal may have become narrower since the last row."""
        return cls(_width_of(target), _glyphs_for(target.encoding), _takes_colour(target))

    def paint(self, text: str, colour: str) -> str:
        """Return ``text`` in a colour, if there are any."""
        return f"{colour}{text}{PLAIN}" if self.is_coloured and colour and text else text


def _width_of(target: Target) -> int:
    """Return what COLUMNS says, else what the terminal says (as ``shutil.get_terminal_size``, but of this stream)."""
    given = os.environ.get("COLUMNS", "")
    width = int(given) if given.isdecimal() else 0
    if not width and target.is_terminal and target.stream is not None:
        try:
            width = os.get_terminal_size(target.stream.fileno()).columns
        except (AttributeError, ValueError, OSError):
            width = 0
    return max(NARROWEST, min(width or USUAL_WIDTH, WIDEST))


def _glyphs_for(encoding: str) -> Glyphs:
    try:
        _ALL_DRAWN.encode(encoding)
    except UnicodeEncodeError:
        return _ASCII
    return _DRAWN


def _takes_colour(target: Target) -> bool:
    """Ask NO_COLOR (no-color.org), FORCE_COLOR (force-color.org) and TERM, in the order in which CPython does."""
    asked = os.environ.get
    if asked("NO_COLOR"):
        return False
    if asked("FORCE_COLOR", "0") not in ("", "0"):
        return True
    if asked("TERM") == "dumb" or not target.is_terminal:
        return False
    return sys.platform != "win32" or any(map(asked, ("WT_SESSION", "ANSICON", "TERM")))


# -- cells -------------------------------------------------------------------------------------------------------------


def cells(text: str) -> int:
    """Return how many cells of a terminal ``text`` takes: Chinese takes two a character, an accent none."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    if unicodedata.east_asian_width(character) in "WF":
        return 2
    return 0 if unicodedata.category(character) in ("Mn", "Me", "Cf") else 1


def head(text: str, room: int) -> str:
    """Return as much of the beginning of ``text`` as fits into ``room`` cells."""
    if cells(text) <= room:
        return text
    taken = 0
    for index, character in enumerate(text):
        taken += _cells_of(character)
        if taken > room:
            return text[:index]
    return text


def cut(text: str, room: int, mark: str) -> str:
    """Return ``text``, or its beginning and a ``mark``, in at most ``room`` cells."""
    return text if cells(text) <= room else head(text, room - len(mark)) + mark[: max(0, room)]


def _pad(text: str, width: int) -> str:
    return text + " " * (width - cells(text))


# -- rows --------------------------------------------------------------------------------------------------------------


class _Flow(NamedTuple):
    """A line of tokens that is still open: whose it is, and how many cells it has."""

    path: tuple[int, ...]
    used: int


class Layout:
    """Lay rows out below one another. For one thread at a time, in the order in which they are written."""

    def __init__(self) -> None:
        self._label = LABEL
        self._last: tuple[int, ...] = ()
        self._flow: _Flow | None = None
        self._flows_into: Target | None = None

    def __call__(self, row: Row, target: Target) -> bytes:
        """Return the row as it is written: a line, or on a terminal the next piece of a line of tokens."""
        page = Page.of(target)
        if self._flows_into is not target:  # the app has put another stream in the place of sys.stdout
            self._flow, self._flows_into = None, target
        if row.sign == "token" and target.is_terminal:
            return target.encode(self._continued(row, page))
        end_of_flow = "" if self._flow is None else "\n"
        self._flow = None
        return target.encode(f"{end_of_flow}{self._line(row, page)}\n")

    def _line(self, row: Row, page: Page) -> str:
        names_run = self._must_name_run(row)
        start = self._start(row, page)
        is_linked = bool(row.link) and row.sign != "start"
        if is_linked:  # it is shown in full, whatever else there is room for
            needed = sum(cells(text) for text, _ in start)
            page = page._replace(width=max(needed, page.width - len(row.link) - 2))
        room = page.width - sum(cells(text) for text, _ in start) - 1
        if names_run:
            room -= len("  #0000")
        body = _body(row, page, room)
        pieces = [*start, (" ", ""), *body]
        if names_run:
            used = sum(cells(text) for text, _ in pieces)
            pieces.append((f"#{row.path[0] & 0xFFFF:04x}".rjust(page.width - used), DIM))
        if is_linked:
            return f"{_painted(pieces, page)}  {page.paint(row.link, DIM)}"
        return _clickable(_painted(pieces, page), row, page)

    def _must_name_run(self, row: Row) -> bool:
        """Tell whether a row says its run's id: at starts, and where the row before is of another branch."""
        if not row.path:
            return False
        last, self._last = self._last, row.path
        is_elsewhere = bool(last) and row.path[0] not in last and last[0] not in row.path
        return is_elsewhere or row.sign == "start"

    def _start(self, row: Row, page: Page) -> list[tuple[str, str]]:
        """Return time, indentation, sign, name and duration, as wide as in the rows above."""
        branches = f"{page.glyphs.branch} " * min(row.depth, DEEPEST)
        sign = page.glyphs.signs[row.sign]
        others = len(branches) + len(sign) + 1
        # A start leaves room for the duration, so that start and end stand below each other.
        duration = max(DURATION, len(row.duration)) + 1 if row.duration or row.sign == "start" else 0
        self._label = max(self._label, min(others + cells(row.name) + duration, LONGEST_LABEL))
        name = cut(row.name, self._label - others - duration, page.glyphs.cut)
        space = self._label - others - cells(name)
        colour = RED if row.sign == "error" else ACCENT if row.is_model else ""
        return [
            (f"{_clock(row.time_ns)}  {branches}", DIM),
            (f"{sign} {name}", colour),
            (row.duration.rjust(space), ""),
        ]

    def _continued(self, row: Row, page: Page) -> str:
        """Return the text of a token behind the tokens before it, in lines that are indented as the run is."""
        # Invariant: the margin leaves room on the page, so that each turn below writes something or begins such a line.
        levels = (page.width - TIME - SHORTEST_TEXT) // 2 - 1
        branches = f"{page.glyphs.branch} " * max(0, min(row.depth, DEEPEST, levels))
        margin = f"{' ' * TIME}{branches}  "
        written, flow = "", self._flow
        if flow is None or flow.path != row.path:
            which = f"#{row.path[0] & 0xFFFF:04x} " if self._must_name_run(row) else ""
            begin = f"{_clock(row.time_ns)}  {branches}{page.glyphs.signs[row.sign]} {which}"
            written = page.paint(begin, DIM) if flow is None else "\n" + page.paint(begin, DIM)
            flow = _Flow(row.path, cells(begin))
        text, used = row.text, flow.used
        while text:
            piece = head(text, page.width - used)
            if text[max(len(piece) - 1, 0) : len(piece) + 1].isascii() and len(piece) < len(text):
                # In scripts with blanks a line breaks behind one; a word that has none goes to a line of its own.
                piece = piece[: piece.rfind(" ") + 1] or ("" if used > len(margin) else piece)
            if (not piece and used > len(margin)) or used > page.width:
                written, used = f"{written}\n{page.paint(margin, DIM)}", len(margin)
                continue
            piece = piece or text[0]  # a terminal too narrow for anything
            written, used, text = written + piece, used + cells(piece), text[len(piece) :]
        self._flow = _Flow(row.path, used)
        return written


TIME: Final = len("14:02:07.118  ")


def _clock(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest // 1_000_000:03d}"


def _body(row: Row, page: Page, room: int) -> list[tuple[str, str]]:
    """Return facts, text and tail in ``room`` cells; the text is what gives way."""
    facts = f" {page.glyphs.dot} ".join(row.facts).replace(ARROW, page.glyphs.arrow)
    facts = cut(facts, room, page.glyphs.cut)
    if not row.text and not row.tail:
        return [(facts, "")]
    if facts:
        is_column = bool(row.duration) and cells(facts) < FACTS and room >= FACTS + 2 * SHORTEST_TEXT
        facts = _pad(facts, FACTS) if is_column else f"{facts}  "
    room -= cells(facts)
    tail = row.tail
    if tail and cells(tail) > room // 2:
        tail = _cut_left(tail, room // 2, page.glyphs.cut)
    for_text = room - (cells(tail) + 2 if tail else 0) - (2 if row.is_quoted else 0)
    text = cut(row.text, for_text, page.glyphs.cut) if for_text >= SHORTEST_TEXT else ""
    if text and row.is_quoted:
        text = f'"{text}"'
    return [
        (facts, ""),
        (text, RED if row.sign == "error" else ""),
        (f"  {tail}" if tail else "", DIM),
    ]


def _clickable(line: str, row: Row, page: Page) -> str:
    """Make a link of the id at the end of a line, for terminals that know how (OSC 8); others show just the id."""
    end = f"#{row.path[0] & 0xFFFF:04x}{PLAIN}" if row.path else PLAIN
    if not row.link or not page.is_coloured or not line.endswith(end):
        return line
    return f"{line.removesuffix(end)}{LINK}{row.link}{LINK_END}{end.removesuffix(PLAIN)}{LINK}{LINK_END}{PLAIN}"


def _cut_left(text: str, room: int, mark: str) -> str:
    return mark + head(text[::-1], room - len(mark))[::-1] if room > len(mark) else ""


def _painted(pieces: Iterable[tuple[str, str]], page: Page) -> str:
    """Join the pieces, no wider than the page and without spaces at the end."""
    room = page.width
    line = [(text, colour) for text, colour in pieces if text]
    while line and not line[-1][0].strip():
        line.pop()
    painted = ""
    for index, (text, colour) in enumerate(line):
        if index == len(line) - 1:
            text = text.rstrip()
        text = head(text, room)
        room -= cells(text)
        painted += page.paint(text, colour)
    return painted
