"""Writing lines to a stream that may be slow, full, closed or gone, without the app noticing.

What the lines say is in ``fields`` and ``rows``. The printer is what structlog calls a logger: the thing at the end of
the processors that takes the finished line.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TextIO, TypeVar

from ...counts import Throttle

__all__ = ["Printer", "Target"]

PATIENCE_S: Final = 1.0
"""How long a thread waits for another one's line to be written, in seconds."""
LINES_WAITING: Final = 10_000
"""How many lines may be left to the thread that is writing; the oldest give way."""
WARN_EVERY_S: Final = 60.0

Line = TypeVar("Line")


class Target:
    """One stream, and what can be done with it.

    A line for a file or a terminal goes around the buffer of the stream, which is flushed before: what a full disk or a
    broken pipe refuses would stay in there, to be complained about when the interpreter exits.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.is_terminal = _is_terminal(stream)
        self.encoding, self.is_utf8, is_ascii_based = _encoding_of(stream)
        self._raw = _raw_below(stream) if is_ascii_based else None
        self._unfinished = b""

    def encode(self, text: str) -> bytes:
        """Return ``text`` for ``write``, what the stream's encoding lacks as escapes."""
        encoded = text.encode(self.encoding, "backslashreplace")
        return encoded if self._raw is not None else encoded.decode(self.encoding).encode()

    def json_in_ascii(self, line: bytes) -> bytes:
        """Return a line of JSON with escapes for what is not ASCII, for a stream that is not in UTF-8."""
        return line if line.isascii() else json.dumps(json.loads(line), separators=(",", ":")).encode() + b"\n"

    def write(self, line: bytes) -> None:
        """Write what ``encode`` or ``json_in_ascii`` returned, at once; raise what the stream raises."""
        stream = self.stream
        if stream is None:  # as under pythonw, where print() does nothing either
            return
        if self._raw is None:
            stream.write(line.decode())
            if hasattr(stream, "flush"):
                stream.flush()
            return
        stream.flush()
        if self._unfinished:
            self._finish(self._unfinished)
        written = self._raw.write(line)
        if written != len(line):
            self._finish(line[written or 0 :], is_begun=bool(written))

    def _finish(self, rest: bytes, *, is_begun: bool = True) -> None:
        """Write the rest of a line. What even now is left of it goes before the next line, so that none is torn."""
        assert self._raw is not None
        left = rest
        try:
            while left:
                written = self._raw.write(left)
                if written is None:
                    raise BlockingIOError(errno.EAGAIN, "the stream does not block, and is full")
                left = left[written:]
        finally:
            self._unfinished = left if is_begun or len(left) < len(rest) else b""


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):  # it is no file, or a closed one
        return False


def _encoding_of(stream: Any) -> tuple[str, bool, bool]:
    """Return the name of the stream's encoding, whether it is UTF-8, and whether what is ASCII is the same in it."""
    try:
        encoding = stream.encoding or "utf-8"
        return encoding, codecs.lookup(encoding).name == "utf-8", "\n".encode(encoding) == b"\n"
    except (LookupError, TypeError):  # no text encoding
        return "ascii", False, False
    except (AttributeError, ValueError):  # no file
        return "utf-8", True, False


def _raw_below(stream: Any) -> io.RawIOBase | None:
    """Return what is under a text stream of Python's own; a subclass may do something else, as pytest's do."""
    if type(stream) is not io.TextIOWrapper:
        return None
    try:
        raw = getattr(stream.buffer, "raw", None)
    except ValueError:  # detached
        return None
    return raw if isinstance(raw, io.RawIOBase) else None


class Printer(Generic[Line]):
    """Write lines to the stream that ``where`` returns when a line is written. It never raises.

    ``finish`` makes bytes of a line for a target. It is called by one thread at a time and in the order of the lines,
    so it may remember what it has seen.

    Nobody waits for ever: a thread that cannot write because another one is stuck in the middle of a line, or holds a
    lock of the stream and waits for this thread in turn, leaves its line to that one after a second.
    """

    def __init__(self, where: Callable[[], TextIO | None], finish: Callable[[Line, Target], bytes]) -> None:
        self._where = where
        self._finish = finish
        self.target = Target(where())
        self._lines: deque[Line | bytes] = deque(maxlen=LINES_WAITING)
        self._warnings = Throttle(WARN_EVERY_S)
        self.unlock()
        _printers.add(self)

    def unlock(self) -> None:
        """Forget what other threads were about to write, as a forked child must: they do not exist there."""
        self._lock = threading.RLock()
        self._lines.clear()

    def look(self) -> Target:
        """Return where a line written now goes."""
        stream = self._where()
        if stream is not self.target.stream:
            self.target = Target(stream)
        return self.target

    def msg(self, line: Line | bytes) -> None:
        """Write a line: one of the caller's own, which ``finish`` makes bytes of, or JSON in UTF-8."""
        self._lines.append(line)
        if not self._lock.acquire(True, PATIENCE_S):
            return
        try:
            failed = self._write_all()
        finally:
            self._lock.release()
        if failed is not None:  # logging has locks of its own, so not while holding ours
            self._warn(failed)

    debug = info = warning = error = critical = msg

    def _write_all(self) -> Exception | None:
        failed = None
        lines, target = self._lines, self.target
        while lines:
            line = lines.popleft()
            try:
                if not isinstance(line, bytes):
                    line = self._finish(line, target)
                elif not target.is_utf8:
                    line = target.json_in_ascii(line)
                target.write(line)
            except Exception as error:  # a stream can be anybody's object
                failed = error
        return failed

    def _warn(self, error: Exception) -> None:
        if isinstance(error, BrokenPipeError):  # who read it has seen enough: `| head`
            return
        self._warnings.warn(
            "write",
            "a log line could not be written to %r, and the app goes on without it: %r (said once a minute)",
            self.target.stream,
            error,
        )


_printers: weakref.WeakSet[Printer[Any]] = weakref.WeakSet()


def _unlock_after_fork() -> None:
    for printer in list(_printers):
        printer.unlock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_unlock_after_fork)
