"""Who hears: a subscription, what it has heard, and how it is called on each hook. How events reach it is in ``dispatch``."""

from __future__ import annotations

import functools
import inspect
import itertools
import opcode
import os
import time
import types
import weakref
from _thread import RLock  # threading would be a twentieth of what importing tracebus takes
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, Self, TypeAlias, get_args

from .errors import ArgumentError, SubscriberError
from .late import logging

if TYPE_CHECKING:
    from .events import Event
    from .lanes import Lane
    from .loops import Loop
    from .notebooks import CellSite

__all__ = ["Delivery", "Overflow", "QueueLimits", "Receiver", "SubscriberStats", "Subscription", "name_of"]

Delivery: TypeAlias = Literal["inline", "thread", "await", "background"]
Callers: TypeAlias = "dict[int, list[Any]]"
"""For each thread that ever called a sync subscriber: whether it is being called there, and what waits for its return."""
Overflow: TypeAlias = Literal["drop_oldest", "drop_newest", "block"]

LOG_EVERY_S: Final = 60.0
"""How often failures of one type are logged for one subscription, in seconds."""


class Receiver(Protocol):
    """What is called on an event, the blinker way."""

    def __call__(self, sender: Any, /, *, event: Any) -> Any:
        """Hear ``event`` from ``sender``."""


class QueueLimits(NamedTuple):
    """How many events may wait for one subscriber, and what gives way when there are more."""

    size: int = 10_000
    overflow: Overflow = "drop_oldest"

    def checked(self) -> QueueLimits:
        """Return the limits; raise ArgumentError naming the choices when they make no sense."""
        if not isinstance(self.size, int) or self.size < 1:
            raise ArgumentError(f"queue_size must be a whole number of events, at least 1, not {self.size!r}")
        if self.overflow not in get_args(Overflow):
            choices = ", ".join(get_args(Overflow))
            raise ArgumentError(f"unknown overflow policy {self.overflow!r}: choose one of {choices}")
        return self


class SubscriberStats(NamedTuple):
    """What became of the events that matched one subscription, in events."""

    name: str
    delivery: str
    matched: int
    delivered: int
    failed: int
    dropped: dict[str, int]
    pending: int


class Tally:
    """Count without a lock: advancing an ``itertools.count`` is one atomic step, ``+=`` is three."""

    __slots__ = ("_lock", "_reads", "add", "steps")

    def __init__(self) -> None:
        self.steps = itertools.count()  # next() of it counts, too, and is what the hot path does
        self._reads = 0
        self._lock = RLock()
        self.add: Callable[[], int] = self.steps.__next__

    def unlock(self) -> None:
        """Take a new lock, in a forked child."""
        self._lock = RLock()

    @property
    def value(self) -> int:
        """How often ``add`` was called. Reading is a step too, so the reads are subtracted."""
        with self._lock:
            seen = next(self.steps) - self._reads
            self._reads += 1
            return seen


drops: Final = Tally()
"""Every event dropped in this process, for ``flush``."""


class Connection:
    """One subscription on one hook: how it is called.

    ``call`` is for async emitters, ``post`` for sync ones; both take ``(sender, event)``. They return None when the event
    was heard, UNCOUNTED when it will be, or an awaitable. Decided once here, so that an emission only calls.
    """

    __slots__ = (
        "call",
        "callers",
        "delivered",
        "is_async",
        "is_brief",
        "is_plain",
        "key",
        "post",
        "receiver",
        "sender",
        "sender_key",
        "subscription",
    )

    def __init__(
        self, subscription: Subscription, receiver: Receiver, sender: object = None, sender_key: object = None
    ) -> None:
        self.subscription = subscription
        self.key = subscription.key
        self.receiver = receiver
        self.delivered = subscription.delivered.steps
        self.callers = subscription.callers
        self.sender = sender  # kept, so that its id, which is the key, stays its own
        self.sender_key = sender_key
        self.is_async = is_async_callable(receiver)
        self.is_plain = not self.is_async
        self.is_brief = self.is_async and is_brief(receiver)
        self.call = self.post = by_position(receiver)


UNCOUNTED: Final = object()
"""What a connection returns for an event that is counted elsewhere: it waits in a queue, or was not for this subscriber."""


class Subscription:
    """One subscriber on the bus: a callable on some hooks, or a handler object. Close it to stop hearing.

    Also a context manager that closes itself at the end of the block.
    """

    def __init__(
        self,
        target: object,
        *,
        delivery: Delivery | None = None,
        raise_error: bool = False,
        limits: QueueLimits | None = None,
        key: object = None,
        disconnect: Callable[[Subscription], None] | None = None,
    ) -> None:
        if delivery is not None and delivery not in get_args(Delivery):
            choices = ", ".join(get_args(Delivery))
            raise ArgumentError(f"unknown delivery {delivery!r} for {name_of(target)}: choose one of {choices}")
        self.target = target
        self.key = identity_of(target) if key is None else key
        self.name = name_of(target)
        self.delivery = delivery
        self.raise_error = raise_error
        self.limits = (limits or QueueLimits()).checked()
        self.delivered = Tally()
        self.failed = Tally()
        self.dropped: dict[str, Tally] = {}
        self.begun = Tally()
        self.ended = Tally()
        self.lane: Lane | None = None
        self.callers: Callers = {}
        self.connected_loop: Loop | None = None
        self.site: CellSite | None = None
        self._disconnect = disconnect
        self._logged: dict[type[BaseException], float] = {}
        key_in_known = id(self)
        _known[key_in_known] = weakref.ref(self, lambda _: _known.pop(key_in_known, None))

    @property
    def stats(self) -> SubscriberStats:
        """Say what became of the events so far: ``matched == delivered + failed + dropped + pending``."""
        delivered, failed = self.delivered.value, self.failed.value
        dropped = {reason: tally.value for reason, tally in list(self.dropped.items())}
        ended = self.ended.value  # read before what has begun, so that the difference is never negative
        pending = self.begun.value - ended + (0 if self.lane is None else self.lane.pending)
        matched = delivered + failed + sum(dropped.values()) + pending
        delivery = self.delivery or "default"
        return SubscriberStats(self.name, delivery, matched, delivered, failed, dropped, pending)

    def drop(self, reason: str) -> None:
        """Count an event that will not be delivered."""
        self.dropped.setdefault(reason, Tally()).add()
        drops.add()

    def fail(self, event: Event, error: BaseException) -> None:
        """Count, log and announce that the subscriber raised ``error`` on ``event``."""
        self.failed.add()
        for report in (self._log, self._announce):
            try:
                report(event, error)
            except Exception:
                pass  # a failure to report a failure has nowhere to go

    def _announce(self, event: Event, error: BaseException) -> None:
        announce_failure(self, event, error)

    def _log(self, event: Event, error: BaseException) -> None:
        now = time.monotonic()
        if now - self._logged.get(type(error), -LOG_EVERY_S) < LOG_EVERY_S:
            return
        self._logged[type(error)] = now
        logging.getLogger("tracebus").error(
            "subscriber %s failed on %s and stays subscribed: %r (the same again is counted, and logged once a minute)",
            self.name,
            event.signal_name,
            error,
            exc_info=error,
        )

    def close(self) -> None:
        """Stop hearing. What is queued is still delivered. Closing twice is fine."""
        disconnect, self._disconnect = self._disconnect, None
        if disconnect is not None:
            disconnect(self)

    @property
    def closed(self) -> bool:
        """Whether the subscription has ended."""
        return self._disconnect is None

    def __enter__(self) -> Self:
        """Return the subscription."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the subscription."""
        self.close()

    def __repr__(self) -> str:
        """Show who hears and what became of it."""
        stats = self.stats
        return (
            f"<Subscription {self.name}: {stats.matched} matched, {stats.delivered} delivered, {stats.failed} failed, "
            f"{sum(stats.dropped.values())} dropped, {stats.pending} pending>"
        )


_known: dict[int, weakref.ref[Subscription]] = {}
"""Not a WeakSet, which cannot be listed while another thread adds to it."""


def _forget_after_fork() -> None:
    # The threads that were inside a subscriber are the parent's, and so are the locks that they held.
    for subscription in known_subscriptions():
        subscription.callers.clear()
        for tally in (
            subscription.delivered,
            subscription.failed,
            subscription.begun,
            subscription.ended,
            *subscription.dropped.values(),
        ):
            tally.unlock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_after_fork)


def known_subscriptions() -> list[Subscription]:
    """Return every subscription that somebody still holds."""
    return [subscription for reference in list(_known.values()) if (subscription := reference()) is not None]


announce_failure: Callable[[Subscription, Event, BaseException], None] = lambda *_: None  # noqa: E731
"""Says a failure on the bus; ``signals`` puts the real one here, because signals know subscriptions."""


def announce_failures_with(announce: Callable[[Subscription, Event, BaseException], None]) -> None:
    """Say failures through ``announce`` from now on."""
    global announce_failure
    announce_failure = announce


def identity_of(target: object) -> object:
    """Return what is equal for two references to one subscriber: a bound method is made anew at each access."""
    if isinstance(target, types.MethodType):
        return id(target.__self__), id(target.__func__)
    return id(target)


def name_of(target: object) -> str:
    """Name a callable or an object as its author would: ``module.function``, ``module.Class``."""
    while isinstance(target, functools.partial):
        target = target.func
    named = target if hasattr(target, "__qualname__") else type(target)
    return f"{getattr(named, '__module__', None) or '?'}.{getattr(named, '__qualname__', repr(named))}"


def by_position(receiver: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """Return what calls ``receiver`` as ``(sender, event)``; a call with a keyword takes half as long again.

    A function whose second parameter is ``event`` is returned as it is.
    """
    function = receiver.__func__ if isinstance(receiver, types.MethodType) else receiver
    if isinstance(function, types.FunctionType):
        first = 1 if function is not receiver else 0
        code = function.__code__
        if code.co_varnames[first + 1 : code.co_argcount] == ("event",):
            return receiver
    return lambda sender, event: receiver(sender, event=event)


def is_async_callable(target: Any) -> bool:
    """Tell whether calling ``target`` gives a coroutine, looking through partials and at ``__call__``."""
    while isinstance(target, functools.partial):
        target = target.func
    if inspect.iscoroutinefunction(target):
        return True
    return not inspect.isroutine(target) and inspect.iscoroutinefunction(getattr(target, "__call__", None))  # noqa: B004


def is_brief(target: Any) -> bool:
    """Tell whether ``target`` is a coroutine function that never suspends, because there is no ``await`` in it."""
    while isinstance(target, functools.partial):
        target = target.func
    function = target if inspect.isroutine(target) else getattr(target, "__call__", None)  # noqa: B004
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & inspect.CO_COROUTINE) and _AWAIT not in code.co_code[::2]


_AWAIT: Final = opcode.opmap["GET_AWAITABLE"]  # also of "async for" and "async with"


def check_callable(target: object) -> None:
    """Raise SubscriberError unless ``target`` can be subscribed."""
    if not callable(target):
        remedy = "subscribe a function called as fn(sender, event=event), or attach() a handler with on_* methods"
        raise SubscriberError(f"{target!r} is not callable: {remedy}")
