"""Where lines go: a stream, what ``sys.stdout`` or ``sys.stderr`` is at that moment, or a file. How one is written to is in
``printer``.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Hashable
from typing import Any, Final, Literal, Protocol, TextIO, TypeAlias

from ...errors import ArgumentError

__all__ = ["Destination", "Given", "Place", "Standard", "place_of"]

Destination: TypeAlias = "Literal['stdout', 'stderr'] | str | os.PathLike[str] | TextIO"


class Place(Protocol):
    """Returns the stream for a line that is written now."""

    @property
    def key(self) -> Hashable:
        """What is the same for all that lead to the same stream."""

    def __call__(self) -> TextIO | None:
        """Return the stream; None is one that swallows everything."""


class Given:
    """A stream of the caller's."""

    def __init__(self, stream: TextIO) -> None:
        self.key = id(stream)
        self._stream = stream

    def __call__(self) -> TextIO:
        """Return the stream."""
        return self._stream


class Standard:
    """One of the standard streams, whatever it has been replaced by."""

    def __init__(self, name: Literal["stdout", "stderr"]) -> None:
        self.key = name

    def __call__(self) -> TextIO | None:
        """Return what the stream is now."""
        stream: TextIO | None = getattr(sys, self.key)
        return stream


class File:
    """A file that lines are appended to, by several processes if need be.

    A program that becomes a daemon closes every descriptor, and the next socket that it opens gets the number of ours. So
    the descriptor is looked at before each line, and is not closed unless it still is the file's.
    """

    _identity: tuple[int, int] | None = None

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.key = os.path.abspath(path)  # the program may change its directory
        self._open()

    def _open(self) -> None:
        self._descriptor = os.open(self.key, _APPEND, 0o666)
        self._identity = _identity(self._descriptor)
        raw = io.FileIO(self._descriptor, "w", closefd=False)
        self._stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", newline="\n")

    def __call__(self) -> TextIO:
        """Return the open file."""
        if _identity(self._descriptor) != self._identity:
            self._open()
        return self._stream

    def __del__(self) -> None:
        """Close the descriptor."""
        if self._identity is not None and _identity(self._descriptor) == self._identity:
            os.close(self._descriptor)


_APPEND: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)


def _identity(descriptor: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def place_of(destination: Any) -> Place:
    """Return the place that ``destination`` names; raise ArgumentError if it is none, OSError if a file cannot be opened."""
    if destination in ("stdout", "stderr"):
        return Standard(destination)
    if isinstance(destination, (str, os.PathLike)):
        return File(destination)
    if callable(getattr(destination, "write", None)):
        return Given(destination)
    raise ArgumentError(
        f'destination={destination!r} is none: give "stdout", "stderr", a path, or a text stream with a write()'
    )
