"""How an event reaches its subscribers, from sync and from async code.

Queues are in ``lanes``, which event loop awaits is in ``loops``. Failures of subscribers end here: they are
counted, logged and announced, and do not reach the app unless the subscriber asked for it with ``raise_error``.
"""

from __future__ import annotations

import functools
from _thread import get_ident  # threading would be a twentieth of what importing tracebus takes
from collections.abc import Awaitable, Callable, Iterable
from inspect import isawaitable
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from .calls import Call, defer, get_call, next_deferred, open_call, set_call
from .events import Event
from .late import awaiting, lanes, logging, loops, ownloop, payload, to_thread
from .runs import Run, call_inside, open_runs
from .snapshots import rough_size_of, size_of_run, sized_snapshot_of
from .subscriptions import LATE, UNCOUNTED, Callers, Connection, Delivery, Subscription

if TYPE_CHECKING:
    from .lanes import Lane
    from .loops import Wakeup
    from .subscriptions import Receiver

__all__ = ["Plan", "connect_receiver", "deliver", "deliver_async", "deliver_shielded", "wait_for_queued"]

R = TypeVar("R")

SAMPLED = 17
"""Of how many brief calls one is timed: prime, so that no rhythm of the app's is met."""

CALLERS_KEPT = 1_000
"""For how many threads a subscription remembers whether it is being called there; threads that are gone are forgotten then."""

DEADLINE_S = 1.0
"""How long the terminal event of a cancelled run may take to be delivered, in seconds."""


class Plan:
    """Whom an event goes to; where it would be nobody, there is None instead of a plan.

    The sync subscribers in the order they connected, then the others: those that are awaited, queued or called in a thread.
    """

    __slots__ = ("connections", "guarded", "has_guarded", "has_plain", "plain")

    def __init__(self, connections: Iterable[Connection]) -> None:
        ordered = sorted(connections, key=lambda connection: (not connection.is_plain, connection.is_async))
        self.connections = tuple(ordered)
        self.plain = tuple(connection for connection in ordered if connection.is_plain)
        self.guarded = tuple(connection for connection in ordered if not connection.is_plain)
        self.has_plain = bool(self.plain)
        self.has_guarded = bool(self.guarded)

    @classmethod
    def of(cls, connections: Iterable[Connection]) -> Plan | None:
        """Return the plan for some connections, None for none."""
        found = tuple(connections)
        return cls(found) if found else None


def deliver(plan: Plan, sender: object, event: Event) -> None:
    """Deliver from sync code: call in place, queue what must be awaited.

    Raises what a subscriber with ``raise_error`` raised, after all have heard.
    """
    rest = call_plain(plan.plain, sender, event, get_ident())
    if rest is not None or plan.has_guarded:
        post_rest(plan.guarded, sender, event, rest)


def deliver_async(plan: Plan, sender: object, event: Event) -> Awaitable[None] | None:
    """Deliver from async code; return what remains to be awaited, None when nothing does.

    Raises what a subscriber with ``raise_error`` raised, after all have heard.
    """
    rest = call_plain(plan.plain, sender, event, get_ident())
    if rest is not None or plan.has_guarded:
        return await_rest(plan.guarded, sender, event, rest)
    return None


class Rest:
    """What is left when everybody has been called: awaitables that came up, and what to raise."""

    __slots__ = ("awaitables", "raised")

    def __init__(self) -> None:
        self.awaitables: list[tuple[Connection, Any]] = []
        self.raised: BaseException | None = None


def call_plain(plain: tuple[Connection, ...], sender: object, event: Event, thread: int) -> Rest | None:
    """Call the sync subscribers, in this ``thread``; None when all have heard and nothing is left.

    What a subscriber emits to itself waits until its call returns: ``callers`` has a list for each thread that ever called it,
    which says whether it is being called there, and what waits. This is the path of every event.
    """
    rest: Rest | None = None
    for connection in plain:
        try:
            call = connection.callers[thread]
        except KeyError:
            call = _first_call(connection.callers, thread)
        if call[0]:
            next(connection.matched)
            call.append((connection, sender, event))
            continue
        try:
            call[0] = True
            hear = connection.post if next(connection.called) % SAMPLED else connection.post_timed
            result = hear(sender, event)
            if result is not None:
                rest = _noted(connection, result, rest)
        except BaseException as error:
            rest = _noted_failure(connection, event, error, rest)
        finally:
            call[0] = False
        if len(call) > 1:
            _call_late(call)
    return rest


def _first_call(callers: Callers, thread: int) -> list[Any]:
    if len(callers) >= CALLERS_KEPT:
        for known, call in list(callers.items()):
            if call == [False] and known != thread:
                callers.pop(known, None)
    return callers.setdefault(thread, [False])


def _noted(connection: Connection, result: object, rest: Rest | None) -> Rest | None:
    """Keep an awaitable for later; any other value that a subscriber returns is nobody's business.

    Save for UNCOUNTED: a writer has put the event into a queue of its own, and counts what becomes of it.
    """
    if result is UNCOUNTED:
        connection.not_ended_by_call()
        return rest
    if not isawaitable(result):
        return rest
    connection.not_ended_by_call()
    rest = rest or Rest()
    rest.awaitables.append((connection, result))
    return rest


def _noted_failure(connection: Connection, event: Event, error: BaseException, rest: Rest | None) -> Rest | None:
    connection.not_ended_by_call()
    raised = connection.failed(event, error)
    if raised is not None:
        rest = rest or Rest()
        rest.raised = rest.raised or raised
    return rest


def _call_late(call: list[Any]) -> None:
    """Deliver what a subscriber emitted to itself, one after the other, with what they emit in turn behind them."""
    while len(call) > 1:
        connection, sender, event = call.pop(1)
        try:
            call[0] = LATE
            result = _call_in_its_run(event, connection.post, sender, event)
            if result is not UNCOUNTED:
                _queue(connection, event, result)
        except BaseException as error:
            connection.failed(event, error)
        finally:
            call[0] = False


def post_rest(guarded: tuple[Connection, ...], sender: object, event: Event, rest: Rest | None) -> None:
    """Queue the awaitables, and post to the subscribers that are not plain."""
    rest = rest or Rest()
    for connection, awaitable in rest.awaitables:
        _queue(connection, event, awaitable)
    outer = open_call(get_call())
    call: Call | None = None
    try:
        for connection in guarded:
            if connection.within is not None and not connection.hears(event):
                continue
            next(connection.matched)
            if outer is not None and defer(outer, connection, sender, event):
                continue
            call = [connection.subscription, outer]
            set_call(call)
            _post(connection, sender, event, rest)
            _post_deferred(call)
    finally:
        if call is not None:
            call[0] = None
    if rest.raised is not None:
        raise rest.raised


def _post(connection: Connection, sender: object, event: Event, rest: Rest) -> None:
    began = perf_counter_ns()
    try:
        result = connection.post(sender, event)
        if result is None:
            next(connection.delivered)
            connection.subscription.timing.add(perf_counter_ns() - began)
        elif result is not UNCOUNTED:
            _queue(connection, event, result)
    except BaseException as error:
        rest.raised = connection.failed(event, error) or rest.raised


def _post_deferred(call: Call) -> None:
    """Deliver what a subscriber emitted to itself while it was called."""
    while deferred := next_deferred(call):
        connection, sender, event = deferred
        _call_in_its_run(event, _post, connection, sender, event, Rest())


def _call_in_its_run(event: Event, fn: Callable[..., R], /, *args: Any) -> R:
    """Call ``fn`` as where the event was said: what is current here may be another run, in whose course it was deferred."""
    return fn(*args) if event.run is None else call_inside(event.run, fn, *args)


def await_rest(guarded: tuple[Connection, ...], sender: object, event: Event, rest: Rest | None) -> Awaitable[None] | None:
    """Run the async subscribers that never suspend here and now, the others in tasks of their own; return the wait for those.

    A subscriber that suspends gets a task, because its scopes and time-outs belong to the task that it began in: so it can
    neither swallow the app's cancellation nor be taken for it, and goes on when the app has to leave.
    """
    if rest is None and len(guarded) == 1 and guarded[0].is_brief and not guarded[0].subscription.is_behind:
        _run_brief(guarded[0], sender, event)
        return None
    outer = open_call(get_call())
    errors: list[BaseException] = []
    waits: list[Wakeup | None] = []
    call: Call | None = None
    if rest is not None:
        errors += [rest.raised] if rest.raised is not None else []
        waits += [awaiting.in_own_task(connection, event, result, errors, outer) for connection, result in rest.awaitables]
    try:
        for connection in guarded:
            if connection.within is not None and not connection.hears(event):
                continue
            next(connection.matched)
            if outer is not None and defer(outer, connection, sender, event):
                continue
            call = [connection.subscription, outer]
            set_call(call)
            began = perf_counter_ns()
            try:
                result = connection.call(sender, event)
                if connection.is_brief and not connection.subscription.is_behind:
                    result = next(result.__await__(), None)
                if isawaitable(result):
                    waits.append(awaiting.in_own_task(connection, event, result, errors, outer))
                elif result is not UNCOUNTED:
                    next(connection.delivered)
                    connection.subscription.timing.add(perf_counter_ns() - began)
            except BaseException as error:
                raised = connection.failed(event, error)
                errors += [raised] if raised is not None else []
            if len(call) == 2:
                call[0] = None
            else:
                _post_deferred(call)
    finally:
        if call is not None:  # an interrupt must not leave a call open for ever
            call[0] = None
    wakeups = [wait for wait in waits if wait is not None]
    if wakeups:
        return _heard(wakeups, errors)
    if errors:
        raise errors[0]
    return None


def _run_brief(connection: Connection, sender: object, event: Event) -> None:
    """Run the only subscriber, which never suspends and so cannot await what it says to itself: the path of most."""
    began = 0 if next(connection.called) % SAMPLED else perf_counter_ns()
    try:
        next(connection.call(sender, event).__await__(), None)
    except BaseException as error:
        connection.not_ended_by_call()
        if (raised := connection.failed(event, error)) is not None:
            raise raised from None
    else:
        if began:
            connection.subscription.timing.add(perf_counter_ns() - began)


async def _heard(wakeups: list[Wakeup], errors: list[BaseException]) -> None:
    for finished in wakeups:
        await finished.wait()
    if errors:
        raise errors[0]


def _queue(connection: Connection, event: Event, result: Any) -> None:
    """Have an awaitable that came up in sync code awaited, in order."""
    if not isawaitable(result):
        next(connection.delivered)
        return
    lane = lanes.lane_of(connection.subscription)
    lane.put(connection, event, result, rough_size_of(event))
    if event.run is not None and not loops.is_in_loop() and lanes.heard_from() is None:
        outermost = _outermost(event.run)
        if outermost._queued_on is None:
            outermost._queued_on = set()
        outermost._queued_on.add(lane)


def _outermost(run: Run) -> Run:
    """Return the outermost of the open runs around ``run`` that were started in the same thread."""
    while run.parent is not None and run.parent in open_runs and run.parent._thread == run._thread:
        run = run.parent
    return run


def wait_for_queued(run: Run) -> None:
    """Wait, at the end of the outermost run of a thread without a loop, for what was queued on its behalf."""
    if not ownloop.may_wait():  # a thread that works for this loop queued something on a run of the loop's
        return
    waiting = [lane for lane in list(run._queued_on or ()) if not lane.missed_deadline]
    for lane in lanes.wait_for(waiting, lanes.PATIENCE_S):
        lane.missed_deadline = True


def deliver_shielded(plan: Plan, sender: object, event: Event) -> Awaitable[None] | None:
    """Deliver from a task that is being cancelled: what must be awaited, under a shield for at most the delivery deadline."""
    if not plan.has_guarded:
        return deliver_async(plan, sender, event)
    if not loops.is_in_loop():  # the collector closes a generator after its loop has gone
        deliver(plan, sender, event)
        return None
    return _shielded(plan, sender, event)


async def _shielded(plan: Plan, sender: object, event: Event) -> None:
    with anyio.move_on_after(DEADLINE_S, shield=True):
        remaining = deliver_async(plan, sender, event)
        if remaining is not None:
            await remaining


def connect_receiver(
    subscription: Subscription,
    receiver: Receiver,
    sender: object = None,
    sender_key: object = None,
    *,
    delivery: Delivery | None = None,
) -> Connection:
    """Decide how ``receiver`` is called, by ``delivery`` or the subscription's."""
    connection = Connection(subscription, receiver, sender, sender_key)
    how = delivery or subscription.delivery
    if how == "thread":
        connection.call = functools.partial(_hear_in_thread, receiver)
        connection.is_plain = False
    elif how == "background":
        lane = lanes.lane_of(subscription, in_thread=not connection.is_async)
        connection.call = connection.post = functools.partial(_enqueue, connection, lane, receiver)
        connection.is_plain = False
    if not connection.is_plain:
        _load_what_waits(connection)
    return connection


def _load_what_waits(connection: Connection) -> None:
    # Now: another thread that did it at the first event could be in the middle of it when the process forks, and the child
    # would find half a module, and its lock held.
    payload.snapshot(None)
    logging.getLogger("tracebus")
    if connection.is_async:
        awaiting.get_ready()


async def _hear_in_thread(receiver: Receiver, sender: object, event: Event) -> None:
    # A thread that blocks cannot be cancelled; the app that is cancelled does not wait for it.
    # What it returns is wrapped, because trio takes no function that returns a coroutine.
    (result,) = await to_thread.run_sync(lambda: (receiver(sender, event=event),), abandon_on_cancel=True)
    if isawaitable(result):
        await result


def _enqueue(connection: Connection, lane: Lane, receiver: Receiver, sender: object, event: Event) -> object:
    said, size = sized_snapshot_of(event)
    size += size_of_run(said.run, lane.number)
    lane.put(connection, said, functools.partial(receiver, sender, event=said), size)
    return UNCOUNTED


def queue_behind(subscription: Subscription, receiver: Receiver) -> Callable[..., object]:
    """Wrap a sync receiver of a subscriber that also has async ones: it waits its turn behind what they still have to hear."""
    lane = lanes.lane_of(subscription)
    connection = Connection(subscription, receiver)

    def hear(sender: object, event: Event) -> object:
        if not lane.is_busy:
            return receiver(sender, event=event)
        lane.put(connection, event, functools.partial(receiver, sender, event=event), rough_size_of(event))
        return UNCOUNTED

    return hear
