"""The viewer as an ASGI app: its routes, and what is around all of them."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias

import msgspec

from ..errors import MissingExtraError, TracebusError

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
except ImportError as error:
    raise MissingExtraError('the viewer needs starlette: pip install "tracebus[viewer]"') from error

from ..outputs.store import NoStoreYetError, Reader
from .api import ANSWERS, Answer
from .assets import Assets
from .gate import Gate, checked_token
from .guard import Guard, Hosts
from .headers import Headers
from .live import Live
from .openapi import description
from .pages import Pages
from .questions import Nothing, Since, read
from .source import Source

__all__ = ["viewer"]

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


def viewer(
    store: Reader | str | os.PathLike[str] | None = None, *, token: str | None = None, hosts: Iterable[str] = ()
) -> Starlette:
    """Return the viewer of a store as an ASGI app, to be served or to be mounted in another one.

    ``store`` is where it lies, or a reader of it, None for the default one; it may be made later. Whoever can reach the app
    sees every run and may delete it, unless a ``token`` is wanted: then only who has opened an address with ``?token=…``.
    ``hosts`` are names under which it is asked for beside ``localhost`` and loopback addresses; with a token, any IP address
    is one, too.

    Raises ArgumentError for a token of less than 128 bits.
    """
    source = Source(store)
    live, pages = Live(source), Pages(source, Assets())
    around = [Middleware(Headers), Middleware(Guard, Hosts(hosts, any_address=token is not None))]
    if token is not None:
        around.append(Middleware(Gate, checked_token(token)))
    routes = [
        *(Route(answer.path, _endpoint(source, answer), methods=[answer.method]) for answer in ANSWERS),
        Route("/api/events", _events(live)),
        Route("/api/openapi.json", _description),
        *pages.routes(),
    ]
    problems: dict[Any, Any] = {TracebusError: pages.problem, HTTPException: pages.problem}
    app = Starlette(routes=routes, middleware=around, exception_handlers=problems)
    app.state.live, app.state.source = live, source
    return app


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _endpoint(source: Source, answer: Answer) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        asked = read(answer.question, request.query_params.multi_items())

        def answered(reader: Reader) -> bytes:
            return msgspec.json.encode(answer.function(reader, asked, **request.path_params))

        try:
            return _json(await source.ask(answered))
        except NoStoreYetError:
            if answer.without_store is None:
                raise
            return _json(msgspec.json.encode(answer.without_store(source.path)))

    return endpoint


def _events(live: Live) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        asked = read(Since, request.query_params.multi_items())
        last = request.headers.get("last-event-id")
        return live.events(read(Since, [("since", last)]).since if last else asked.since)

    return endpoint


async def _description(request: Request) -> Response:
    read(Nothing, request.query_params.multi_items())
    return _json(msgspec.json.encode(description()))
