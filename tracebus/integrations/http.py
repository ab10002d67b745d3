"""Headers on the requests that an app makes, so that the runs of who serves them continue its trace.

::

    from tracebus.integrations.http import trace_headers

    client = trace_headers(httpx.AsyncClient(), baggage_to=["*.internal"])

Headers leave the process. ``traceparent`` and ``tracestate`` hold ids alone. ``baggage`` holds session, user and tags, and
what others put there: it goes to hosts that are named and to no others, also where one of those redirects to another.

The other side is ``extract()`` or ``TraceMiddleware``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextvars import ContextVar
from fnmatch import fnmatchcase
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from ..errors import ArgumentError
from ..propagation import BAGGAGE, TRACEPARENT, TRACESTATE, inject

__all__ = ["trace_headers", "trace_middleware"]

C = TypeVar("C")

_NAMES: Final = (TRACEPARENT, TRACESTATE, BAGGAGE)
_KEY: Final = "tracebus.headers"
"""Where a request of httpx, and those that it is redirected to, keep what the app itself has written."""

_OwnHeaders = dict[str, str | None]


class _Policy:
    """Says which headers may go to which hosts."""

    def __init__(self, to: Iterable[str], baggage_to: Iterable[str]) -> None:
        self._to = _patterns("to", to)
        self._baggage_to = _patterns("baggage_to", baggage_to)

    def _allowed(self, host: str) -> list[str]:
        is_in = any(fnmatchcase(host.lower(), pattern) for pattern in self._to)
        with_baggage = any(fnmatchcase(host.lower(), pattern) for pattern in self._baggage_to)
        return [*((TRACEPARENT, TRACESTATE) if is_in or with_baggage else ()), *((BAGGAGE,) if with_baggage else ())]

    def write(self, headers: MutableMapping[str, str], host: str, own: _OwnHeaders) -> None:
        """Write what may go to ``host`` into the headers of a request, of which ``own`` are the app's."""
        traced = inject({name: value for name, value in own.items() if value is not None})
        allowed = self._allowed(host)
        for name in _NAMES:
            value = traced.get(name) if name in allowed else own[name]
            if value is not None:
                headers[name] = value
            elif name in headers:
                del headers[name]


def _patterns(name: str, hosts: Iterable[str]) -> tuple[str, ...]:
    if isinstance(hosts, str):
        raise ArgumentError(f"{name}={hosts!r} is one text: give a list of hosts, {name}=[{hosts!r}]")
    return tuple(host.lower() for host in hosts)


def _own(headers: Any) -> _OwnHeaders:
    return {name: headers.get(name) for name in _NAMES}


def trace_headers(client: C, *, to: Iterable[str] = ("*",), baggage_to: Iterable[str] = ()) -> C:
    """Let the requests of ``client`` say which run they are made in; return it.

    It is a client of httpx or httpx2, sync or async, or a session of requests. ``to`` are the hosts that get ``traceparent``
    and ``tracestate``; ``baggage_to`` those that get session, user and tags as well. They are names such as
    ``"api.example.com"``, or patterns such as ``"*.example.com"``.

    Raises ArgumentError for a client that is none of these.
    """
    policy = _Policy(to, baggage_to)
    if hasattr(client, "event_hooks"):
        _add_hook(client, policy)
    elif hasattr(client, "resolve_redirects"):
        _wrap_send(client, policy)
    else:
        hint = ": give it middlewares=[trace_middleware()]" if type(client).__module__.startswith("aiohttp.") else ""
        raise ArgumentError(f"trace_headers() knows clients of httpx and sessions of requests, not {client!r}{hint}")
    return client


# -- httpx -------------------------------------------------------------------------------------------------------------


def _add_hook(client: Any, policy: _Policy) -> None:
    def write(request: Any) -> None:
        # Called for each hop; a redirected request has the headers of the one before it, and its extensions.
        own = request.extensions.get(_KEY)
        if own is None:
            own = request.extensions[_KEY] = _own(request.headers)
        policy.write(request.headers, request.url.host, own)

    async def write_async(request: Any) -> None:
        write(request)

    hooks = client.event_hooks
    is_async = hasattr(client, "aclose")
    client.event_hooks = {**hooks, "request": [*hooks["request"], write_async if is_async else write]}


# -- requests ----------------------------------------------------------------------------------------------------------

_redirected: ContextVar[_OwnHeaders | None] = ContextVar("tracebus_redirected", default=None)
"""What the app itself has written into the request that is being sent here: a redirect sends another one meanwhile."""


def _wrap_send(session: Any, policy: _Policy) -> None:
    send: Callable[..., Any] = session.send

    def send_traced(request: Any, **kwargs: Any) -> Any:
        own = _redirected.get()
        token = _redirected.set(_own(request.headers) if own is None else own)
        try:
            policy.write(request.headers, urlsplit(request.url).hostname or "", _redirected.get() or {})
            return send(request, **kwargs)
        finally:
            _redirected.reset(token)

    session.send = send_traced


# -- aiohttp -----------------------------------------------------------------------------------------------------------


def trace_middleware(
    *, to: Iterable[str] = ("*",), baggage_to: Iterable[str] = ()
) -> Callable[[Any, Callable[[Any], Awaitable[Any]]], Awaitable[Any]]:
    """Return what does so for aiohttp: ``ClientSession(middlewares=[trace_middleware()])``."""
    policy = _Policy(to, baggage_to)

    async def write(request: Any, send: Callable[[Any], Awaitable[Any]]) -> Any:
        # A redirect starts from the app's headers again.
        policy.write(request.headers, request.url.host or "", _own(request.headers))
        return await send(request)

    return write
