"""What a way to send has to be able to do, and what comes of one attempt. The ways are ``over_http`` and ``over_grpc``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, overload

from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["EncodingError", "Outcome", "Reply", "Spans", "Transport", "Turns"]

Outcome = Literal["taken", "later", "too_large", "bad", "refused"]
"""What a receiver did with a request: took it; may take it later; finds it too large, or something in it bad, so that a part
of it may be taken; or does not take any such thing."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one attempt."""

    outcome: Outcome
    why: str = ""
    rejected: int = 0
    """How many spans of a request that was taken were not."""
    wait_s: float | None = None
    """After how many seconds the receiver wants to be asked again."""


class EncodingError(Exception):
    """Say that spans cannot be written as protobuf, or that there is more in them than the SDK sends at once."""


class Transport(Protocol):
    """A way to send. Nothing here waits, tries twice or logs: when to try again is decided in ``delivery``."""

    @property
    def address(self) -> str:
        """Where to, for messages."""
        ...

    @property
    def metric_exporter(self) -> MetricExporter:
        """The SDK's exporter of metrics, which a reader writes into; ``metrics_request`` returns what it wrote."""
        ...

    def spans_request(self, spans: Sequence[ReadableSpan]) -> Any:
        """Return the request that holds these spans; raise EncodingError."""

    def metrics_request(self) -> Any:
        """Return the request that the exporter of metrics was about to send, None for none."""

    def send(self, request: Any, most_s: float | None = None) -> Reply:
        """Send a request once; ``most_s`` bounds the wait for an answer, in seconds."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


TURN_S: Final = 0.002


class Turns:
    """Lets other threads have the interpreter, after every two milliseconds of work.

    A thread of the app that wants to go on would else wait for the interpreter's whole switch interval, 5 ms, each time.
    """

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def pause(self) -> None:
        """Give way, if it is time to."""
        if time.perf_counter() - self._began > TURN_S:
            time.sleep(0)
            self._began = time.perf_counter()


class Spans(Sequence[ReadableSpan]):
    """Spans for the SDK's encoder, which works on all of them in one piece: it gives way between two of them."""

    def __init__(self, spans: Sequence[ReadableSpan]) -> None:
        self._spans = spans
        self._turns = Turns()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> ReadableSpan: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ReadableSpan]: ...
    def __getitem__(self, index: int | slice) -> ReadableSpan | Sequence[ReadableSpan]:
        """Return one or some."""
        return self._spans[index]

    def __iter__(self) -> Iterator[ReadableSpan]:
        """Yield each, and give way."""
        for start in range(0, len(self._spans), 8):
            yield from self._spans[start : start + 8]
            self._turns.pause()
