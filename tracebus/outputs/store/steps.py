"""The tokens of a stream: when each came and how long it was, and the one text that they make up.

Their text is stored once, masked as a whole, because a secret may be spread over several; a step says how many characters
of it came, and how many microseconds after the one before.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

import msgspec

__all__ = ["Steps", "fit", "pack", "unpack"]

STEPS_KEPT: Final = 100_000
CHARACTERS_KEPT: Final = 32 * 1024

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[int]).decode


class Steps:
    """The tokens of a run that is open."""

    __slots__ = ("_characters", "_kept", "_last_ns", "count", "flat", "packed", "shown_s", "texts", "told")

    def __init__(self, started_ns: int) -> None:
        self._last_ns = started_ns
        self._characters = 0
        self._kept = 0
        self.count = 0
        self.told = 0
        """How many of them the totals know already."""
        self.flat = array("q")
        """Microseconds and characters, in turn."""
        self.packed = 0
        """How much of ``flat`` is stored already."""
        self.shown_s = 0.0
        """When its text was last written, on the monotonic clock."""
        self.texts: list[str] = []

    def add(self, time_ns: int, text: str) -> None:
        """Add a token."""
        self.count += 1
        self._characters += len(text)
        if self._kept <= CHARACTERS_KEPT:
            self._kept += len(text)
            self.texts.append(text)
        if self.count <= STEPS_KEPT:
            microseconds = max(0, (time_ns - self._last_ns) // 1000)
            self._last_ns += microseconds * 1000  # what is rounded off belongs to the next step
            self.flat.append(microseconds)
            self.flat.append(len(text))

    def text(self) -> str:
        """Return what was streamed so far, cut and noted where it is too long."""
        text = "".join(self.texts)
        if len(self.texts) > 1:
            self.texts = [text]
        if self._characters <= CHARACTERS_KEPT:
            return text
        note = f"…[{self._characters} characters]"
        return text[: CHARACTERS_KEPT - len(note)] + note


def pack(flat: Iterable[int]) -> bytes:
    """Return steps as bytes."""
    return _encode(list(flat))


def unpack(packed: bytes) -> list[tuple[int, int]]:
    """Return the steps: microseconds since the one before, and characters."""
    flat = _decode(packed)
    return list(zip(flat[::2], flat[1::2], strict=True))


def fit(flat: Iterable[int], raw: str, stored: str) -> list[int]:
    """Return the steps over the text as it is stored.

    Where masking or cutting changed it, what lies between the two ends that are the same comes with the first step that
    touches it.
    """
    head = _common(raw, stored)
    tail = _common(raw[head:][::-1], stored[head:][::-1])

    def stored_position(position: int) -> int:
        if position <= head:
            return position
        return len(stored) - min(tail, max(0, len(raw) - position))

    fitted, position, before = list(flat), 0, 0
    for at in range(1, len(fitted), 2):
        position += fitted[at]
        after = stored_position(position)
        fitted[at], before = after - before, after
    return fitted


def _common(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
