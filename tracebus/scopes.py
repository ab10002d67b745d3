"""What everything started inside inherits: ``scope()``, as a block and as a wrapper of callables of any kind."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

from .errors import ArgumentError
from .handlers import Callback, route_of
from .runs import RemoteParent, Run, Scope, current_scope, get_current, innermost, leave_scope, set_current
from .streams import ScopedLife, step_async_generator, step_generator
from .tracing import check_metadata, check_tags

__all__ = ["InnerScope", "scope"]

P = ParamSpec("P")
R = TypeVar("R")


class scope:  # reads as a statement: with scope(user_id="u-1"):
    """Let everything that starts inside inherit callbacks, tags, metadata, a session and a user.

    Use it as a block, ``with scope(callbacks=[handler], session_id="s-1"):`` (or ``async with``), as often as you like and
    from many tasks at once; or wrap a callable of any kind for one request: ``scope(callbacks=[handler])(answer)(question)``.
    A nested scope adds to the outer one: tags and callbacks are joined, metadata merged, ids replaced.

    A wrapped callable is inside until it returns: coroutines to their end, generators in each step. What it returns to be
    worked off later, such as a ``map`` or an awaitable object, works outside; wrap what that calls, or use the block.

    Raises SubscriberError for a callback that cannot hear, ArgumentError for tags that are no list of texts.
    """

    def __init__(
        self,
        *,
        callbacks: Iterable[Callback] = (),
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
    ) -> None:
        for name, value in (("session_id", session_id), ("user_id", user_id)):
            if value is not None and not isinstance(value, str):
                raise ArgumentError(f"{name}={value!r} is no text: give {name}=str(...)")
        self._route = route_of(callbacks)
        self._tags = check_tags(tags)
        self._metadata = check_metadata(metadata)
        self._session_id = session_id
        self._user_id = user_id

    def _inner(self) -> Scope:
        outer = current_scope()
        current = innermost()
        route = outer.route
        if self._route is not None:
            route = self._route if route is None else route.with_inner(self._route)
        return Scope(
            current.run if isinstance(current, Scope) else current,
            route=route,
            tags=tuple(dict.fromkeys((*outer.tags, *self._tags))),
            metadata={**outer.metadata, **self._metadata} if outer.metadata else self._metadata,
            session_id=self._session_id if self._session_id is not None else outer.session_id,
            user_id=self._user_id if self._user_id is not None else outer.user_id,
            remote=outer.remote,
            owner=self,
            outside=get_current(),
        )

    def __enter__(self) -> Self:
        """Open the scope for this context."""
        set_current(self._inner())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the scope, also when something inside was left open. In another context nothing changes."""
        leave_scope(self)

    async def __aenter__(self) -> Self:
        """Open the scope for this context."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the scope."""
        self.__exit__(kind, error, trace)

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Return ``fn`` wrapped so that each call, to the end of its stream, happens inside this scope."""
        if isinstance(fn, (staticmethod, classmethod)):
            return cast("Callable[P, R]", type(fn)(self(fn.__func__)))
        if not callable(fn):
            raise ArgumentError(f"scope(...)(fn) wraps a callable, not {fn!r}")
        return functools.wraps(fn)(self._wrapper(fn)) if hasattr(fn, "__name__") else self._wrapper(fn)

    def _wrapper(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        target = fn if inspect.isroutine(fn) or isinstance(fn, functools.partial) else type(fn).__call__
        if inspect.iscoroutinefunction(target):

            async def run(*args: Any, **kwargs: Any) -> Any:
                return await self._awaited(fn(*args, **kwargs))

            return run

        def call(*args: Any, **kwargs: Any) -> Any:
            with self:
                result = fn(*args, **kwargs)
                return self._awaited(result) if inspect.iscoroutine(result) else _accompanied(result)

        return call

    async def _awaited(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        with self:
            return _accompanied(await coroutine)


class InnerScope(Scope):
    """A scope that hands on all that it inherits from ``around``, but for ids that are given.

    Which run and which parent elsewhere it is in, and what is outside of it, is its own.
    """

    __slots__ = ()

    def __init__(
        self,
        around: Scope,
        run: Run | None,
        *,
        remote: RemoteParent | None,
        outside: Run | Scope | None,
        session_id: str | None = None,
        user_id: str | None = None,
    ) -> None:
        super().__init__(
            run,
            route=around.route,
            tags=around.tags,
            metadata=around.metadata,
            session_id=session_id or around.session_id,
            user_id=user_id or around.user_id,
            remote=remote,
            outside=outside,
        )


def _accompanied(result: Any) -> Any:
    """Step a stream inside the scope that is current; anything else is what it is."""
    life = ScopedLife(get_current())
    if inspect.isgenerator(result):
        return step_generator(result, life)
    return step_async_generator(result, life) if inspect.isasyncgen(result) else result
