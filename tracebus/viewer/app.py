"""The viewer as an ASGI app: its routes, and what is around all of them."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..errors import TracebusError
from ..outputs.store import NoStoreYetError, Reader
from . import api, problems
from .assets import Assets
from .live import Live
from .pages import Pages
from .questions import Since, read
from .source import Source

__all__ = ["viewer"]


def viewer(store: Reader | str | os.PathLike[str] | None = None) -> Starlette:
    source = Source(store)
    live, assets = Live(source), Assets()
    pages = Pages(source, assets)
    routes = [Route(answer.path, _endpoint(source, answer), methods=[answer.method]) for answer in _in_order()]
    routes += [Route("/api/events", _events(live)), *pages.routes(), Route("/static/{path:path}", assets.answer)]
    return Starlette(
        routes=routes,
        exception_handlers={TracebusError: pages.problem, HTTPException: pages.problem},  # type: ignore[dict-item]
    )


def _in_order() -> list[api.Answer]:
    return api.ANSWERS


def json_response(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _endpoint(source: Source, answer: api.Answer) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        asked = read(answer.question, request.query_params.multi_items())

        def encoded(reader: Reader) -> bytes:
            return msgspec.json.encode(answer.function(reader, asked, **request.path_params))

        try:
            body = await source.ask(encoded)
        except NoStoreYetError:
            if answer.without_store is None:
                raise
            body = msgspec.json.encode(answer.without_store(source.path))
        return Response(body, media_type="application/json")

    return endpoint


def _events(live: Live) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        asked = read(Since, request.query_params.multi_items())
        resumed = request.headers.get("last-event-id")
        since = read(Since, [("since", resumed)]).since if resumed else asked.since
        return live.events(since)

    return endpoint
