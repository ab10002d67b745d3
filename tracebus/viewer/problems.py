"""What can go wrong with a request, as a status and a text. What a store or a caller does is never an error of the server."""

from __future__ import annotations

from html import escape
from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import ArgumentError, TracebusError
from ..outputs.store import AmbiguousError, NoStoreYetError, NotFoundError, StoreError

__all__ = ["as_json", "refuse", "route_of", "status_of", "text_of"]

# In this order: an ambiguous id is both an argument and not to be found. A store that cannot be read, one of a newer
# tracebus or a damaged file, is a conflict with the state of what was asked for (RFC 9110, section 15.5.10).
_STATUSES: Final[tuple[tuple[type[TracebusError], int], ...]] = (
    (AmbiguousError, 400),
    (NotFoundError, 404),
    (NoStoreYetError, 404),
    (StoreError, 409),
    (ArgumentError, 400),
)
_TEXTS: Final = {
    404: "there is nothing at this address",
    405: "this address knows no such method",
}

_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>tracebus: {status}</title>
<main><h1>tracebus</h1><p role="alert">{text}</p>{again}</main></html>
"""
_AGAIN: Final = '<p>Opened here before? <a href="">Open it again.</a></p>'


def status_of(error: Exception) -> int:
    """Return the status that says what is wrong."""
    if isinstance(error, HTTPException):
        return error.status_code
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def text_of(error: Exception) -> str:
    """Return what is wrong in words."""
    if isinstance(error, HTTPException):
        return _TEXTS.get(error.status_code, error.detail)
    return str(error)


def route_of(scope: Scope) -> str:
    """Return the path of a request below where the viewer is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root) else path


def as_json(status: int, text: str) -> Response:
    """Return a problem as ``api`` says it."""
    return Response(msgspec.json.encode({"error": text}), status, media_type="application/json")


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, text: str, *, may_retry: bool = False) -> None:
    """Answer a request that goes no further, with nothing in it but what is wrong; a WebSocket is not opened.

    With ``may_retry`` the page has a link to itself: a browser that comes from elsewhere shows its cookie only then.
    """
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})  # which servers answer with 403
    elif route_of(scope).startswith("/api/"):
        await as_json(status, text)(scope, receive, send)
    else:
        again = _AGAIN if may_retry else ""
        page = _PAGE.format(status=status, text=escape(text), again=again)
        await Response(page, status, media_type="text/html")(scope, receive, send)
