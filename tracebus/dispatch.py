"""How an event reaches its subscribers, from sync and from async code.

Queues are in ``lanes``, which event loop awaits is in ``loops``. Failures of subscribers end here: they are
counted, logged and announced, and do not reach the app unless the subscriber asked for it with ``raise_error``.
"""

from __future__ import annotations

import functools
from _thread import get_ident  # threading would be a twentieth of what importing tracebus takes
from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

import anyio

from .calls import Call, defer, get_call, next_deferred, open_call, set_call
from .events import Event, Failed
from .late import lanes, loops, payload, to_thread
from .runs import Run
from .snapshots import snapshot_of
from .subscriptions import UNCOUNTED, Callers, Connection, Delivery, Receiver, Subscription

if TYPE_CHECKING:
    from .lanes import Lane
    from .loops import Wakeup

__all__ = ["Plan", "connect_receiver", "deliver", "deliver_async", "deliver_shielded", "wait_for_queued"]

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
        ordered = sorted(connections, key=lambda connection: not connection.is_plain)
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
    rest = call_plain(plan.plain, sender, event)
    if rest is not None or plan.has_guarded:
        post_rest(plan.guarded, sender, event, rest)


def deliver_async(plan: Plan, sender: object, event: Event) -> Awaitable[None] | None:
    """Deliver from async code; return what remains to be awaited, None when nothing does.

    Raises what a subscriber with ``raise_error`` raised, after all have heard.
    """
    rest = call_plain(plan.plain, sender, event)
    if rest is not None or plan.has_guarded:
        return await_rest(plan.guarded, sender, event, rest)
    return None


class Rest:
    """What is left when everybody has been called: awaitables that came up, and what to raise."""

    __slots__ = ("awaitables", "raised")

    def __init__(self) -> None:
        self.awaitables: list[tuple[Connection, Any]] = []
        self.raised: BaseException | None = None


def call_plain(plain: tuple[Connection, ...], sender: object, event: Event) -> Rest | None:
    """Call the sync subscribers; None when all have heard and nothing is left.

    What a subscriber emits to itself waits until its call returns: ``callers`` has a list for each thread that ever called it,
    which says whether it is being called there, and what waits. This is the path of every event.
    """
    rest: Rest | None = None
    thread = get_ident()
    for connection in plain:
        try:
            call = connection.callers[thread]
        except KeyError:
            call = _first_call(connection.callers, thread)
        if call[0]:
            call.append((connection, sender, event))
            continue
        try:
            call[0] = True
            result = connection.post(sender, event)
            if result is None:
                next(connection.delivered)
            else:
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
    """Keep an awaitable for later; any other value that a subscriber returns is nobody's business."""
    if result is UNCOUNTED:
        return rest
    if not isawaitable(result):
        next(connection.delivered)
        return rest
    rest = rest or Rest()
    rest.awaitables.append((connection, result))
    return rest


def _noted_failure(connection: Connection, event: Event, error: BaseException, rest: Rest | None) -> Rest | None:
    raised = _failed(connection, event, error)
    if raised is not None:
        rest = rest or Rest()
        rest.raised = rest.raised or raised
    return rest


def _call_late(call: list[Any]) -> None:
    """Deliver what a subscriber emitted to itself, one after the other, with what they emit in turn behind them."""
    while len(call) > 1:
        connection, sender, event = call.pop(1)
        try:
            call[0] = True
            result = connection.post(sender, event)
            if result is not UNCOUNTED:
                _queue(connection, event, result)
        except BaseException as error:
            _failed(connection, event, error)
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
    try:
        result = connection.post(sender, event)
        if result is None:
            next(connection.delivered)
        elif result is not UNCOUNTED:
            _queue(connection, event, result)
    except BaseException as error:
        rest.raised = _failed(connection, event, error) or rest.raised


def _post_deferred(call: Call) -> None:
    """Deliver what a subscriber emitted to itself while it was called."""
    while deferred := next_deferred(call):
        connection, sender, event = deferred
        _post(connection, sender, event, Rest())


def await_rest(guarded: tuple[Connection, ...], sender: object, event: Event, rest: Rest | None) -> Awaitable[None] | None:
    """Run the async subscribers that never suspend here and now, the others in tasks of their own; return the wait for those.

    A subscriber that suspends gets a task, because its scopes and time-outs belong to the task that it began in: so it can
    neither swallow the app's cancellation nor be taken for it, and goes on when the app has to leave.
    """
    if rest is None and len(guarded) == 1 and guarded[0].is_brief and not _is_behind(guarded[0]):
        _run_brief(guarded[0], sender, event)
        return None
    outer = open_call(get_call())
    errors: list[BaseException] = []
    wakeups: list[Wakeup] = []
    call: Call | None = None
    if rest is not None:
        errors += [rest.raised] if rest.raised is not None else []
        wakeups += [_in_own_task(connection, event, result, errors, outer) for connection, result in rest.awaitables]
    try:
        for connection in guarded:
            if outer is not None and defer(outer, connection, sender, event):
                continue
            call = [connection.subscription, outer]
            set_call(call)
            try:
                result = connection.call(sender, event)
                if connection.is_brief and not _is_behind(connection):
                    next(result.__await__(), None)
                    next(connection.delivered)
                elif isawaitable(result):
                    wakeups.append(_in_own_task(connection, event, result, errors, outer))
                elif result is not UNCOUNTED:
                    next(connection.delivered)
            except BaseException as error:
                _noted_error(connection, event, error, errors)
            if len(call) == 2:
                call[0] = None
            else:
                _post_deferred(call)
    finally:
        if call is not None:  # an interrupt must not leave a call open for ever
            call[0] = None
    if wakeups:
        return _heard(wakeups, errors)
    if errors:
        raise errors[0]
    return None


def _run_brief(connection: Connection, sender: object, event: Event) -> None:
    """Run the only subscriber, which never suspends and so cannot await what it says to itself: the path of most."""
    try:
        next(connection.call(sender, event).__await__(), None)
    except BaseException as error:
        if (raised := _failed(connection, event, error)) is not None:
            raise raised from None
    else:
        next(connection.delivered)


def _is_behind(connection: Connection) -> bool:
    """Whether the subscriber still has something to hear that came before."""
    lane = connection.subscription.lane
    return lane is not None and lane.is_busy


def _noted_error(connection: Connection, event: Event, error: BaseException, errors: list[BaseException]) -> None:
    raised = _failed(connection, event, error)
    if raised is not None:
        errors.append(raised)


async def _heard(wakeups: list[Wakeup], errors: list[BaseException]) -> None:
    for finished in wakeups:
        await finished.wait()
    if errors:
        raise errors[0]


def _in_own_task(
    connection: Connection, event: Event, awaitable: Any, errors: list[BaseException], outer: Call | None
) -> Wakeup:
    """Have an awaitable awaited in a task of its own, or behind what came before; return what is set when it was."""
    finished = loops.Wakeup()
    loop = loops.current_loop()
    if loop is None or _is_behind(connection):
        _put_behind(connection, event, awaitable, finished)
        return finished
    subscription = connection.subscription
    call: Call = [subscription, outer]

    async def hear() -> None:
        set_call(call)
        try:
            try:
                await _hear(connection, event, awaitable, errors)
            finally:
                subscription.ended.add()
            while deferred := next_deferred(call):
                connection_, sender, said = deferred
                await _hear(connection_, said, connection_.call(sender, said), [])
        finally:
            call[0] = None
            finished.set()

    def lost() -> None:
        """Count it as dropped when the loop cancelled the task before its first step."""
        if call[0] is not None:
            call[0] = None
            close = getattr(awaitable, "close", None)
            if close is not None:
                close()
            subscription.drop("loop_closed")
            subscription.ended.add()
            finished.set()

    try:
        loop.spawn(hear, copy_context(), on_end=lost)
        subscription.begun.add()
    except loops.LoopClosed:
        _put_behind(connection, event, awaitable, finished)
    return finished


def _put_behind(connection: Connection, event: Event, awaitable: Any, finished: Wakeup) -> None:
    lane = lanes.lane_of(connection.subscription)
    lane.put(connection, event, awaitable)
    if lane.missed_deadline:  # nobody waits for it again until it is empty
        finished.set()
    else:
        lane.mark(finished.set)


async def _hear(connection: Connection, event: Event, awaitable: Any, errors: list[BaseException]) -> None:
    try:
        if isawaitable(awaitable):
            await awaitable
    except BaseException as error:
        if loops.is_being_cancelled():  # nobody else knows this task: the loop is closing
            connection.subscription.drop("loop_closed")
            raise
        _noted_error(connection, event, error, errors)
    else:
        if awaitable is not UNCOUNTED:
            next(connection.delivered)


def _failed(connection: Connection, event: Event, error: BaseException) -> BaseException | None:
    """Count and report a failure; return it when the emitter is to see it. An interrupt is the app's: it goes on up."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    connection.subscription.fail(event, error)
    # Where the app is failing already, its own exception wins.
    return error if connection.subscription.raise_error and not isinstance(event, Failed) else None


def _queue(connection: Connection, event: Event, result: Any) -> None:
    """Have an awaitable that came up in sync code awaited, in order."""
    if not isawaitable(result):
        next(connection.delivered)
        return
    lane = lanes.lane_of(connection.subscription)
    lane.put(connection, event, result)
    if event.run is not None and loops.current_loop() is None:
        root = event.run._root()
        if root._queued_on is None:
            root._queued_on = set()
        root._queued_on.add(lane)


def wait_for_queued(run: Run) -> None:
    """Wait, at the end of the outermost run of a thread without a loop, for what its trace queued."""
    waiting = [lane for lane in list(run._queued_on or ()) if not lane.missed_deadline]
    for lane in lanes.wait_for(waiting, lanes.PATIENCE_S):
        lane.missed_deadline = True


def deliver_shielded(plan: Plan, sender: object, event: Event) -> Awaitable[None] | None:
    """Deliver from a task that is being cancelled: what must be awaited, under a shield for at most the delivery deadline."""
    if not plan.has_guarded:
        return deliver_async(plan, sender, event)
    if loops.current_loop() is None:  # the collector closes a generator after its loop has gone
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
        payload.snapshot(None)  # loads it now: a lock of the import system that another thread holds outlives a fork
        connection.call = connection.post = functools.partial(_enqueue, connection, lane, receiver)
        connection.is_plain = False
    return connection


async def _hear_in_thread(receiver: Receiver, sender: object, event: Event) -> None:
    # A thread that blocks cannot be cancelled; the app that is cancelled does not wait for it.
    result = await to_thread.run_sync(functools.partial(receiver, sender, event=event), abandon_on_cancel=True)
    if isawaitable(result):
        await result


def _enqueue(connection: Connection, lane: Lane, receiver: Receiver, sender: object, event: Event) -> object:
    said = snapshot_of(event)
    lane.put(connection, said, functools.partial(receiver, sender, event=said))
    return UNCOUNTED


def queue_behind(subscription: Subscription, receiver: Receiver) -> Callable[..., object]:
    """Wrap a sync receiver of a subscriber that also has async ones: it waits its turn behind what they still have to hear."""
    lane = lanes.lane_of(subscription)
    connection = Connection(subscription, receiver)

    def hear(sender: object, event: Event) -> object:
        if not lane.is_busy:
            return receiver(sender, event=event)
        lane.put(connection, event, functools.partial(receiver, sender, event=event))
        return UNCOUNTED

    return hear
