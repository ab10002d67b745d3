"""A trace drawn as a tree with the waterfall of its runs, in lines that ``show`` prints and ``tail`` lets grow.

    answer  7f3a…  ok  1.43 s  1 098 tokens  $0.0002  14:02
    ├─ search    retriever    12 ms  ▏                   4 documents
    ╰─ generate  llm         1.41 s  ───━━━━━━━━━━━━━━━  gpt-4o-mini  1 012 → 86  first token 240 ms
       ├ user       How do I subscribe to tokens?
       ╰ assistant  Connect a function to …

The bars are drawn in ``bars``, what is said of a run is in ``words``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from ..figures import count
from ..outputs.store import RunSummary, TraceSummary, TreeRow
from ..payload import printable
from .bars import Span, bar_of, end_of
from .quantities import moment, when
from .screen import ACCENT, DIM, FAILED, FAILURE, MODELS, Screen, said
from .words import cost_of, facts_of, seconds, status_word, tokens_of

__all__ = ["Tree", "heading", "tree_lines"]

LONGEST_LABEL: Final = 44
NARROW: Final = 64
"""On a screen narrower than this there is no room for bars, nor for kinds."""
LONGEST_BAR: Final = 30
ROLE: Final = len("assistant  ")
WRITTEN_LINES: Final = 4
"""How many lines are shown of a text that is being written: the last."""


class Tree(NamedTuple):
    """A trace, its runs in the order of the tree, and the texts of those that are being written, by span."""

    trace: TraceSummary
    rows: Sequence[TreeRow]
    writing: Mapping[str, str]

    @property
    def root(self) -> RunSummary | None:
        """The run that the heading speaks of; None when several are at the top."""
        tops = [row.run for row in self.rows if row.depth == 0]
        return tops[0] if len(tops) == 1 else None

    def span(self, now_ns: int) -> Span:
        """Return what the waterfall is over."""
        begin_ns = min([self.trace.started_ns, *(row.run.started_ns for row in self.rows)])
        return Span(begin_ns, max([begin_ns + 1, *(end_of(row.run, now_ns) for row in self.rows)]), now_ns)


# -- the line above ----------------------------------------------------------------------------------------------------


def heading(screen: Screen, tree: Tree, shown_id: str, now_ns: int) -> Text:
    """Return the line above the tree: the totals of the trace."""
    trace = tree.trace
    failed = trace.status in FAILED
    elapsed_ns = now_ns - trace.started_ns if trace.status == "open" else trace.duration_ns
    parts = [
        said(trace.name or "?", FAILURE if failed else ACCENT if trace.kind in MODELS else "bold"),
        Text(shown_id, DIM),
        Text(status_word(trace.status), FAILURE if failed else ACCENT if trace.status == "open" else ""),
        Text(seconds(elapsed_ns)),
        *map(said, _totals(screen, tree)),
        Text(_when(screen, trace, now_ns), DIM),
        said(f"session {trace.session_id}" if trace.session_id else "", DIM),
        *(said(f"#{tag}", DIM) for tag in trace.tags),
        Text(f"{count(trace.masked, 'secret')} masked" if trace.masked else "", DIM),
    ]
    return screen.fitting(parts, screen.width)


def _when(screen: Screen, trace: TraceSummary, now_ns: int) -> str:
    if not screen.is_terminal:
        return moment(trace.started_ns)
    return "" if trace.status == "open" else when(trace.started_ns, now_ns)


def _totals(screen: Screen, tree: Tree) -> list[str]:
    trace, root = tree.trace, tree.root
    if root is not None and root.kind in MODELS:
        return [fact for fact in facts_of(screen, root) if fact != status_word(trace.status)]
    cost = cost_of(screen, trace)
    tokens = tokens_of(trace.tokens.total)
    if not tokens and trace.streamed:
        return [count(trace.streamed, "token") + (screen.glyphs.cut if trace.status == "open" else "")]
    return [f"{tokens} tokens" if tokens else "", "cost unknown" if cost == "?" else cost]


# -- the lines below ---------------------------------------------------------------------------------------------------


class _Widths(NamedTuple):
    """How many cells each column has; 0 leaves it out."""

    label: int
    kind: int
    duration: int
    bar: int

    @classmethod
    def of(cls, screen: Screen, rows: Sequence[TreeRow], top: int) -> _Widths:
        labels = [3 * (row.depth - top + 1) + cell_len(printable(row.run.name)) for row in rows]
        has_room = screen.width >= NARROW
        return cls(
            min(max(labels, default=0), LONGEST_LABEL, screen.width * 2 // 5),
            max((len(row.run.kind) for row in rows), default=0) if has_room else 0,
            max([6, *(len(seconds(row.run.duration_ns)) for row in rows)]),
            min(LONGEST_BAR, screen.width // 4) if has_room else 0,
        )


def tree_lines(screen: Screen, tree: Tree, now_ns: int) -> Iterator[Text]:
    """Yield the lines below the heading."""
    root, rows, top = tree.root, tree.rows, 0
    if root is not None:
        rows, top = [row for row in tree.rows if row.depth > 0], 1
        yield from _asides(screen, _asides_of_root(root, tree, bool(rows)), "", bool(rows))
    widths, span = _Widths.of(screen, rows, top), tree.span(now_ns)
    for row, above, is_last in _guided(screen, rows, top):
        yield _line(screen, row.run, above + (screen.glyphs.last if is_last else screen.glyphs.branch), widths, span)
        under = above + ("   " if is_last else screen.glyphs.through)
        yield from _asides(screen, _asides_of(row.run, tree), under, row.has_children)


def _guided(screen: Screen, rows: Sequence[TreeRow], top: int) -> Iterator[tuple[TreeRow, str, bool]]:
    """Yield each run with the guides of those around it, and whether it is the last of its siblings."""
    going_on: list[str] = []
    for row, is_last in zip(rows, _are_last(rows), strict=True):
        del going_on[row.depth - top :]
        yield row, "".join(going_on), is_last
        going_on.append("   " if is_last else screen.glyphs.through)


def _are_last(rows: Sequence[TreeRow]) -> list[bool]:
    lasts: list[bool] = []
    follows: list[bool] = []
    for row in reversed(rows):
        del follows[row.depth + 1 :]
        follows += [False] * (row.depth + 1 - len(follows))
        lasts.append(not follows[row.depth])
        follows[row.depth] = True
    return lasts[::-1]


def _line(screen: Screen, run: RunSummary, guides: str, widths: _Widths, span: Span) -> Text:
    guides = guides[-widths.label + 4 :] if len(guides) > widths.label - 4 else guides
    line = Text(no_wrap=True, overflow="crop").append(guides, DIM)
    name = screen.cut(printable(run.name), widths.label - len(guides))
    line.append(name, FAILURE if run.status in FAILED else ACCENT if run.kind in MODELS else "")
    _fill(line, widths.label)
    if widths.kind:
        _fill(line.append(run.kind, DIM), widths.label + 2 + widths.kind)
    line.append(seconds(end_of(run, span.now_ns) - run.started_ns).rjust(widths.duration)).append("  ")
    if widths.bar:
        used = line.cell_len
        _fill(line.append_text(bar_of(run, span, widths.bar, screen.glyphs)), used + widths.bar)
    line.append_text(_remarks(screen, run, screen.width - line.cell_len)).rstrip()
    return line


def _fill(line: Text, width: int) -> None:
    line.append(" " * (width - line.cell_len + 2))


def _remarks(screen: Screen, run: RunSummary, room: int) -> Text:
    """Return what is told of a run at the end of its line: how it failed, else how it went, else what came out."""
    facts = [said(fact) for fact in facts_of(screen, run)]
    if run.status in FAILED:
        error = f"{screen.glyphs.signs['error']} {run.error or status_word(run.status)}"
        return screen.fitting([Text(_cut(screen, error, room), FAILURE), *facts], room)
    if run.kind in MODELS:
        return screen.fitting(facts, room)
    told = (run.input if run.status == "open" else run.output) or ""
    used = sum(fact.cell_len + 2 for fact in facts)
    return screen.fitting([*facts, Text(_cut(screen, told, room - used))], room)


def _cut(screen: Screen, text: str, room: int) -> str:
    text = printable(text)
    return screen.cut(text, room) if screen.is_terminal else text  # who reads a pipe can cut for himself


# -- what was asked and answered ---------------------------------------------------------------------------------------


class _Aside(NamedTuple):
    role: str
    text: str
    is_being_written: bool = False
    style: str = ""


def _asides_of(run: RunSummary, tree: Tree) -> list[_Aside]:
    if run.kind not in MODELS:
        return []
    written = tree.writing.get(run.span_id) if run.status == "open" else None
    asides = [_Aside("user", run.input or ""), _Aside("assistant", written or run.output or "", written is not None)]
    return [aside for aside in asides if aside.text]


def _asides_of_root(root: RunSummary, tree: Tree, has_children: bool) -> list[_Aside]:
    asides = _asides_of(root, tree)
    if not asides and not has_children:
        asides = [_Aside(role, text) for role, text in (("input", root.input), ("output", root.output)) if text]
    return [*asides, _Aside("error", root.error, style=FAILURE)] if root.status in FAILED and root.error else asides


def _asides(screen: Screen, asides: Sequence[_Aside], under: str, has_children: bool) -> Iterator[Text]:
    glyphs = screen.glyphs
    for aside in asides:
        closes = aside is asides[-1] and not has_children
        sign, margin = (glyphs.end, "  ") if closes else (glyphs.fork, glyphs.through[:2])
        room = screen.width - len(under) - len(sign) - ROLE
        first = f"{under}{sign}{aside.role.ljust(ROLE)}"
        for line in _written(screen, aside.text, room) if aside.is_being_written else [_cut(screen, aside.text, room)]:
            yield Text(no_wrap=True, overflow="crop").append(first, DIM).append(line, aside.style)
            first = f"{under}{margin}{' ' * ROLE}"


def _written(screen: Screen, text: str, room: int) -> list[str]:
    """Return the last lines of a text that is being written."""
    lines = Text(" ".join(map(printable, text.split()))).wrap(screen.console, max(8, room))
    return [line.plain.rstrip() for line in lines][-WRITTEN_LINES:]
