"""What stands for a stream that a traced function returned and that is no generator: ``@traced(stream=True)``.

It iterates through the run, and is the original in everything else. How a stream is stepped is in ``streams``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Generator, Iterable
from typing import Any, Self

from .families import ASYNC, SYNC
from .streams import TracedLife, step_async_generator, step_generator

__all__ = ["proxy_of"]


class _Proxy:
    """What is the same for streams of all kinds."""

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
