"""``save``: a subscriber that keeps every run in a store. What it notes is in ``records``, who writes it in ``writer``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, get_args

from ...dispatch import connect_receiver
from ...errors import ArgumentError
from ...payload import Capture, default_capture
from ...redaction import Redactor
from ...signals import HOOKS, close_subscription
from ...subscriptions import Overflow, QueueLimits, Subscription
from ..batches import BatchLane
from ..notes import receiver_for
from ..writing import Writing
from .bodies import Encoder
from .files import store_path
from .records import Record, Recorder
from .removal import Retention
from .rows import Preparer
from .writer import Writer

__all__ = ["Saving", "save"]

QUEUE_SIZE: Final = 50_000
QUEUE_BYTES: Final = 32 * 1024 * 1024
INTERVAL_S: Final = 0.2


class Saving(Writing):
    """A store that is being written: ``close()`` ends it, as does leaving the block."""

    def __init__(self, path: Path, project: str, subscription: Subscription) -> None:
        super().__init__(subscription)
        self.path = path
        """The file."""
        self.project = project

    def __repr__(self) -> str:
        """Show which file is written."""
        return f"<Saving to {self.path}{' (closed)' if self.closed else ''}: {self.stats.delivered} events on disk>"


def save(
    path: str | os.PathLike[str] | None = None,
    *,
    project: str = "default",
    capture: Capture | None = None,
    redactor: Redactor | None = None,
    keep_days: float | None = 30.0,
    keep_bytes: int | None = 4 * 1024**3,
    keep_replays: bool = False,
    queue_size: int = QUEUE_SIZE,
    overflow: Overflow = "drop_oldest",
    interval_s: float = INTERVAL_S,
) -> Saving:
    """Keep every run of this process in a store, until the returned handle is closed.

    The store is one SQLite file, which many processes may write and read at once. Without ``path`` it is what TRACEBUS_DB
    says, else ``traces.db`` in the user's data directory. ``project`` tells apps in one file apart. What is written is on
    disk after at most ``interval_s`` seconds, or when ``tracebus.flush()`` returns.

    ``capture`` says which content is kept, ``"none"``, ``"inputs"``, ``"outputs"`` or ``"all"``, and ``redactor`` masks
    secrets in it; not given, they are what TRACEBUS_CAPTURE says and the redactor that masks everywhere. Traces older than
    ``keep_days`` days are removed, and the oldest of a store of more than ``keep_bytes`` bytes; None keeps them. The runs
    of a replay are not stored again unless ``keep_replays``.

    ``queue_size`` events and 32 MiB may wait to be written; ``overflow`` says what gives way then. A store that cannot be
    written is warned about once a minute through ``logging``; the app hears nothing of it, and what is lost is counted in
    ``stats``. A corrupt file, or one of a newer tracebus, is renamed and a new one begun.

    Raises ArgumentError for what is none of the choices.
    """
    _check(project, interval_s, redactor)
    limits = QueueLimits(queue_size, QUEUE_BYTES, overflow).checked()
    capture = _checked_capture(capture)
    retention = Retention(_checked_limit("keep_days", keep_days), _checked_bytes(keep_bytes))
    file = store_path(path)
    preparer = Preparer(Encoder(redactor), project, keeps_replays=keep_replays)
    subscription = Subscription(save, limits=limits, disconnect=close_subscription, key=object())

    def losses() -> dict[str, int]:
        return {reason: tally.value for reason, tally in list(subscription.dropped.items())}

    writer = Writer(file, preparer, retention, losses)
    lane: BatchLane[Record] = BatchLane(subscription, writer, interval_s)
    subscription.lane = lane
    recorder = Recorder(lane, capture)
    for hook in HOOKS.values():
        hook.add(connect_receiver(subscription, receiver_for(recorder, hook.event_class)))
    return Saving(file, project, subscription)


def _check(project: object, interval_s: object, redactor: object) -> None:
    if not isinstance(project, str) or not project:
        raise ArgumentError(f"project={project!r} is no name: give a text")
    if redactor is not None and not isinstance(redactor, Redactor):
        raise ArgumentError(f"redactor={redactor!r} is no Redactor: give tracebus.redaction.Redactor(rule)")
    if not isinstance(interval_s, (int, float)) or not 0 < interval_s <= 60:
        raise ArgumentError(f"interval_s={interval_s!r} must be a number of seconds, more than 0 and at most 60")


def _checked_capture(capture: Capture | None) -> Capture:
    if capture is None:
        return default_capture()
    if capture not in get_args(Capture):
        raise ArgumentError(f"unknown capture {capture!r}: choose one of {', '.join(get_args(Capture))}")
    return capture


def _checked_limit(name: str, given: float | None) -> float | None:
    if given is not None and not (isinstance(given, (int, float)) and given > 0):
        raise ArgumentError(f"{name}={given!r} must be a number above 0, or None to keep everything")
    return given


def _checked_bytes(given: int | None) -> int | None:
    limit = _checked_limit("keep_bytes", given)
    return None if limit is None else int(limit)
