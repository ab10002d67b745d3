"""How figures are said to people: durations, counts, costs, sizes. Log lines and the terminal say them alike.

Where they stand is each output's own business.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ARROW", "cost", "count", "duration", "number", "size"]

ARROW: Final = "→"
"""Stands between the tokens that went in and those that came out."""


def duration(seconds: float | None) -> str:
    """Say a duration as people do: ``412 ms``, ``1.41 s``, ``3 min``; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 0.0005:
        return "<1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 59.95 * 60:
        return f"{seconds / 60:.1f} min".replace(".0 ", " ")
    return f"{seconds / 3600:.1f} h".replace(".0 ", " ")


def number(whole: int) -> str:
    """Write a whole number in groups of three digits."""
    return f"{whole:,}".replace(",", " ")


def count(whole: int, thing: str) -> str:
    """Say how many there are: ``no documents``, ``1 document``, ``1 012 documents``."""
    return f"1 {thing}" if whole == 1 else f"{number(whole) if whole else 'no'} {thing}s"


def cost(dollars: float | None) -> str:
    """Say what something cost, in cents where it is a dollar or more, else with two digits that tell: ``$0.0021``."""
    if dollars is None:
        return ""
    if dollars >= 0.995:
        return f"${dollars:,.2f}".replace(",", " ")
    if dollars == 0:
        return "$0"
    if dollars < 0.000095:
        return "<$0.0001"
    decimals = 2 if dollars >= 0.095 else 3 if dollars >= 0.0095 else 4
    return f"${dollars:.{decimals}f}"


def size(bytes_: int) -> str:
    """Say how large something is: ``812 B``, ``1.4 MB``."""
    amount = float(bytes_)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 9.95 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
