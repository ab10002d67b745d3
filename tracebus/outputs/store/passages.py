"""Where in a run the words stand that it was found by.

A word is what the index takes for one (https://sqlite.org/fts5.html, "unicode61"): letters and digits, in any case and with
any accents. Words in quotes, and those that a sign joins as in ``new_token``, stand next to one another.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import islice
from typing import Final, Literal, NamedTuple

from ...errors import ArgumentError

__all__ = ["FoundIn", "Hit", "Passage", "Search", "phrases_of"]

FoundIn = Literal["input", "output", "error"]

SHOWN: Final = 240
"""Characters of a passage."""
BEFORE: Final = 16
"""How many of them stand before the words."""
HITS: Final = 1000
"""How many places are looked at in a text."""


class Hit(NamedTuple):
    """Where in a text a phrase begins and ends, and which of them it is."""

    begin: int
    end: int
    phrase: int


class Passage(NamedTuple):
    """A piece of what went into a run, came out of it or went wrong, in one line."""

    found_in: FoundIn
    text: str


def phrases_of(text: str) -> list[str]:
    """Return what a search looks for: every word, and each quoted part as it stands; either may end in ``*``.

    Raises ArgumentError when there is nothing to look for, or a character at which the index stops to read.
    """
    if "\0" in text:
        raise ArgumentError(f"no search can have the character NUL in it, as {text!r} has")
    parts: list[str] = []
    for number, part in enumerate(text.split('"')):
        parts += [part] if number % 2 else part.split()
    phrases = [part for part in parts if any(character.isalnum() for character in part)]
    if not phrases:
        raise ArgumentError(f"there is no word in {text!r} to search for")
    return phrases


class Search:
    """Finds phrases in texts."""

    def __init__(self, phrases: Sequence[str]) -> None:
        self._phrases = phrases

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        """Made when there is a text to look into: a stranger may ask for thousands of words, which no run has."""
        return [_pattern_of(phrase) for phrase in self._phrases]

    def hits(self, text: str) -> list[Hit]:
        """Return where the phrases stand in a text, from its beginning on."""
        folded = _folded(text)
        places = range(len(text) + 1) if len(folded) == len(text) else _places(text)
        return sorted(
            Hit(places[match.start()], places[match.end()], number)
            for number, pattern in enumerate(self._patterns)
            for match in islice(pattern.finditer(folded), HITS)
        )

    def best_of(self, texts: Iterable[tuple[FoundIn, str]]) -> Passage:
        """Return a passage with the most of the phrases, from the first of the texts that have so many."""
        best, most = Passage("input", ""), -1
        for place, text in texts:
            hits = self.hits(text)
            count = len({hit.phrase for hit in hits})
            if count > most:
                best, most = Passage(place, _line(text, _densest(hits))), count
            if count == len(self._patterns):
                break
        return best


def _densest(hits: list[Hit]) -> int:
    """Return from where most of the phrases are in sight."""
    begins = [hit.begin for hit in hits]

    def in_sight(first: int) -> int:
        end = bisect_left(begins, begins[first] + SHOWN - 2 * BEFORE)
        return len({hit.phrase for hit in hits[first:end]})

    return begins[max(range(len(hits)), key=in_sight)] if hits else 0


def _line(text: str, begin: int) -> str:
    if begin <= 2 * BEFORE:
        begin = 0
    else:
        word = re.search(r"(?<=\s)\S", text[begin - BEFORE : begin + 1])
        begin += (0 if word is None else word.start()) - BEFORE
    line = " ".join(text[begin : begin + SHOWN].split())
    return ("…" if begin else "") + line + ("…" if len(text) > begin + SHOWN else "")


# -- as the index sees it ----------------------------------------------------------------------------------------------


def _pattern_of(phrase: str) -> re.Pattern[str]:
    first, *more = re.findall(r"[^\W_]+", _folded(phrase))
    # That no letter stands before the first word is looked at behind it, because letters are what is quickly looked for.
    begin = rf"{first}(?<![^\W_]{first})"
    end = r"[^\W_]*" if phrase.endswith("*") else r"(?![^\W_])"
    return re.compile(r"[\W_]+".join([begin, *more]) + end)


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else text.translate(_FOLDS)


class _Folds(dict[int, str]):
    """Each character as the index keeps it: one for one, but for accents that stand by themselves."""

    def __missing__(self, code: int) -> str:
        plain = "".join(part for part in unicodedata.normalize("NFD", chr(code)) if not unicodedata.combining(part)).lower()
        if len(plain) > 1:  # a syllable of Hangul, which stays one
            plain = chr(code)
        self[code] = plain
        return plain


_FOLDS: Final = _Folds()


def _places(text: str) -> list[int]:
    """Return of each character of the folded text, and of its end, where it comes from."""
    return [*(index for index, character in enumerate(text) for _ in character.translate(_FOLDS)), len(text)]
