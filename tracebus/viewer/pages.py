"""The addresses that a person opens. All are one page, whose script asks ``api`` for what the address says.

The page is ``static/index.html``, with what went wrong written into it for those whose browser shows nothing else.
"""

from __future__ import annotations

from html import escape
from typing import Any, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from ..links import RUN_PAGE, TRACE_PAGE
from ..outputs.store import NoStoreYetError, Reader
from .addresses import ANYTHING
from .assets import Assets
from .problems import as_json, route_of, status_of, text_of
from .source import Source

__all__ = ["Pages"]

LISTS: Final = ("/", "/sessions", "/statistics", "/losses")
ROOT: Final = '<meta name="root" content="{}">'
"""Where the script finds below which path the viewer is mounted."""
MESSAGE: Final = "<!-- message -->"


class Pages:
    """Answers with the page, whose status says whether what it is about is there."""

    def __init__(self, source: Source, assets: Assets) -> None:
        self._source = source
        self._assets = assets

    def routes(self) -> list[BaseRoute]:
        """Return the routes of all pages and of the files that they need."""
        return [
            *(Route(path, self._list) for path in LISTS),
            Route(f"/sessions/{{session:{ANYTHING}}}", self._session),
            Route("/compare", self._comparison),
            Route(TRACE_PAGE, self._trace),
            Route(RUN_PAGE, self._trace),
            Route("/static/{path:path}", self._assets.answer),
        ]

    async def _list(self, request: Request) -> Response:
        try:
            await self._source.ask(Reader.cursor)
        except NoStoreYetError:
            pass  # what the page says then is how to make one
        return self._page(request)

    async def _session(self, request: Request) -> Response:
        await self._source.ask(lambda reader: reader.session(request.path_params["session"]))
        return self._page(request)

    async def _comparison(self, request: Request) -> Response:
        query = request.query_params
        chosen = [query[side] for side in ("left", "right") if query.get(side)]
        if not chosen:
            return await self._list(request)
        await self._source.ask(lambda reader: [reader.resolve(trace) for trace in chosen])
        return self._page(request)

    async def _trace(self, request: Request) -> Response:
        trace, run = request.path_params["trace"], request.path_params.get("run")

        def whole_id(reader: Reader) -> str:
            if run is not None:
                reader.run_summary(trace, run)
            return reader.resolve(trace)

        found = await self._source.ask(whole_id)
        if found == trace.replace("-", "").lower():
            return self._page(request)
        return RedirectResponse(_with_id(request, found))

    def _page(self, request: Request, status: int = 200, message: str = "") -> Response:
        html = self._assets["index.html"].body.decode()
        root = escape(quote(request.scope.get("root_path", "").rstrip("/")))
        html = html.replace(ROOT.format(""), ROOT.format(root), 1).replace('"/static/', f'"{root}/static/')
        if message:
            html = html.replace(MESSAGE, f'<p role="alert">{escape(message)}</p>', 1)
        return Response(html, status, media_type="text/html")

    async def problem(self, request: Request, error: Exception) -> Response:
        """Answer with what is wrong, as JSON below /api, else in the page."""
        status, text = status_of(error), text_of(error)
        headers: Any = getattr(error, "headers", None)
        is_for_programs = route_of(request.scope).startswith(("/api/", "/static/"))
        response = as_json(status, text) if is_for_programs else self._page(request, status, text)
        response.headers.update(headers or {})
        return response


def _with_id(request: Request, trace: str) -> str:
    root, run, query = request.scope.get("root_path", ""), request.path_params.get("run"), request.url.query
    path = TRACE_PAGE.format(trace=trace) if run is None else RUN_PAGE.format(trace=trace, run=quote(run, safe=""))
    return quote(root) + path + (f"?{query}" if query else "")
