"""How an async subscriber is awaited in the app's own task: by stepping its coroutine by hand.

Most subscribers never suspend; one step finds that out without a task, a scheduler or a scope. One that suspends is
stepped on from an awaitable of the emitter. What must hold there: a subscriber cannot swallow the app's cancellation,
and cannot hold the app up once it was cancelled.
"""

from __future__ import annotations

import math
import types
from collections.abc import Generator
from typing import Any, NamedTuple

import anyio

from . import loops
from .loops import Wakeup

__all__ = ["Outcome", "drive"]

GRACE_S = 0.05
"""How long a subscriber that goes on after a cancellation is waited for, in seconds: it may have been its own time-out
that fired, and only its end will tell."""


class Outcome(NamedTuple):
    """How a driven subscriber ended.

    ``value`` is what it returned, ``error`` what it raised, ``cancellation`` the exception that cancels the app and that
    the subscriber did not pass on.
    """

    value: object = None
    error: BaseException | None = None
    cancellation: BaseException | None = None


async def drive(steps: Any, yielded: object) -> Outcome:
    """Step a suspended subscriber to its end in this task, or until the app is cancelled."""
    watch = _Watch()
    outcome = await _go_on(steps, yielded, watch)
    if isinstance(outcome, Outcome):
        return outcome._replace(cancellation=watch.cancellation())
    return await _leave_alone(steps, outcome, watch)


class _Watch:
    """Notices that the app's task was asked to end while a subscriber ran in it."""

    def __init__(self) -> None:
        self.loop = loops.current_loop()
        self.thrown: BaseException | None = None
        self._before = self._count()

    def _count(self) -> int:
        return 0 if self.loop is None else self.loop.cancel_count()

    def goes_on_regardless(self) -> bool:
        """Whether a subscriber that suspends again does so in a task that should end.

        Never on trio: it cancels every further checkpoint by itself, and a suspended coroutine belongs to its task.
        """
        return self.thrown is not None and self._count() > self._before

    def cancellation(self) -> BaseException | None:
        """Return what cancelled the app, once the subscriber is done."""
        if self.thrown is None or self.loop is None:
            return None
        if self.loop.is_asyncio:
            return self.thrown if self._count() > self._before else None
        is_cancelled = isinstance(self.thrown, anyio.get_cancelled_exc_class())
        return self.thrown if is_cancelled and anyio.current_effective_deadline() == -math.inf else None


@types.coroutine
def _go_on(steps: Any, yielded: object, watch: _Watch) -> Generator[Any, Any, object]:
    """Hand through what the loop sends and throws; return the Outcome, or what was yielded when it must be left alone."""
    while True:
        thrown: BaseException | None = None
        sent: Any = None
        try:
            sent = yield yielded
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:
            thrown = watch.thrown = error
        try:
            yielded = steps.send(sent) if thrown is None else steps.throw(thrown)
        except StopIteration as end:
            return Outcome(value=end.value)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return Outcome(error=error)
        if thrown is not None and watch.goes_on_regardless():
            return yielded


async def _leave_alone(steps: Any, yielded: object, watch: _Watch) -> Outcome:
    """Let the subscriber finish in a task of its own."""
    assert watch.loop is not None
    finished = Wakeup()
    outcomes: list[Outcome] = []

    async def finish() -> None:
        outcome = await _go_on(steps, yielded, _Watch())
        outcomes.extend([outcome] if isinstance(outcome, Outcome) else [])
        finished.set()

    watch.loop.spawn(finish)
    try:
        with anyio.move_on_after(GRACE_S, shield=True):
            await finished.wait()
    except anyio.get_cancelled_exc_class():
        pass  # asked to end once more
    cancellation = watch.cancellation()
    if outcomes:
        return outcomes[0]._replace(cancellation=cancellation)
    return Outcome(cancellation=cancellation or watch.thrown)
