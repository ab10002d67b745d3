"""What became of events, in numbers: counters that need no lock in the emit path, times, and what ``stats()`` returns.

What is counted is logged now and then, too: how often is here, what is said where something went wrong.
"""

from __future__ import annotations

import itertools
import time
from _thread import RLock  # threading would be a twentieth of what importing tracebus takes
from collections.abc import Callable
from typing import Final

from .late import logging
from .values import Value

__all__ = ["SubscriberStats", "Tally", "Throttle", "Timing", "drops"]


class SubscriberStats(Value):
    """What became of the events that matched one subscription, in events, and how long the subscriber took.

    ``matched == delivered + failed + sum(dropped.values()) + pending``; ``dropped`` is by reason: ``queue_full``,
    ``loop_closed``, ``shutdown``; ``pending`` wait or are being heard. ``mean_s`` and ``max_s`` are seconds. Of inline
    calls only some are timed; the times are None until one was.
    """

    __slots__ = ("delivered", "delivery", "dropped", "failed", "matched", "max_s", "mean_s", "name", "pending")

    def __init__(
        self,
        name: str,
        delivery: str,
        matched: int,
        delivered: int,
        failed: int,
        dropped: dict[str, int],
        pending: int,
        mean_s: float | None,
        max_s: float | None,
    ) -> None:
        self.name = name
        self.delivery = delivery
        self.matched = matched
        self.delivered = delivered
        self.failed = failed
        self.dropped = dropped
        self.pending = pending
        self.mean_s = mean_s
        self.max_s = max_s

    def __str__(self) -> str:
        """Say it in one line."""
        outcomes = [f"{self.delivered} delivered", f"{self.failed} failed"]
        outcomes += [f"{count} dropped ({reason})" for reason, count in self.dropped.items()] or ["0 dropped"]
        said = f"{self.name}: {self.matched} matched, {', '.join(outcomes)}, {self.pending} pending"
        if self.mean_s is None or self.max_s is None:
            return said
        return f"{said}, {_shown(self.mean_s)} on average, {_shown(self.max_s)} at most"


def _shown(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


class Tally:
    """Count without a lock: advancing an ``itertools.count`` is one atomic step, ``+=`` is three."""

    __slots__ = ("_lock", "_reads", "add", "steps")

    def __init__(self) -> None:
        self.steps = itertools.count()  # next() of it counts, too, and is what the hot path does
        self._reads = 0
        self._lock = RLock()
        self.add: Callable[[], int] = self.steps.__next__
        """Count one more; return a number that grows by one with each."""

    @property
    def value(self) -> int:
        """How often ``add`` was called. Reading is a step too, so the reads are subtracted."""
        with self._lock:
            seen = next(self.steps) - self._reads
            self._reads += 1
            return seen

    def restart(self) -> None:
        """Begin at 0, in a forked child, where another thread may have held the lock in the middle of a reading."""
        self._lock = RLock()
        self._reads = next(self.steps) + 1


class Timing:
    """How long calls took. Two threads that add at once may lose a sample: a mean can bear that, and the emit path no lock."""

    __slots__ = ("_count", "_max_ns", "_total_ns")

    def __init__(self) -> None:
        self._count = self._total_ns = self._max_ns = 0

    def add(self, took_ns: int) -> None:
        """Add one call that took so many nanoseconds."""
        self._count += 1
        self._total_ns += took_ns
        if took_ns > self._max_ns:
            self._max_ns = took_ns

    @property
    def mean_s(self) -> float | None:
        """The mean in seconds, None without a sample."""
        count = self._count
        return self._total_ns / count / 1e9 if count else None

    @property
    def max_s(self) -> float | None:
        """The largest in seconds, None without a sample."""
        return self._max_ns / 1e9 if self._count else None


drops: Final = Tally()
"""Every event dropped in this process, for ``flush``."""


class Throttle:
    """Let each subject be logged at most once every ``every_s`` seconds; unless that is given, once.

    It has no lock, which the collector or a forked child could find taken: two threads may now and then both be let.
    """

    __slots__ = ("_every_s", "_last")

    def __init__(self, every_s: float = float("inf")) -> None:  # math would be one more file to load
        self._every_s = every_s
        self._last: dict[object, float] = {}

    def lets(self, subject: object) -> bool:
        """Tell whether ``subject`` may be logged now, and take it that it is."""
        now = time.monotonic()
        last = self._last.setdefault(subject, now)  # of several threads, one is the first
        if last is not now and now - last < self._every_s:
            return False
        self._last[subject] = now
        return True

    def warn(self, subject: object, message: str, *values: object) -> None:
        """Log a warning about ``subject``, if it may be logged now."""
        if self.lets(subject):
            logging.getLogger("tracebus").warning(message, *values, stacklevel=2)
