"""How a stream is stepped: generators, async generators and other iterators, with a value current during each step only.

A context variable that is set in a generator leaks into whoever consumes it, and cannot be reset from another context. So
it is set before each step and put back after it. What is current inside is remembered from step to step, which lets a
generator hold a ``scope()`` or ``trace()`` block open across its yields.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from . import runs
from .families import ASYNC, MODEL_KINDS, SYNC, Colour, Pending
from .runs import Run, Scope, get_current, innermost, leave, set_current
from .tracing import Source, end_run, fail_run, open_run, say_start, say_token, settle

__all__ = ["TracedLife", "proxy_of", "step_async_generator", "step_generator"]

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

    def begin(self) -> Pending:
        """Open the run, unless the call that made the stream has."""
        if self.run is not None:
            return None
        self.inside = self.run = open_run(self._source, self._outside, self._inputs(), outside_is_sure=True)
        self.run._wants_output = self._kept is not None
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


class _Proxy:
    """A stream that a traced function returned: iterates through the run, and is the original in everything else."""

    def __init__(self, stream: Any, life: TracedLife) -> None:
        self._tracebus_stream = stream
        self._tracebus_life = life
        self._tracebus_steps: Any = None

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Pass for the stream that it stands for."""
        return type(self._tracebus_stream)

    def __getattr__(self, name: str) -> Any:
        """Return what the stream has under this name."""
        return getattr(self._tracebus_stream, name)

    def close(self) -> Any:
        """Close the stream as it is closed, at once or with an awaitable; the run ends with it."""
        result = self._tracebus_stream.close()
        if isinstance(result, Awaitable):
            return self._tracebus_closing(result)
        self._tracebus_life.close_now()
        self._tracebus_forget()
        return result

    def _tracebus_forget(self) -> None:
        """Close our own generator, which waits at a yield and has nothing left to await."""
        if isinstance(self._tracebus_steps, AsyncGenerator):
            try:
                self._tracebus_steps.aclose().__await__().send(None)
            except StopIteration:
                pass

    async def _tracebus_closing(self, closing: Awaitable[Any]) -> Any:
        try:
            return await closing
        finally:
            await self._tracebus_aend()

    async def _tracebus_aend(self) -> None:
        if self._tracebus_steps is not None:
            await self._tracebus_steps.aclose()
        pending = self._tracebus_life.closed()
        if pending is not None:
            await pending


class StreamProxy(_Proxy):
    """Stands for an iterator that is no generator."""

    def __iter__(self) -> Self:
        """Iterate the stream."""
        return self

    def __next__(self) -> Any:
        """Return the next item."""
        if self._tracebus_steps is None:
            self._tracebus_life.colour = SYNC
            self._tracebus_steps = step_generator(_from_iterator(self._tracebus_stream), self._tracebus_life)
        return next(self._tracebus_steps)

    def __enter__(self) -> Self:
        """Enter the stream's own context manager."""
        self._tracebus_stream.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        """Leave the stream's own context manager; the run ends here at the latest."""
        try:
            return self._tracebus_stream.__exit__(*error)
        finally:
            self._tracebus_life.close_now()


class AsyncStreamProxy(_Proxy):
    """Stands for an async iterator that is no generator."""

    def __aiter__(self) -> Self:
        """Iterate the stream."""
        return self

    async def __anext__(self) -> Any:
        """Return the next item."""
        if self._tracebus_steps is None:
            self._tracebus_life.colour = ASYNC
            steps = _from_async_iterator(self._tracebus_stream)
            self._tracebus_steps = step_async_generator(steps, self._tracebus_life)
        return await anext(self._tracebus_steps)

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

    async def aclose(self) -> Any:
        """Close the stream, and with it the run."""
        return await self._tracebus_closing(self._tracebus_stream.aclose())


class EitherStreamProxy(StreamProxy, AsyncStreamProxy):
    """Stands for a stream that can be read either way."""


def proxy_of(stream: Any, life: TracedLife) -> _Proxy:
    """Return what stands for a stream, with the ways to read it that it has, and no others."""
    is_async = hasattr(stream, "__aiter__")
    is_sync = hasattr(stream, "__iter__") or hasattr(stream, "__next__")
    if is_async and is_sync:
        return EitherStreamProxy(stream, life)
    return AsyncStreamProxy(stream, life) if is_async else StreamProxy(stream, life)


def _from_iterator(iterable: Iterable[Any]) -> Generator[Any, Any, None]:
    for item in iterable:  # noqa: UP028  # "yield from" would close the stream with us, and that is its owner's to do
        yield item


async def _from_async_iterator(iterable: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    async for item in iterable:
        yield item
