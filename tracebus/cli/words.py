"""What commands say of a trace, a run or a statistic, in words and figures; where it stands is in each command."""

from __future__ import annotations

from typing import Protocol

from ..figures import cost, count, duration, number
from ..outputs.store import RunSummary, Tokens
from .screen import Screen

__all__ = ["cost_of", "facts_of", "flow_of", "seconds", "status_word", "tokens_of"]


class Priced(Protocol):
    """Something that may have a cost."""

    @property
    def cost(self) -> float | None: ...
    @property
    def cost_is_partial(self) -> bool: ...


def seconds(nanoseconds: float | None) -> str:
    """Say a duration."""
    return duration(None if nanoseconds is None else nanoseconds / 1e9)


def cost_of(screen: Screen, priced: Priced) -> str:
    """Say a cost; that it is more where some of it is not known, and ``?`` where nothing of it is."""
    if priced.cost is None:
        return "?" if priced.cost_is_partial else ""
    return (screen.glyphs.at_least if priced.cost_is_partial else "") + cost(priced.cost)


def tokens_of(total: int | None) -> str:
    """Say how many tokens, if any."""
    return number(total) if total else ""


def flow_of(screen: Screen, tokens: Tokens) -> str:
    """Say how many tokens went in and came out: ``1 012 → 86``."""
    if tokens.input is not None and tokens.output is not None:
        return f"{number(tokens.input)} {screen.glyphs.arrow} {number(tokens.output)}"
    return f"{number(tokens.total)} tokens" if tokens.total is not None else ""


def status_word(status: str) -> str:
    """Say a status."""
    return "in flight" if status == "open" else status.replace("_", " ")


def facts_of(screen: Screen, run: RunSummary) -> list[str]:
    """Return what is known of how a run went."""
    facts = []
    if run.status not in ("ok", "open", "error"):
        facts.append(status_word(run.status))
    if run.model is not None:
        facts.append(run.model)
    flow = flow_of(screen, run.tokens)
    if not flow and run.streamed:
        flow = count(run.streamed, "token") + (screen.glyphs.cut if run.status == "open" else "")
    unknown = "cost unknown" if run.cost is None and run.counted and run.tokens.total else ""
    first = f"first token {seconds(run.first_token_ns)}" if run.first_token_ns is not None else ""
    return [*facts, *filter(None, (flow, cost(run.cost) or unknown, first))]
