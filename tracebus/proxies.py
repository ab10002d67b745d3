"""What stands for a stream that a traced function returned and that is no generator: ``@traced(stream=True)``.

It is read through the run, and is the original in all else that can be seen of it, except for ``type()`` and ``is``. How a
generator is stepped is in ``streams``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final

from . import runs
from .families import ASYNC, SYNC, Colour, Pending
from .runs import Run, get_current, leave, set_current
from .streams import TracedLife

__all__ = ["proxy_of"]


class _Proxy:
    """What is the same for streams of all classes. What Python looks up in the class of a thing is added for each."""

    __slots__ = ("__weakref__", "_tracebus_life", "_tracebus_stream")
    _tracebus_life: TracedLife
    _tracebus_stream: Any

    def __init__(self, stream: Any, life: TracedLife) -> None:
        object.__setattr__(self, "_tracebus_stream", stream)
        object.__setattr__(self, "_tracebus_life", life)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Pass for the stream that it stands for."""
        stream_class: type = self._tracebus_stream.__class__
        return stream_class

    def __getattr__(self, name: str) -> Any:
        """Return what the stream has under this name; what closes the stream ends the run as well."""
        value = getattr(self._tracebus_stream, name)
        return _ending(value, self._tracebus_life) if name in ("close", "aclose") and callable(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        """Set it on the stream."""
        setattr(self._tracebus_stream, name, value)

    def __delattr__(self, name: str) -> None:
        """Delete it from the stream."""
        delattr(self._tracebus_stream, name)

    def _tracebus_of(self, result: Any) -> Any:
        """Stand for an iterator of the stream, as for the stream."""
        return self if result is self._tracebus_stream else proxy_of(result, self._tracebus_life)


def proxy_of(stream: Any, life: TracedLife) -> Any:
    """Return what stands for a stream, with the ways to read it that it has, and no others."""
    kind: type = type(stream)
    return _class_for(kind)(stream, life)


_OUR_OWN: Final = {*vars(_Proxy), "__del__", "__getattribute__", "__init_subclass__", "__new__", "__subclasshook__"}
"""What is not handed on to the stream."""


@functools.lru_cache(maxsize=128)
def _class_for(kind: type) -> type[_Proxy]:
    """Make the class of what stands for streams of one class."""
    ours = vars(_Special)
    namespace: dict[str, Any] = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    namespace["__slots__"] = ()
    for name in dir(kind):
        value = getattr(kind, name, "")
        if name.startswith("__") and name.endswith("__") and name not in _OUR_OWN:
            if callable(value):
                namespace[name] = ours[name] if name in ours else _handed_on(name)
            elif value is None:  # as __hash__ where there is none
                namespace[name] = None
    return type(kind.__name__, (_Proxy,), namespace)


def _handed_on(name: str) -> Callable[..., Any]:
    def method(self: _Proxy, *args: Any, **kwargs: Any) -> Any:
        stream = self._tracebus_stream
        result = getattr(stream, name)(*args, **kwargs)
        return self if result is stream else result

    return method


class _Special(_Proxy):
    """The methods of a stream that are more than handed on to it. A class of streams gets those that it has."""

    __slots__ = ()

    def __iter__(self) -> Any:
        """Iterate the stream, through its own iterator when it has one."""
        return self._tracebus_of(iter(self._tracebus_stream))

    def __aiter__(self) -> Any:
        """Iterate the stream, through its own iterator when it has one."""
        return self._tracebus_of(aiter(self._tracebus_stream))

    def __next__(self) -> Any:
        """Return the next item. A read that raises ends the run; what the stream gives after it is not heard."""
        stream, life = self._tracebus_stream, self._tracebus_life
        if life.is_over:
            return next(stream)
        with _Step(life, SYNC):
            try:
                try:
                    item = next(stream)
                except StopIteration:
                    life.end()
                    raise
                if not life.is_over:  # by a close() in another thread
                    life.item(item)
                return item
            except BaseException as error:
                life.failed(error)
                raise

    async def __anext__(self) -> Any:
        """Return the next item. A read that raises ends the run; what the stream gives after it is not heard."""
        stream, life = self._tracebus_stream, self._tracebus_life
        if life.is_over:
            return await anext(stream)
        with _Step(life, ASYNC):
            try:
                try:
                    item = await anext(stream)
                except StopAsyncIteration:
                    await _heard(life.end())
                    raise
                if not life.is_over:  # by a close() in another task
                    await _heard(life.item(item))
                return item
            except GeneratorExit as error:  # destroyed while it awaited: nothing can be awaited any more
                life.thrown_away(error)
                raise
            except BaseException as error:
                await _heard(life.failed(error))
                raise

    async def __aenter__(self) -> Any:
        """Enter the stream's own context manager."""
        result = await self._tracebus_stream.__aenter__()
        return self if result is self._tracebus_stream else result

    def __exit__(self, *error: Any) -> Any:
        """Leave the stream's own context manager; the run ends here at the latest."""
        return _ending(self._tracebus_stream.__exit__, self._tracebus_life)(*error)

    async def __aexit__(self, *error: Any) -> Any:
        """Leave the stream's own context manager; the run ends here at the latest."""
        return await _ending(self._tracebus_stream.__aexit__, self._tracebus_life)(*error)


class _Step:
    """Makes the run of a stream current around one step."""

    __slots__ = ("_life", "_outside")

    def __init__(self, life: TracedLife, colour: Colour) -> None:
        self._life = life
        life.colour = colour

    def __enter__(self) -> None:
        self._outside = get_current()
        set_current(self._life.inside)
        if runs.finders is not None:
            runs.see_again(self._life.inside)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        life = self._life
        if kind is GeneratorExit and isinstance(life.inside, Run):  # in whose context this happens is not known
            leave(life.inside, self._outside)
            return
        life.inside = get_current()
        set_current(self._outside)
        if life.colour is SYNC:
            life.pause()


async def _heard(pending: Pending) -> None:
    if pending is not None:
        await pending


def _ending(close: Callable[..., Any], life: TracedLife) -> Callable[..., Any]:
    """Return ``close``, with which the run ends as well: at once, or when what it returns has been awaited."""

    def end_now() -> None:
        life.colour = SYNC
        life.close_now()
        life.pause()

    async def finish(closing: Awaitable[Any]) -> Any:
        try:
            return await closing
        except GeneratorExit:  # as above
            life.close_now()
            raise
        finally:
            life.colour = ASYNC
            await _heard(life.closed())

    def end(*args: Any, **kwargs: Any) -> Any:
        result = None
        try:
            result = close(*args, **kwargs)
        finally:
            if not inspect.isawaitable(result):
                end_now()
        return finish(result) if inspect.isawaitable(result) else result

    async def aend(*args: Any, **kwargs: Any) -> Any:
        return await finish(close(*args, **kwargs))

    return functools.wraps(close)(aend if inspect.iscoroutinefunction(close) else end)
