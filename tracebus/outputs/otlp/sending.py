"""Runs that are known as a whole, from a store, sent in one go: with patience, and without a queue or a thread."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

from ...errors import TracebusError
from ..batches import RetryError
from .delivery import Batch, Delivery
from .exporting import BATCH, delivery_to
from .records import RunRecord
from .semconv import Semconv
from .settings import Destination, checked_semconv

__all__ = ["PATIENCE_S", "Sent", "send"]

PATIENCE_S: Final = 60.0
"""For how long a receiver may say that it does not take runs now."""


class Sent(NamedTuple):
    """How many runs the receiver has acknowledged so far, and how many it will not get, by reason."""

    runs: int
    lost: Mapping[str, int]


def send(
    runs: Iterable[tuple[str, RunRecord]],
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    semconv: Sequence[Semconv] | Semconv = ("gen_ai",),
    protocol: str | None = None,
    patience_s: float = PATIENCE_S,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[Sent]:
    """Send runs, each given with its project, and yield after each batch what has become of them so far.

    What is not given is as OpenTelemetry's variables say. Raises TracebusError when the receiver takes none for
    ``patience_s`` seconds, and ArgumentError for what is none of the choices.
    """
    destination = Destination.of(endpoint, headers, protocol, None)
    vocabularies = checked_semconv(semconv)
    deliveries: dict[str, Delivery] = {}
    lost: Counter[str] = Counter()
    try:
        for project, records in _batched(runs):
            if project not in deliveries:
                deliveries[project] = delivery_to(destination, vocabularies, project=project)
            delivery = deliveries[project]
            _commit(delivery, delivery.prepare(records), lost, patience_s, sleep)
            yield Sent(sum(one.sent for one in deliveries.values()), dict(lost))
    finally:
        for delivery in deliveries.values():
            delivery.close()


def _batched(runs: Iterable[tuple[str, RunRecord]]) -> Iterator[tuple[str, list[RunRecord]]]:
    """Yield runs of one project, as many as a request may hold."""
    iterator = iter(runs)
    while some := list(islice(iterator, BATCH)):
        by_project: dict[str, list[RunRecord]] = {}
        for project, record in some:
            by_project.setdefault(project, []).append(record)
        yield from by_project.items()


def _commit(delivery: Delivery, batch: Batch, lost: Counter[str], patience_s: float, sleep: Callable[[float], object]) -> None:
    began = time.monotonic()
    while True:
        try:
            lost.update(delivery.commit(batch))
        except RetryError as error:
            left_s = began + patience_s - time.monotonic()
            if error.wait_s > left_s:
                raise TracebusError(f"{delivery.address} does not take runs: {error}") from error
            sleep(error.wait_s)
        else:
            return
