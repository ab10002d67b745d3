"""How a stream is stepped: generators and async generators, with a value current during each step only. What stands for an
iterator that is neither is in ``proxies``.

A context variable that is set in a generator leaks into whoever consumes it, and cannot be reset from another context. So
it is set before each step and put back after it. What is current inside is remembered from step to step, which lets a
generator hold a ``scope()`` or ``trace()`` block open across its yields.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Final, Protocol

from . import runs
from .families import MODEL_KINDS, SYNC, Colour, Pending
from .runs import Run, Scope, get_current, innermost, leave, set_current
from .tracing import Source, end_run, fail_run, open_run, say_start, say_token, settle

__all__ = ["ScopedLife", "TracedLife", "step_async_generator", "step_generator"]

ITEMS_KEPT: Final = 1_000
"""How many items that are no text are kept as a stream's output; more are only counted."""


if TYPE_CHECKING:  # nobody needs it at run time, and a protocol takes long to make

    class Life(Protocol):
        """What accompanies a stream. ``inside`` is current during each step; the methods return what is left to await."""

        inside: Run | Scope | None

        def begin(self) -> Pending:
            """Precede the first step."""

        def item(self, item: Any) -> Pending:
            """Hear what was yielded."""

        def end(self) -> Pending:
            """Hear that the stream was consumed."""

        def closed(self) -> Pending:
            """Hear that its consumer closed it."""

        def failed(self, error: BaseException) -> Pending:
            """Hear that it raised."""

        def thrown_away(self, error: BaseException) -> None:
            """Hear that it was destroyed in the middle of a step, where nothing can be awaited."""

        def close_now(self) -> None:
            """Hear that its consumer closed it, in a place where nothing can be awaited."""

        def pause(self) -> None:
            """Hear that a step in sync code is over."""


class ScopedLife:
    """Steps a stream inside a scope and says nothing."""

    def __init__(self, inside: Run | Scope | None) -> None:
        self.inside = inside

    def begin(self) -> Pending:
        """Do nothing, as all of these."""
        return None

    end = closed = begin

    def item(self, item: Any) -> Pending:
        """Do nothing."""
        return None

    def failed(self, error: BaseException) -> Pending:
        """Do nothing."""
        return None

    def thrown_away(self, error: BaseException) -> None:
        """Do nothing."""

    def close_now(self) -> None:
        """Do nothing."""

    pause = close_now


class TracedLife:
    """The run of a stream. It opens at the first step, with parent and scope of the call that made the stream."""

    def __init__(
        self,
        source: Source,
        outside: Run | Scope | None,
        inputs: Callable[[], Any],
        colour: Colour,
        *,
        token_of: Callable[[Any], str | None] | None,
        keep_output: bool,
        run: Run | None = None,
    ) -> None:
        self.inside: Run | Scope | None = run
        self.run = run
        self._source = source
        self._outside = innermost() if runs.finders is not None else outside
        self._inputs = inputs
        self.colour = colour
        self._token_of = token_of
        self._has_tokens = token_of is not None or source.kind in MODEL_KINDS
        self._kept: list[Any] | None = [] if keep_output else None
        self._is_text = True
        self._more = 0

    @property
    def is_over(self) -> bool:
        """Tell whether the run has ended: nothing is said after that."""
        return self.run is not None and self.run.status != "open"

    def begin(self) -> Pending:
        """Open the run, unless the call that made the stream has."""
        if self.run is not None:
            return None
        self.inside = self.run = open_run(self._source, self._outside, self._inputs(), outside_is_sure=True)
        return say_start(self.run, self.colour)

    def item(self, item: Any) -> Pending:
        """Keep the item, and say it when it is a token."""
        run = self.run
        assert run is not None
        if self._token_of is not None:
            return self._chunk(run, item, self._token_of)
        if self._kept is not None:
            self._keep(item)
        return say_token(run, item, None, self.colour) if self._has_tokens and isinstance(item, str) else None

    def _chunk(self, run: Run, chunk: Any, token_of: Callable[[Any], str | None]) -> Pending:
        try:
            token = token_of(chunk)
        except Exception as error:
            run.metadata["token_error"] = f"the token= function of {run.name} raised {type(error).__name__}"
            return None
        if not isinstance(token, str):
            return None
        if self._kept is not None:
            self._kept.append(token)
        return say_token(run, token, chunk, self.colour)

    def _keep(self, item: Any) -> None:
        kept = self._kept
        assert kept is not None
        if not isinstance(item, str):
            self._is_text = False
        if self._is_text or len(kept) < ITEMS_KEPT:
            kept.append(item)
        else:
            self._more += 1

    def _set_output(self) -> Run:
        run = self.run
        assert run is not None
        if run.output is None and self._kept:
            run.output = "".join(self._kept) if self._is_text else self._kept
        if self._more:
            run.metadata["items_not_kept"] = self._more
        return run

    def end(self) -> Pending:
        """End the run."""
        return end_run(self._set_output(), self.colour)

    def closed(self) -> Pending:
        """End the run early, with what there was."""
        if self.run is None:
            return None
        return end_run(self._set_output(), self.colour, "closed_early")

    def failed(self, error: BaseException) -> Pending:
        """End the run with the error; ``begin`` may have raised it before there was a run."""
        if self.run is None:
            return None
        return fail_run(self._set_output(), self.colour, error)

    def thrown_away(self, error: BaseException) -> None:
        """End the run as cancelled, from a place where nothing can be awaited."""
        if self.run is not None:
            fail_run(self._set_output(), SYNC, error, "cancelled")

    def close_now(self) -> None:
        """End the run early, from a place where nothing can be awaited."""
        if self.run is not None:
            end_run(self._set_output(), SYNC, "closed_early")

    def pause(self) -> None:
        """Wait, at the end of an outermost stream in sync code, for what its trace left in queues."""
        if self.run is not None and self.run.status != "open":
            settle(self.run)

    def __del__(self) -> None:
        """End the run of a stream that nobody closed and no loop finished."""
        if self.run is not None and self.run.status == "open":
            try:
                self.close_now()
                self.pause()
            except Exception:
                pass  # raise_error: reported where it was raised; there is nobody here to see it


def step_generator(steps: Generator[Any, Any, Any], life: Life) -> Generator[Any, Any, Any]:
    """Step a generator through its ``life``, handing through what is sent and thrown (PEP 380)."""
    step: Callable[[Any], Any] = steps.send
    argument: Any = None
    begun = closing = False
    while True:
        outside = get_current()
        set_current(life.inside)
        if runs.finders is not None:
            runs.see_again(life.inside)
        try:
            if not begun:
                begun = True
                life.begin()
            try:
                item = step(argument)
            except StopIteration as end:
                life.closed() if closing else life.end()
                return end.value
            except GeneratorExit:
                if not closing:
                    raise
                life.closed()
                raise
            life.item(item)
        except BaseException as error:
            try:
                steps.close()  # when it was a subscriber with raise_error that raised
            finally:
                life.failed(error)
            raise
        finally:
            life.inside = get_current()
            set_current(outside)
            life.pause()
        try:
            argument = yield item
            step, closing = steps.send, False
        except BaseException as error:
            step, argument, closing = steps.throw, error, isinstance(error, GeneratorExit)


async def step_async_generator(steps: AsyncGenerator[Any, Any], life: Life) -> AsyncGenerator[Any, Any]:
    """Step an async generator through its ``life``, handing through what is sent and thrown."""
    step: Callable[[Any], Awaitable[Any]] = _first_step_of(steps)
    argument: Any = None
    begun = closing = False
    while True:
        outside = get_current()
        set_current(life.inside)
        if runs.finders is not None:
            runs.see_again(life.inside)
        thrown_away = False
        try:
            if not begun:
                begun = True
                pending = life.begin()
                if pending is not None:
                    await pending
            try:
                item = await step(argument)
            except StopAsyncIteration:
                pending = life.closed() if closing else life.end()
                if pending is not None:
                    await pending
                return
            except GeneratorExit as error:
                if error is not argument:  # destroyed while it awaited: nothing can be awaited any more
                    thrown_away = True
                    life.thrown_away(error)
                    raise
                pending = life.closed()
                if pending is not None:
                    await pending
                raise
            pending = life.item(item)
            if pending is not None:
                await pending
        except BaseException as error:
            if not thrown_away:
                pending = await _end_failed(steps, life, error)
                if pending is not None:
                    await pending
            raise
        finally:
            if not thrown_away:
                life.inside = get_current()
                set_current(outside)
            elif isinstance(life.inside, Run):  # in whose context this happens is not known
                leave(life.inside, outside)
        try:
            argument = yield item
            step, closing = steps.asend, False
        except BaseException as error:
            step, argument, closing = steps.athrow, error, isinstance(error, GeneratorExit)


async def _end_failed(steps: AsyncGenerator[Any, Any], life: Life, error: BaseException) -> Pending:
    try:
        await steps.aclose()  # when it was a subscriber with raise_error that raised
    except BaseException:
        pending = life.failed(error)
        if pending is not None:
            await pending
        raise
    return life.failed(error)


def _first_step_of(steps: AsyncGenerator[Any, Any]) -> Callable[[Any], Awaitable[Any]]:
    """Return the first ``asend``, made so that the event loop does not come to know the inner generator.

    It closes those that it knows when it shuts down, all at once; the inner one is ours to close, in its run.
    """

    def asend(value: Any) -> Awaitable[Any]:
        before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=_leave_to_us)
        try:
            return steps.asend(value)
        finally:
            sys.set_asyncgen_hooks(*before)

    return asend


def _leave_to_us(_: AsyncGenerator[Any, Any]) -> None:
    """Do nothing for a generator that the collector finds: whoever steps it is collected with it."""
