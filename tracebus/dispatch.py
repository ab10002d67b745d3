"""How an event reaches its subscribers, from sync and from async code.

Queues are in ``lanes``, awaiting in the app's own task is in ``driving``. Failures of subscribers end here: they are
counted, logged and announced, and do not reach the app unless the subscriber asked for it with ``raise_error``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context
from functools import partial
from threading import get_ident
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import anyio

from .calls import Call, defer, get_call, next_deferred, open_call, set_call
from .events import Event
from .late import driving, lanes, loops, to_thread
from .runs import Run
from .snapshots import snapshot_of
from .subscriptions import QUEUED, Connection, Delivery, Receiver, Subscription

if TYPE_CHECKING:
    from .driving import Outcome
    from .lanes import Lane
    from .loops import Wakeup

__all__ = ["Plan", "connect_receiver", "deliver", "deliver_async", "deliver_shielded", "wait_for_queued"]

DEADLINE_S = 1.0
"""How long the terminal event of a cancelled run may take to be delivered, in seconds."""


class Plan:
    """Whom an event goes to; where it would be nobody, there is None instead of a plan.

    The sync subscribers in the order they connected, then the others: those that are awaited, queued or called in a thread.
    """

    __slots__ = ("connections", "guarded", "plain")

    def __init__(self, connections: Iterable[Connection]) -> None:
        ordered = sorted(connections, key=lambda connection: not connection.is_plain)
        self.connections = tuple(ordered)
        self.plain = tuple(connection for connection in ordered if connection.is_plain)
        self.guarded = tuple(connection for connection in ordered if not connection.is_plain)

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
    if plan.guarded or rest is not None:
        post_rest(plan.guarded, sender, event, rest)


def deliver_async(plan: Plan, sender: object, event: Event) -> Awaitable[None] | None:
    """Deliver from async code; return what remains to be awaited, None when nothing does.

    Raises what a subscriber with ``raise_error`` raised, after all have heard.
    """
    rest = call_plain(plan.plain, sender, event)
    if plan.guarded or rest is not None:
        return step_rest(plan.guarded, sender, event, rest)
    return None


def stepper(result: Any) -> Any:
    """Return what of an awaitable can be stepped with ``send`` and ``throw``, or None when ``result`` is a plain value."""
    if isinstance(result, CoroutineType):
        return result
    make = getattr(type(result), "__await__", None)
    return None if make is None else make(result)


class Rest:
    """What is left when everybody has been called: awaitables that came up, and what to raise."""

    __slots__ = ("awaitables", "raised")

    def __init__(self) -> None:
        self.awaitables: list[tuple[Connection, Any]] = []
        self.raised: BaseException | None = None


def call_plain(plain: tuple[Connection, ...], sender: object, event: Event) -> Rest | None:
    """Call the sync subscribers; None when all have heard and nothing is left.

    What a subscriber emits to itself waits until its call returns: ``callers`` says in which threads it is being called,
    each with what waits there. This is the path of every event.
    """
    rest: Rest | None = None
    thread = get_ident()
    for connection in plain:
        callers = connection.callers
        if thread in callers:
            callers[thread] = [*(callers[thread] or ()), (connection, sender, event)]
            continue
        try:
            callers[thread] = late = None
            result = connection.post(sender, event=event)
            if result is None:
                connection.delivered()
            else:
                rest = _noted(connection, result, rest)
        except BaseException as error:
            rest = _noted_failure(connection, event, error, rest)
        finally:
            late = callers[thread]
            del callers[thread]
        if late is not None:
            _call_late(late)
    return rest


def _noted(connection: Connection, result: object, rest: Rest | None) -> Rest | None:
    """Keep an awaitable for later; any other value that a subscriber returns is nobody's business."""
    if stepper(result) is None:
        connection.delivered()
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


def _call_late(late: list[Any]) -> None:
    """Deliver what a subscriber emitted to itself, one after the other, with what they emit in turn behind them."""
    waiting = deque(late)
    while waiting:
        connection, sender, event = waiting.popleft()
        callers = connection.callers
        try:
            callers[get_ident()] = None
            result = connection.post(sender, event=event)
            if stepper(result) is None:
                connection.delivered()
            else:
                _queue(connection, event, result)
        except BaseException as error:
            _failed(connection, event, error)
        finally:
            waiting.extend(callers.pop(get_ident(), None) or ())


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
        result = connection.post(sender, event=event)
        if result is None:
            connection.delivered()
        elif result is not QUEUED:
            _queue(connection, event, result)
    except BaseException as error:
        rest.raised = _failed(connection, event, error) or rest.raised


def _post_deferred(call: Call) -> None:
    """Deliver what a subscriber emitted to itself while it was called."""
    while deferred := next_deferred(call):
        connection, sender, event = deferred
        _post(connection, sender, event, Rest())


def step_rest(
    guarded: tuple[Connection, ...], sender: object, event: Event, rest: Rest | None
) -> Awaitable[None] | None:
    """Step what must be awaited by hand; the first that suspends is left to the emitter, the others go beside it."""
    outer = get_call()
    if outer is not None and outer[0] is None:
        outer = open_call(outer[1])
    raised: BaseException | None = None
    suspended: _Suspended | None = None
    beside: list[tuple[Connection, Any]] | None = None
    call: Call | None = None
    if rest is not None:  # what sync subscribers returned waits until all have heard
        raised, beside = rest.raised, rest.awaitables
    try:
        for connection in guarded:
            if outer is not None and defer(outer, connection, sender, event):
                continue
            if suspended is not None:
                beside = [*(beside or ()), (connection, None)]
                continue
            call = [connection.subscription, outer]
            set_call(call)
            try:
                result = connection.call(sender, event=event)
                if result is not QUEUED:
                    suspended = _first_step(connection, call, event, result)
            except BaseException as error:
                raised = _failed(connection, event, error) or raised
            if suspended is not None:
                call = None  # it goes on
            elif len(call) == 2:
                call[0] = None
            else:
                _post_deferred(call)
    finally:
        if call is not None:  # an interrupt must not leave a call open for ever
            call[0] = None
    if suspended is not None or beside:
        return _finish(suspended, beside or [], sender, event, raised)
    if raised is not None:
        raise raised
    return None


class _Suspended:
    """A subscriber that awaits something, in a call that is not over."""

    __slots__ = ("call", "connection", "steps", "yielded")

    def __init__(self, connection: Connection, call: Call, steps: Any, yielded: object) -> None:
        self.connection = connection
        self.call = call
        self.steps = steps
        self.yielded = yielded


def _first_step(connection: Connection, call: Call, event: Event, result: Any) -> _Suspended | None:
    """Run an awaitable up to where it suspends; None when it never does, or was none."""
    steps = result if type(result) is CoroutineType else stepper(result)
    if steps is None:
        connection.delivered()
        return None
    lane = connection.subscription.lane
    if lane is not None and lane.is_busy:  # what came before goes first
        lane.put(connection, event, result)
        steps = stepper(_reached(lane))
    try:
        yielded = steps.send(None)
    except StopIteration as end:
        if end.value is not QUEUED:
            connection.delivered()
        return None
    return _Suspended(connection, call, steps, yielded)


async def _reached(lane: Lane) -> object:
    if not lane.missed_deadline:
        lane.missed_deadline = bool(await lanes.wait_for_async([lane], lanes.PATIENCE_S))
    return QUEUED


async def _finish(
    suspended: _Suspended | None,
    beside: list[tuple[Connection, Any]],
    sender: object,
    event: Event,
    raised: BaseException | None,
) -> None:
    """Await the one that suspended in this task, and the others beside it in tasks of their own."""
    errors: list[BaseException] = [] if raised is None else [raised]
    wakeups = [_in_own_task(connection, result, sender, event, errors) for connection, result in beside]
    if suspended is not None:
        await _in_place(suspended, event, errors)
    for finished in wakeups:
        await finished.wait()
    if errors:
        raise errors[0]


async def _in_place(suspended: _Suspended, event: Event, errors: list[BaseException]) -> None:
    call = suspended.call
    set_call(call)
    try:
        outcome = await driving.drive(suspended.steps, suspended.yielded)
        _settle(suspended.connection, event, outcome, errors)
        await _await_deferred(call)
        if outcome.cancellation is not None:
            raise outcome.cancellation
    finally:
        call[0] = None


def _settle(connection: Connection, event: Event, outcome: Outcome, errors: list[BaseException]) -> None:
    if outcome.error is None:
        if outcome.value is not QUEUED:
            connection.delivered()
    elif outcome.error is outcome.cancellation:
        connection.subscription.drop("cancelled")
    elif (error := _failed(connection, event, outcome.error)) is not None:
        errors.append(error)


def _in_own_task(
    connection: Connection, result: Any, sender: object, event: Event, errors: list[BaseException]
) -> Wakeup:
    """Let a subscriber hear in a task of its own; return what is set when it has."""
    finished = loops.Wakeup()
    call: Call = [connection.subscription, open_call(get_call())]

    async def hear() -> None:
        set_call(call)
        try:
            awaitable = connection.call(sender, event=event) if result is None else result
            value = await awaitable
        except BaseException as error:
            if loops.is_being_cancelled():
                connection.subscription.drop("loop_closed")
                raise
            if (reason := _failed(connection, event, error)) is not None:
                errors.append(reason)
        else:
            if value is not QUEUED:
                connection.delivered()
            await _await_deferred(call)
        finally:
            call[0] = None
            finished.set()

    loop = loops.current_loop()
    assert loop is not None, "a subscriber suspended outside of a loop"
    loop.spawn(hear, copy_context())
    return finished


def _failed(connection: Connection, event: Event, error: BaseException) -> BaseException | None:
    """Count and report a failure; return it when the emitter is to see it. An interrupt is the app's: it goes on up."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    connection.subscription.fail(event, error)
    return error if connection.subscription.raise_error else None


async def _await_deferred(call: Call) -> None:
    while deferred := next_deferred(call):
        connection, sender, event = deferred
        try:
            result = connection.call(sender, event=event)
            value = result if stepper(result) is None else await result
        except BaseException as error:
            if loops.is_being_cancelled():
                connection.subscription.drop("cancelled")
                raise
            _failed(connection, event, error)
        else:
            if value is not QUEUED:
                connection.delivered()


def _queue(connection: Connection, event: Event, result: Any) -> None:
    """Have an awaitable that came up in sync code awaited, in order."""
    if stepper(result) is None:
        connection.delivered()
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
    waiting = [lane for lane in run._queued_on or () if not lane.missed_deadline]
    for lane in lanes.wait_for(waiting, lanes.PATIENCE_S):
        lane.missed_deadline = True


async def deliver_shielded(plan: Plan, sender: object, event: Event) -> None:
    """Deliver from a task that is being cancelled: under a shield, for at most the delivery deadline."""
    if loops.current_loop() is None:  # the collector closes a generator after its loop has gone
        deliver(plan, sender, event)
        return
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
    delivery = delivery or subscription.delivery
    if delivery == "thread":
        connection.call = partial(_hear_in_thread, receiver)
        connection.is_plain = False
    elif delivery == "background":
        lane = lanes.lane_of(subscription, in_thread=not connection.is_async)
        connection.call = connection.post = partial(_enqueue, connection, lane, receiver)
        connection.is_plain = False
    return connection


async def _hear_in_thread(receiver: Receiver, sender: object, /, *, event: Event) -> None:
    result = await to_thread.run_sync(partial(receiver, sender, event=event))
    if stepper(result) is not None:
        await result


def _enqueue(connection: Connection, lane: Lane, receiver: Receiver, sender: object, /, *, event: Event) -> object:
    said = snapshot_of(event)
    lane.put(connection, said, partial(receiver, sender, event=said))
    return QUEUED


def queue_behind(subscription: Subscription, receiver: Receiver) -> Callable[..., object]:
    """Wrap a sync receiver of a subscriber that also has async ones: it waits its turn behind what they still have to hear."""
    lane = lanes.lane_of(subscription)
    connection = Connection(subscription, receiver)

    def hear(sender: object, /, *, event: Event) -> object:
        if not lane.is_busy:
            return receiver(sender, event=event)
        lane.put(connection, event, partial(receiver, sender, event=event))
        return QUEUED

    return hear
