"""The addresses that a person opens. All are one page, whose script asks ``api`` for what the address says."""

from __future__ import annotations

from html import escape
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from ..errors import TracebusError
from ..links import RUN_PAGE, TRACE_PAGE
from ..outputs.store import NoStoreYetError, Reader
from . import problems
from .assets import Assets
from .source import Source

__all__ = ["Pages"]

NO_PAGE: Final = b"<!doctype html><title>tracebus</title><main id=app><!-- message --></main>"
ROOT: Final = '<meta name="root" content="">'
MESSAGE: Final = "<!-- message -->"


class Pages:
    def __init__(self, source: Source, assets: Assets) -> None:
        self._source = source
        self._assets = assets

    def routes(self) -> list[BaseRoute]:
        plain = ["/", "/sessions", "/compare", "/statistics", "/losses"]
        return [
            *(Route(path, self._page) for path in plain),
            Route("/sessions/{session:path}", self._page),
            Route(RUN_PAGE, self._page),
            Route(TRACE_PAGE, self._page),
        ]

    async def _page(self, request: Request) -> Response:
        path = request.path_params

        def look(reader: Reader) -> str | None:
            if "trace" not in path:
                if "session" in path:
                    reader.session(path["session"])
                else:
                    reader.cursor()
                return None
            trace = reader.resolve(path["trace"])
            if "run" in path:
                reader.run(trace, path["run"])
            return trace

        try:
            trace = await self._source.ask(look)
        except NoStoreYetError:
            if path:
                raise
            trace = None
        if trace is not None and trace != path["trace"]:
            return RedirectResponse(str(request.url).replace(path["trace"], trace, 1))
        return self._shell(request)

    def _shell(self, request: Request, status: int = 200, message: str = "") -> Response:
        asset = self._assets.get("index.html")
        html = (NO_PAGE if asset is None else asset.body).decode()
        root = escape(request.scope.get("root_path", "").rstrip("/"))
        html = html.replace(ROOT, ROOT.replace('""', f'"{root}"'), 1)
        html = html.replace('"/static/', f'"{root}/static/')
        if message:
            html = html.replace(MESSAGE, f'<p role="alert">{escape(message)}</p>', 1)
        return Response(html, status, media_type="text/html")

    async def problem(self, request: Request, error: Exception) -> Response:
        status, text = problems.status_of(error), problems.text_of(error)
        if request.url.path.startswith("/api/"):
            return Response(msgspec.json.encode({"error": text}), status, media_type="application/json")
        return self._shell(request, status, text)
