"""What is different between two texts, word by word; in texts that are too long or too much alike, line by line."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from typing import Any, Final, Literal, TypeAlias

__all__ = ["Difference", "as_text", "differences"]

Difference: TypeAlias = tuple[Literal["=", "-", "+"], str]
"""A piece of text that both have, ``=``, that only the left has, ``-``, or only the right, ``+``."""

MOST_PAIRS: Final = 100_000
"""How many pairs of equal parts are gone through, which difflib does for each change: a second or so, at worst."""
_WORDS: Final = re.compile(r"\w+|\s+|[^\w\s]")
_LINES: Final = re.compile(r"[^\n]*\n|[^\n]+")


def differences(left: str, right: str) -> list[Difference]:
    """Return what stays, what goes from ``left`` and what comes to make ``right`` of it, in order."""
    for parts in (_WORDS, _LINES):
        before, after = parts.findall(left), parts.findall(right)
        begin = _alike(before, after)
        end = _alike(before[begin:][::-1], after[begin:][::-1])
        changed = before[begin : len(before) - end], after[begin : len(after) - end]
        if _pairs(*changed) <= MOST_PAIRS:
            around = "".join(before[:begin]), "".join(before[len(before) - end :])
            return list(_joined([("=", around[0]), *_changes(*changed), ("=", around[1])]))
    return list(_joined([("-", left), ("+", right)]))


def _alike(left: list[str], right: list[str]) -> int:
    """Return how many parts both begin with."""
    number = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        number += 1
    return number


def _pairs(left: list[str], right: list[str]) -> int:
    # difflib passes over what makes up more than a hundredth of a long text; see its `autojunk`.
    often = len(right) // 100 + 1 if len(right) >= 200 else len(right)
    here, there = Counter(left), Counter(right)
    return sum(count * there[part] for part, count in here.items() if there[part] <= often)


def _changes(left: list[str], right: list[str]) -> Iterator[Difference]:
    for kind, begin, end, right_begin, right_end in SequenceMatcher(None, left, right).get_opcodes():
        if kind == "equal":
            yield "=", "".join(left[begin:end])
        else:
            yield "-", "".join(left[begin:end])
            yield "+", "".join(right[right_begin:right_end])


def _joined(found: Iterable[Difference]) -> Iterator[Difference]:
    """Put neighbours together, and take the space between two changes for a part of both."""
    pieces = [(sign, text) for sign, text in found if text]
    gone = come = ""
    for number, (sign, text) in enumerate(pieces):
        is_between = 0 < number < len(pieces) - 1 and text.isspace()
        if sign == "=" and not is_between:
            yield from _change(gone, come)
            yield sign, text
            gone = come = ""
            continue
        gone += text if sign != "+" else ""
        come += text if sign != "-" else ""
    yield from _change(gone, come)


def _change(gone: str, come: str) -> Iterator[Difference]:
    if gone:
        yield "-", gone
    if come:
        yield "+", come


# -- values as texts ---------------------------------------------------------------------------------------------------


def as_text(value: Any) -> str:
    """Return a value as people read it: a text as it stands, anything else with a line for each item in it."""
    return "" if value is None else value if isinstance(value, str) else "\n".join(_lines(value, ""))


def _lines(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _entry(f"{indent}{name}:", item, indent + "  ")
    elif isinstance(value, list):
        for item in value:
            yield from _entry(f"{indent}-", item, indent + "  ")
    else:
        yield indent + json.dumps(value)


def _entry(head: str, item: Any, indent: str) -> Iterator[str]:
    if isinstance(item, (dict, list)) and item:
        yield head
        yield from _lines(item, indent)
        return
    text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
    if "\n" not in text:
        yield f"{head} {text}"
        return
    yield head
    yield from (indent + line for line in text.split("\n"))
