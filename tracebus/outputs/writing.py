"""What a user holds of an output that writes in batches: its numbers, ``flush()`` and ``close()``."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ..counts import SubscriberStats
from ..lanes import PATIENCE_S, wait_for
from ..subscriptions import Subscription
from .batches import BatchLane

__all__ = ["Writing"]


class Writing:
    """The handle of an output that writes in batches: ``close()`` ends it, as does leaving the block."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription
        self._lost = 0

    @property
    def stats(self) -> SubscriberStats:
        """Say what became of the events: ``matched == delivered + failed + dropped + pending``, delivered once written."""
        return self._subscription.stats

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._subscription.closed

    def flush(self, timeout_s: float = PATIENCE_S) -> bool:
        """Block until everything said so far is written, at most ``timeout_s`` seconds.

        Returns True only when nothing is left and nothing was lost since the last flush. ``tracebus.flush()`` does so for
        all outputs.
        """
        lane = self._subscription.lane
        left = lane is not None and wait_for([lane], timeout_s)
        stats = self.stats
        lost, self._lost = self._lost, stats.failed + sum(stats.dropped.values())
        return not left and lost == self._lost

    def close(self) -> None:
        """Stop hearing, and write what was heard, for at most 5 seconds. Closing twice is fine."""
        if self.closed:
            return
        self._subscription.close()
        if isinstance(lane := self._subscription.lane, BatchLane):
            lane.join(PATIENCE_S)

    def __enter__(self) -> Self:
        """Return the handle."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""
        self.close()
