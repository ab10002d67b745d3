"""Who hears: a subscription, what it has heard, and how it is called on each hook. How events reach it is in ``dispatch``."""

from __future__ import annotations

import functools
import inspect
import opcode
import os
import time
import types
import weakref
from _thread import get_ident  # threading would be a twentieth of what importing tracebus takes
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, TypeAlias, get_args

from .counts import SubscriberStats, Tally, Throttle, Timing, drops
from .errors import ArgumentError, SubscriberError
from .events import Failed
from .late import logging
from .runs import Run, is_inside
from .values import Value

if TYPE_CHECKING:
    from .events import Event
    from .lanes import Lane
    from .loops import Loop
    from .notebooks import CellSite

__all__ = ["Delivery", "Overflow", "QueueLimits", "SubscriberStats", "Subscription", "name_of"]

Delivery: TypeAlias = Literal["inline", "thread", "await", "background"]
Callers: TypeAlias = "dict[int, list[Any]]"
"""For each thread that ever called a sync subscriber: whether it is being called there, and what waits for its return. It is
True in a call that ``called`` counts, LATE in one of what has waited."""
LATE: Final = "late"
Overflow: TypeAlias = Literal["drop_oldest", "drop_newest", "block"]

LOG_EVERY_S: Final = 60.0
"""How often failures of one type, and drops, are logged for one subscription, in seconds."""


if TYPE_CHECKING:  # nobody needs it at run time, and a protocol takes long to make

    class Receiver(Protocol):
        """What is called on an event, the blinker way."""

        def __call__(self, sender: Any, /, *, event: Any) -> Any:
            """Hear ``event`` from ``sender``."""


QUEUE_EVENTS: Final = 10_000
QUEUE_BYTES: Final = 32 * 1024 * 1024


class QueueLimits(Value):
    """How much may wait for one subscriber, in events and in about as many bytes, and what gives way when there is more."""

    __slots__ = ("events", "overflow", "size")

    def __init__(self, events: int = QUEUE_EVENTS, size: int = QUEUE_BYTES, overflow: Overflow = "drop_oldest") -> None:
        self.events = events
        self.size = size
        self.overflow = overflow

    def checked(self) -> QueueLimits:
        """Return the limits; raise ArgumentError naming the choices when they make no sense."""
        for name, value, unit in (("queue_size", self.events, "events"), ("queue_bytes", self.size, "bytes")):
            if not isinstance(value, int) or value < 1:
                raise ArgumentError(f"{name} must be a whole number of {unit}, at least 1, not {value!r}")
        if self.overflow not in get_args(Overflow):
            choices = ", ".join(get_args(Overflow))
            raise ArgumentError(f"unknown overflow policy {self.overflow!r}: choose one of {choices}")
        return self


class Connection:
    """One subscription on one hook: how it is called.

    ``call`` is for async emitters, ``post`` for sync ones; both take ``(sender, event)``. They return None when the event
    was heard, UNCOUNTED when it will be, or an awaitable. Decided once here, so that an emission only calls.

    Whoever emits counts, once an event and before anything else: in ``called`` what is called in place and mostly ends there,
    in ``matched`` the rest, whose outcome is counted by whoever calls the receiver.
    """

    __slots__ = (
        "call",
        "called",
        "callers",
        "delivered",
        "is_async",
        "is_brief",
        "is_plain",
        "key",
        "matched",
        "post",
        "receiver",
        "sender",
        "sender_key",
        "subscription",
        "within",
    )

    def __init__(
        self, subscription: Subscription, receiver: Receiver, sender: object = None, sender_key: object = None
    ) -> None:
        self.subscription = subscription
        self.key = subscription.key
        self.receiver = receiver
        self.called = subscription.called.steps
        self.matched = subscription.matched.steps
        self.delivered = subscription.delivered.steps
        self.callers = subscription.callers
        self.sender = sender  # kept, so that its id, which is the key, stays its own
        self.sender_key = sender_key
        self.is_async = is_async_callable(receiver)
        self.is_plain = not self.is_async
        self.is_brief = self.is_async and is_brief(receiver)
        self.call = self.post = by_position(receiver)
        self.within: Run | None = None

    def hears(self, event: Event) -> bool:
        """Tell whether the event is of the run that the subscriber listens to, or nested in it."""
        return self.within is None or is_inside(event.run, self.within)

    def post_timed(self, sender: object, event: Event) -> Any:
        """Call ``post`` and note how long it took."""
        began = time.perf_counter_ns()
        result = self.post(sender, event)
        self.subscription.timing.add(time.perf_counter_ns() - began)
        return result

    def not_ended_by_call(self) -> None:
        """Count as matched what was counted as called: it has failed, or is awaited yet."""
        self.subscription.passed_on.add()
        next(self.matched)

    def failed(self, event: Event, error: BaseException) -> BaseException | None:
        """Count and report a failure; return it when the emitter is to see it. An interrupt is the app's: it goes on up."""
        self.subscription.fail(event, error)
        if isinstance(error, KeyboardInterrupt):
            raise error
        # Where the app is failing already, its own exception wins.
        return error if self.subscription.raise_error and not isinstance(event, Failed) else None


UNCOUNTED: Final = object()
"""What a connection returns for an event that is counted elsewhere: it waits in a queue, or was not for this subscriber."""


class Subscription:
    """One subscriber on the bus: a callable on some hooks, or a handler object. Close it to stop hearing.

    Also a context manager that closes itself at the end of the block.
    """

    lane: Lane | None = None

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
        self.called = Tally()
        self.passed_on = Tally()
        self.matched = Tally()
        self.delivered = Tally()
        self.failed = Tally()
        self.dropped: dict[str, Tally] = {}
        self.timing = Timing()
        self.callers: Callers = {}
        self.connected_loop: Loop | None = None
        self.site: CellSite | None = None
        self._disconnect = disconnect
        self._logged = Throttle(LOG_EVERY_S)
        key_in_known = id(self)
        _known[key_in_known] = weakref.ref(self, lambda _: _known.pop(key_in_known, None))

    @property
    def stats(self) -> SubscriberStats:
        """Say what became of the events so far: ``matched == delivered + failed + dropped + pending``."""
        in_call = sum(call[0] is True for call in list(self.callers.values()))
        ended_by_call = self.called.value - self.passed_on.value
        delivered, failed = self.delivered.value + ended_by_call - in_call, self.failed.value
        dropped = {reason: tally.value for reason, tally in list(self.dropped.items())}
        matched = self.matched.value + ended_by_call  # read last, so that what is pending is never negative
        pending = matched - delivered - failed - sum(dropped.values())
        timing, delivery = self.timing, self.delivery or "default"
        return SubscriberStats(self.name, delivery, matched, delivered, failed, dropped, pending, timing.mean_s, timing.max_s)

    def drop(self, reason: str, events: int = 1) -> None:
        """Count events that will not be delivered, and warn of them once a minute."""
        if not events:
            return
        tally = self.dropped.setdefault(reason, Tally())
        for _ in range(events):
            tally.add()
            drops.add()
        if self._logged.lets(drops):
            _report(self._warn_of_drops)

    def _warn_of_drops(self) -> None:
        dropped = ", ".join(f"{tally.value} ({reason})" for reason, tally in list(self.dropped.items()))
        logging.getLogger("tracebus").warning(
            "subscriber %s has lost events: %s so far. It is too slow, hangs, or its loop has closed; stats() has the counts "
            "(more is counted, and logged once a minute)",
            self.name,
            dropped,
        )

    def fail(self, event: Event, error: BaseException) -> None:
        """Count, log and announce that the subscriber raised ``error`` on ``event``; an interrupt is only counted."""
        self.failed.add()
        if isinstance(error, KeyboardInterrupt):
            return
        if self._logged.lets(type(error)):
            _report(self._log_failure, event, error)
        _report(announce_failure, self, event, error)

    def _log_failure(self, event: Event, error: BaseException) -> None:
        logging.getLogger("tracebus").error(
            "subscriber %s failed on %s and stays subscribed: %r (the same again is counted, and logged once a minute)",
            self.name,
            event.signal_name,
            error,
            exc_info=error,
        )

    def tallies(self) -> Iterator[Tally]:
        """Yield everything that is counted."""
        yield from (self.called, self.passed_on, self.matched, self.delivered, self.failed, *self.dropped.values())

    @property
    def is_behind(self) -> bool:
        """Whether it still has something to hear that came before."""
        return self.lane is not None and self.lane.is_busy

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
        return f"<Subscription {self.stats}>"


def _report(say: Callable[..., None], *about: object) -> None:
    try:
        say(*about)
    except Exception:
        pass  # a failure to report a failure has nowhere to go


_known: dict[int, weakref.ref[Subscription]] = {}
"""Not a WeakSet, which cannot be listed while another thread adds to it."""


def _forget_after_fork() -> None:
    # The threads that were inside a subscriber are the parent's, except the one that forked: its call goes on here.
    thread = get_ident()
    for subscription in known_subscriptions():
        for tally in subscription.tallies():
            tally.restart()
        for other in [caller for caller in subscription.callers if caller != thread]:
            del subscription.callers[other]
        state = subscription.callers.get(thread, [False])[0]
        if state:
            (subscription.called if state is True else subscription.matched).add()


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
    return code is not None and bool(code.co_flags & inspect.CO_COROUTINE) and _SEND not in code.co_code[::2]


_SEND: Final = opcode.opmap["SEND"]  # in whatever suspends: "await", "async for" and "async with"


def check_callable(target: object) -> None:
    """Raise SubscriberError unless ``target`` can be subscribed."""
    if not callable(target):
        remedy = "subscribe a function called as fn(sender, event=event), or attach() a handler with on_* methods"
        raise SubscriberError(f"{target!r} is not callable: {remedy}")
