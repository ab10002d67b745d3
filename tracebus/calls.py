"""Which async subscribers are being called in this context, so that what one emits to itself waits until its call returns.
For sync ones, which never leave their thread, ``dispatch`` has a cheaper way.

A call in progress is a list ``[subscription, outer call, deferred delivery, …]`` in a context variable. A list, because one is
made for every event and subscriber, and a list costs a third of an object with a name for each place. What is delivered out
of a queue has the lane in the place of the subscription, and defers nothing: the queue is there, and keeps the order.

A finished call is left in the variable, because setting it back would cost as much again: ``call[0]`` is None then, and
``open_call`` looks through it.

Invariant: what is appended while ``call[0]`` is the subscription is delivered by whoever runs the call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from .events import Event
    from .subscriptions import Connection

__all__ = ["Call", "Deferred", "abandon", "calls_around", "defer", "get_call", "next_deferred", "open_call", "set_call"]

Call: TypeAlias = "list[Any]"
Deferred: TypeAlias = "tuple[Connection, object, Event]"

_call: ContextVar[Call | None] = ContextVar("tracebus_call", default=None)
get_call: Final = _call.get
set_call: Final = _call.set


def calls_around() -> Iterator[Call]:
    """Yield the calls that this context is inside of, also those that are finished, from the inside out."""
    call = get_call()
    while call is not None:
        yield call
        call = call[1]


def open_call(call: Call | None) -> Call | None:
    """Return the innermost call that is still in progress."""
    while call is not None and call[0] is None:
        call = call[1]
    return call


def defer(outer: Call, connection: Connection, sender: object, event: Event) -> bool:
    """Leave the delivery to a call of the same subscriber that this context is inside of; False when there is none."""
    call: Call | None = outer
    while call is not None:
        if call[0] is connection.subscription:
            return _hand_over(call, (connection, sender, event))
        call = call[1]
    return False


def _hand_over(call: Call, deferred: Deferred) -> bool:
    call.append(deferred)
    if call[0] is not None:
        return True
    # A thread that inherited this context was late: the call ended in between. One of the two takes it out.
    try:
        call.remove(deferred)
    except ValueError:
        return True
    return False


def abandon(call: Call) -> int:
    """End ``call`` where nobody can run it any more; return how many deliveries it leaves undone."""
    call[0] = None
    left = call[2:]
    del call[2:]
    return len(left)


def next_deferred(call: Call) -> Deferred | None:
    """Return the next delivery that waits for the end of ``call``; None ends the call for good."""
    if len(call) == 2:
        call[0] = None
        if len(call) == 2:
            return None
    deferred: Deferred = call.pop(2)
    return deferred
