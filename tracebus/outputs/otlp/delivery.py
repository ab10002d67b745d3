"""What becomes of a batch of runs: made into spans, sent, sent again when the receiver wants that, parted when it wants less.

One run that cannot be sent costs no other. How a batch comes here, and who waits, is in ``batches``; a single attempt to send
is the ``transport``'s.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import context
from opentelemetry.sdk.trace import ReadableSpan

from ...counts import Throttle
from ..batches import Losses, RetryError, Work
from .metrics import Metrics
from .records import RunRecord
from .spans import SpanMaker
from .transport import EncodingError, Reply, Transport, Turns

__all__ = ["Batch", "Delivery"]

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0
WARN_EVERY_S: Final = 60.0
PARTS: Final = 64
"""How often a batch is parted at most to find what the receiver does not take."""
FEW_PARTS: Final = 10
"""The same, where nothing of the batch before was taken: one run of 512 can still be found."""
METRICS_WAIT_S: Final = 1.0
"""How long an answer to metrics is waited for while somebody waits for a flush, in seconds."""
HURRY_S: Final = 0.4

_SUPPRESS: Final = ("suppress_instrumentation", "suppress_http_instrumentation")
"""OpenTelemetry's keys, as instrumentations read them; ``context`` has them under generated names, too."""


class Batch:
    """Spans that are still to be sent, in parts, and what has become of the others."""

    def __init__(self, cuts: int) -> None:
        self.parts: deque[tuple[Sequence[ReadableSpan], Any]] = deque()
        """Each with its request."""
        self.lost: Counter[str] = Counter()
        self.cuts = cuts
        self.sent = 0


class Backoff:
    """When to try again: when the receiver says so, else after longer and longer, and not when all others do."""

    def __init__(self) -> None:
        self._failures = 0
        # Of our own: the module's generator is the app's, which may have seeded it.
        self._random = random.Random()

    def reset(self) -> None:
        """Begin with a short wait again."""
        self._failures = 0

    def after(self, reply: Reply) -> RetryError:
        """Return what says when to send again what was not taken."""
        if reply.wait_s is not None:
            return RetryError(reply.why, wait_s=reply.wait_s, is_firm=True)
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        return RetryError(reply.why, wait_s=wait_s * self._random.uniform(0.5, 1.5))


class Delivery(Work):
    """The work of an exporter's lane. Everything here runs in its writer's thread."""

    def __init__(
        self,
        connect: Callable[[], Transport],
        maker: SpanMaker,
        metrics_for: Callable[[Transport], Metrics | None],
        metrics_every_s: float,
        exclude_senders: frozenset[str] = frozenset(),
    ) -> None:
        self._connect = connect
        self._maker = maker
        self._metrics_for = metrics_for
        self._metrics_every_s = metrics_every_s
        self._excluded = exclude_senders
        self._turns = Turns()
        self._parent_s: list[Transport | None] = []
        self.sent = 0
        """How many runs the receiver has acknowledged."""
        self._start_over()

    def _start_over(self) -> None:
        self._transport: Transport | None = None
        self._metrics: Metrics | None = None
        self._backoff = Backoff()
        self._metrics_backoff = Backoff()
        self._takes_parts = True
        self._most_s: float | None = None
        self._metrics_sent = time.monotonic()
        self._warnings = Throttle(WARN_EVERY_S)

    # -- what the lane asks --------------------------------------------------------------------------------------------

    def prepare(self, records: list[RunRecord]) -> Batch:
        """Make spans of runs, and the request that holds them."""
        batch = Batch(PARTS if self._takes_parts else FEW_PARTS)
        with _untraced():
            transport = self._connected()
            spans = [span for record in records if (span := self._span(record, batch)) is not None]
            self._encode(transport, spans, batch)
        return batch

    def commit(self, batch: Batch) -> Losses:
        """Send what is left of a batch; raise RetryError when the receiver may take it later."""
        with _untraced():
            transport = self._connected()
            while batch.parts:
                spans, request = batch.parts.popleft()
                reply = self._attempt(transport, request)
                if reply.outcome == "later":
                    batch.parts.appendleft((spans, request))
                    raise self._backoff.after(reply)
                self._settle_part(transport, batch, spans, reply)
        return batch.lost

    def _attempt(self, transport: Transport, request: Any) -> Reply:
        try:
            return transport.send(request, self._most_s)
        except Exception as error:  # what nobody foresaw costs this request, and is counted with it
            return Reply("refused", repr(error))

    def give_up(self, batch: Batch) -> Losses:
        """Return what was not sent, and what was not taken."""
        batch.lost["not_sent"] += sum(len(spans) for spans, _ in batch.parts)
        batch.parts.clear()
        return batch.lost

    def failed(self, error: Exception) -> None:
        """Say that runs could not be sent."""
        if isinstance(error, RetryError):
            self._warn("now", "%s does not take runs now, and they wait: %s", self.address, error)
        else:
            self._warn("internal", "runs could not be exported to %s: %r", self.address, error)

    @property
    def owes(self) -> bool:
        """Whether there are metrics to be sent."""
        metrics = self._metrics
        return metrics is not None and metrics.is_dirty

    def settle(self) -> None:
        """Send the metrics before somebody is told that everything is sent; raise RetryError when they may be taken later."""
        reply = self._send_metrics(METRICS_WAIT_S)
        if reply is None or reply.outcome != "later":
            self._metrics_backoff.reset()
            return
        raise self._metrics_backoff.after(reply)

    def rest(self) -> float | None:
        """Send the metrics when it is time; return in how many seconds that will be."""
        if self._metrics is None or not self._metrics.is_dirty:
            return None
        left_s = self._metrics_sent + self._metrics_every_s - time.monotonic()
        if left_s > 0:
            return left_s
        self._send_metrics(None)
        return self._metrics_every_s if self.owes else None

    def hurry(self) -> None:
        """Wait for no answer long."""
        self._most_s = HURRY_S

    def close(self) -> None:
        """Send the metrics, and hang up."""
        self._send_metrics(METRICS_WAIT_S)
        self._metrics = None
        if self._transport is not None:
            self._transport.close()

    def forget_after_fork(self) -> None:
        """Forget the parent's connection, but neither close nor collect it: the parent goes on with it."""
        self._parent_s.append(self._transport)
        self._start_over()
        self.sent = 0

    def _connected(self) -> Transport:
        if self._transport is None:
            self._transport = self._connect()
            self._metrics = self._metrics_for(self._transport)
        return self._transport

    @property
    def address(self) -> str:
        """Where to, for messages."""
        return "the receiver" if self._transport is None else self._transport.address

    # -- making --------------------------------------------------------------------------------------------------------

    def _span(self, record: RunRecord, batch: Batch) -> ReadableSpan | None:
        self._turns.pause()
        facts = record.facts
        if not facts.sampled or self._is_excluded(getattr(facts.named, "sender", None)):
            return None
        try:
            fields = self._maker.read(record)
            if self._metrics is not None:
                self._metrics.note(record, fields)
            return self._maker.make(record, fields)
        except Exception as error:
            self._lose(batch, "not_encodable", 1, repr(error))
            return None

    def _is_excluded(self, sender: object) -> bool:
        return isinstance(sender, str) and sender in self._excluded  # a traced callable may have no hash

    def _encode(self, transport: Transport, spans: Sequence[ReadableSpan], batch: Batch) -> None:
        """Make requests of spans: one, or more where there is a span that no request can hold."""
        if not spans:
            return
        try:
            batch.parts.append((spans, transport.spans_request(spans)))
        except EncodingError as error:
            if len(spans) == 1:
                self._lose(batch, "not_encodable", 1, str(error))
                return
            for half in _halves(spans):
                self._encode(transport, half, batch)

    # -- sending -------------------------------------------------------------------------------------------------------

    def _settle_part(self, transport: Transport, batch: Batch, spans: Sequence[ReadableSpan], reply: Reply) -> None:
        """Count what was taken, part what was not, and count what cannot be parted."""
        self._backoff.reset()
        if reply.outcome == "taken":
            rejected = min(reply.rejected, len(spans))
            self.sent += len(spans) - rejected
            batch.sent += len(spans) - rejected
            self._takes_parts = True
            if rejected:
                self._lose(batch, "rejected", rejected, reply.why)
        elif reply.outcome != "refused" and len(spans) > 1 and batch.cuts > 0:
            batch.cuts -= 1
            halves = Batch(0)
            for half in _halves(spans):
                self._encode(transport, half, halves)
            batch.parts.extendleft(reversed(halves.parts))
            batch.lost.update(halves.lost)
        else:
            self._lose(batch, "too_large" if reply.outcome == "too_large" else "rejected", len(spans), reply.why)
            self._takes_parts = bool(batch.sent or batch.parts)

    def _lose(self, batch: Batch, reason: str, runs: int, why: str) -> None:
        batch.lost[reason] += runs
        self._warn(reason, _LOST[reason], runs, self.address, why)

    def _warn(self, subject: str, message: str, *about: object) -> None:
        said = message + " (the app goes on; losses are counted, and this is said once a minute)"
        self._warnings.warn(subject, said, *about)

    # -- metrics -------------------------------------------------------------------------------------------------------

    def _send_metrics(self, most_s: float | None) -> Reply | None:
        """Send what was counted since the last time, if anything was, and return the answer."""
        metrics, transport = self._metrics, self._transport
        if metrics is None or transport is None or not metrics.is_dirty:
            return None
        self._metrics_sent = time.monotonic()
        try:
            with _untraced():
                metrics.collect()
                request = transport.metrics_request()
                reply = None if request is None else transport.send(request, most_s)
        except Exception as error:
            metrics.is_dirty = False
            self._warn("metrics", "metrics could not be exported to %s: %r", self.address, error)
            return None
        if reply is not None and reply.outcome == "later":
            self._warn("metrics", "%s does not take metrics now, and they wait: %s", self.address, reply.why)
            return reply  # what was counted stays counted
        metrics.is_dirty = False
        if reply is not None and reply.outcome != "taken":
            self._metrics = None
            logging.getLogger("tracebus").info("%s takes no metrics (%s): none are sent", self.address, reply.why)
        return reply


_LOST: Final = {
    "not_encodable": "%d run could not be made into a span for %s, and is lost: %s",
    "rejected": "%d runs were refused by %s, and are lost: %s",
    "too_large": "%d run is larger than %s takes, and is lost: %s",
}


def _halves(spans: Sequence[ReadableSpan]) -> Iterator[Sequence[ReadableSpan]]:
    middle = len(spans) // 2
    yield spans[:middle]
    yield spans[middle:]


@contextmanager
def _untraced() -> Iterator[None]:
    """Keep OpenTelemetry's instrumentations from making spans of what happens inside."""
    inside = context.get_current()
    for key in (*_SUPPRESS, context._SUPPRESS_INSTRUMENTATION_KEY, context._SUPPRESS_HTTP_INSTRUMENTATION_KEY):
        inside = context.set_value(key, True, inside)
    token = context.attach(inside)
    try:
        yield
    finally:
        context.detach(token)
