"""When a run was going on, as a bar in a waterfall: thin until its first token, exact to half a cell."""

from __future__ import annotations

from typing import NamedTuple

from rich.text import Text

from ..outputs.store import RunSummary
from .screen import ACCENT, DIM, FAILED, FAILURE, MODELS, Glyphs

__all__ = ["Span", "bar_of", "end_of"]


class Span(NamedTuple):
    """What a waterfall is over, in nanoseconds since the epoch; ``now_ns`` is where runs in flight have come to."""

    begin_ns: int
    end_ns: int
    now_ns: int


def end_of(run: RunSummary, now_ns: int) -> int:
    """Return when a run ended, now if it has not; nobody knows of one whose process died."""
    if run.duration_ns is not None:
        return run.started_ns + run.duration_ns
    return max(now_ns, run.started_ns) if run.status == "open" else run.started_ns


def bar_of(run: RunSummary, span: Span, width: int, glyphs: Glyphs) -> Text:
    """Return the bar of a run, ``width`` cells wide."""
    per_half_ns = max(1, span.end_ns - span.begin_ns) / (2 * width)

    def halves(time_ns: int) -> int:
        return max(0, min(round((time_ns - span.begin_ns) / per_half_ns), 2 * width))

    begin, end = halves(run.started_ns), halves(end_of(run, span.now_ns))
    style = FAILURE if run.status in FAILED else ACCENT if run.kind in MODELS else DIM
    if end - begin < 2:
        return Text(" " * min(begin // 2, width - 1) + glyphs.instant, style)
    first = begin if run.first_token_ns is None else min(end, halves(run.started_ns + run.first_token_ns))
    bar = Text(" " * (begin // 2))
    if begin % 2:
        bar.append(glyphs.begins if first <= begin + 1 else glyphs.waiting, style if first <= begin + 1 else DIM)
    whole, thin = range((begin + 1) // 2, end // 2), first // 2
    bar.append("".join(glyphs.waiting if at < thin else "" for at in whole), DIM)
    bar.append("".join(glyphs.bar if at >= thin else "" for at in whole), style)
    return bar.append(glyphs.ends if end % 2 else "", style)
