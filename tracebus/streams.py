"""How a stream is stepped: generators, async generators and other iterators, with a value current during each step only.

A context variable that is set in a generator leaks into whoever consumes it, and cannot be reset from another context. So
it is set before each step and put back after it. What is current inside is remembered from step to step, which lets a
generator hold a ``scope()`` or ``trace()`` block open across its yields.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any, Final, Protocol, Self

from .runs import Run, Scope, get_current, set_current
from .tracing import (
    MODEL_KINDS,
    SYNC,
    Colour,
    Pending,
    Source,
    end_run,
    fail_run,
    open_run,
    say_start,
    say_token,
)

__all__ = ["Life", "StreamProxy", "TracedLife", "step_async_generator", "step_generator"]

ITEMS_KEPT: Final = 1_000
"""How many items that are no text are kept as a stream's output; more are only counted."""


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

    failed = item

    def thrown_away(self, error: BaseException) -> None:
        """Do nothing."""


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
        self.inside = run
        self.run = run
        self._source = source
        self._outside = outside
        self._inputs = inputs
        self._colour = colour
        self._token_of = token_of
        self._has_tokens = token_of is not None or source.kind in MODEL_KINDS
        self._kept: list[Any] | None = [] if keep_output else None
        self._is_text = True
        self._more = 0

    def begin(self) -> Pending:
        """Open the run, unless the call that made the stream has."""
        if self.run is not None:
            return None
        self.inside = self.run = open_run(self._source, self._outside, self._inputs())
        self.run._wants_output = self._kept is not None
        return say_start(self.run, self._colour)

    def item(self, item: Any) -> Pending:
        """Keep the item, and say it when it is a token."""
        run = self.run
        assert run is not None
        token: str | None
        if isinstance(item, str):
            token, chunk = item, None
        else:
            token, chunk = None, item
        if self._token_of is not None:
            token, chunk = self._token_of(item), item
        if self._kept is not None:
            self._keep(item if token is None else token)
        return None if token is None or not self._has_tokens else say_token(run, token, chunk, self._colour)

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
        return end_run(self._set_output(), self._colour)

    def closed(self) -> Pending:
        """End the run early, with what there was."""
        return end_run(self._set_output(), self._colour, "closed_early")

    def failed(self, error: BaseException) -> Pending:
        """End the run with the error; ``begin`` may have raised it before there was a run."""
        if self.run is None:
            return None
        return fail_run(self._set_output(), self._colour, error)

    def thrown_away(self, error: BaseException) -> None:
        """End the run as cancelled, from a place where nothing can be awaited."""
        if self.run is not None:
            fail_run(self._set_output(), SYNC, error, "cancelled")

    def __del__(self) -> None:
        """End the run of a stream that nobody closed and no loop finished."""
        if self.run is not None and self.run.status == "open":
            end_run(self._set_output(), SYNC, "closed_early")


def step_generator(steps: Generator[Any, Any, Any], life: Life) -> Generator[Any, Any, Any]:
    """Step a generator through its ``life``, handing through what is sent and thrown (PEP 380)."""
    step: Callable[[Any], Any] = steps.send
    argument: Any = None
    begun = False
    while True:
        outside = get_current()
        set_current(life.inside)
        try:
            if not begun:
                begun = True
                life.begin()
            item = step(argument)
            life.item(item)
        except StopIteration as end:
            life.end()
            return end.value
        except BaseException as error:
            steps.close()  # when it was a subscriber with raise_error that raised
            life.failed(error)
            raise
        finally:
            life.inside = get_current()
            set_current(outside)
        try:
            argument = yield item
            step = steps.send
        except GeneratorExit:
            return _close(steps, life)
        except BaseException as error:
            step, argument = steps.throw, error


def _close(steps: Generator[Any, Any, Any], life: Life) -> Any:
    outside = get_current()
    set_current(life.inside)
    try:
        value = steps.close()
        life.closed()
    except BaseException as error:
        life.failed(error)
        raise
    finally:
        set_current(outside)
    return value


async def step_async_generator(steps: AsyncGenerator[Any, Any], life: Life) -> AsyncGenerator[Any, Any]:
    """Step an async generator through its ``life``, handing through what is sent and thrown."""
    step: Callable[[Any], Awaitable[Any]] = steps.asend
    argument: Any = None
    begun = False
    while True:
        outside = get_current()
        set_current(life.inside)
        ours = True
        try:
            if not begun:
                begun = True
                pending = life.begin()
                if pending is not None:
                    await pending
            item = await step(argument)
            pending = life.item(item)
            if pending is not None:
                await pending
        except StopAsyncIteration:
            pending = life.end()
            if pending is not None:
                await pending
            return
        except GeneratorExit as error:
            ours = False
            life.thrown_away(error)
            raise
        except BaseException as error:
            await steps.aclose()  # when it was a subscriber with raise_error that raised
            pending = life.failed(error)
            if pending is not None:
                await pending
            raise
        finally:
            if ours:
                life.inside = get_current()
                set_current(outside)
        try:
            argument = yield item
            step = steps.asend
        except GeneratorExit:
            await _aclose(steps, life)
            return
        except BaseException as error:
            step, argument = steps.athrow, error


async def _aclose(steps: AsyncGenerator[Any, Any], life: Life) -> None:
    outside = get_current()
    set_current(life.inside)
    try:
        await steps.aclose()
        pending = life.closed()
        if pending is not None:
            await pending
    except BaseException as error:
        pending = life.failed(error)
        if pending is not None:
            await pending
        raise
    finally:
        set_current(outside)


class StreamProxy:
    """A stream that a traced function returned: iterates through the run, and is the original in everything else."""

    def __init__(self, stream: Any, life: Life) -> None:
        self._tracebus_stream = stream
        self._tracebus_life = life
        self._tracebus_steps: Any = None

    def __iter__(self) -> Self:
        """Iterate the stream."""
        return self

    def __next__(self) -> Any:
        """Return the next item."""
        if self._tracebus_steps is None:
            self._tracebus_steps = step_generator(_as_generator(iter(self._tracebus_stream)), self._tracebus_life)
        return next(self._tracebus_steps)

    def __aiter__(self) -> Self:
        """Iterate the stream."""
        return self

    async def __anext__(self) -> Any:
        """Return the next item."""
        if self._tracebus_steps is None:
            steps = _as_async_generator(aiter(self._tracebus_stream))
            self._tracebus_steps = step_async_generator(steps, self._tracebus_life)
        return await anext(self._tracebus_steps)

    def __enter__(self) -> Self:
        """Enter the stream's own context manager."""
        self._tracebus_stream.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        """Leave the stream's own context manager; the run ends here at the latest."""
        try:
            return self._tracebus_stream.__exit__(*error)
        finally:
            self._tracebus_end()

    async def __aenter__(self) -> Self:
        """Enter the stream's own context manager."""
        await self._tracebus_stream.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        """Leave the stream's own context manager; the run ends here at the latest."""
        try:
            return await self._tracebus_stream.__aexit__(*error)
        finally:
            await self._tracebus_aend()

    def close(self) -> Any:
        """Close the stream; in async code the result is the stream's own, to be awaited."""
        result = self._tracebus_stream.close()
        if isinstance(result, Awaitable):
            return self._tracebus_close_async(result)
        self._tracebus_end()
        return result

    async def _tracebus_close_async(self, closing: Awaitable[Any]) -> Any:
        result = await closing
        await self._tracebus_aend()
        return result

    async def aclose(self) -> None:
        """Close the stream."""
        await self._tracebus_stream.aclose()
        await self._tracebus_aend()

    def _tracebus_end(self) -> None:
        if self._tracebus_steps is None:
            self._tracebus_life.closed()
        else:
            self._tracebus_steps.close()

    async def _tracebus_aend(self) -> None:
        if self._tracebus_steps is not None:
            await self._tracebus_steps.aclose()
            return
        pending = self._tracebus_life.closed()
        if pending is not None:
            await pending

    def __getattr__(self, name: str) -> Any:
        """Return what the stream has under this name."""
        return getattr(self._tracebus_stream, name)


def _as_generator(iterator: Iterator[Any]) -> Generator[Any, Any, Any]:
    if isinstance(iterator, Generator):
        return iterator
    return _from_iterator(iterator)


def _from_iterator(iterator: Iterator[Any]) -> Generator[Any, Any, None]:
    yield from iterator


def _as_async_generator(iterator: AsyncIterator[Any]) -> AsyncGenerator[Any, Any]:
    if isinstance(iterator, AsyncGenerator):
        return iterator
    return _from_async_iterator(iterator)


async def _from_async_iterator(iterator: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    async for item in iterator:
        yield item
