"""What can go wrong with a request, as a status and a text. What a store or a caller does is never an error of the server."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
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

_STYLE: Final = """
:root { color-scheme: light dark; background: light-dark(#fcfcfa, #16181b); color: light-dark(#1c1f22, #e4e5e3);
  font: 13px/1.45 Inter, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
body { margin: 0; }
header { padding: 11px 16px; border-bottom: 1px solid light-dark(#e6e6e1, #2a2d31); font-weight: 650; }
main { max-width: 42rem; margin: 0 auto; padding: 48px 16px; overflow-wrap: anywhere; }
h1 { margin: 0 0 12px; font-size: 16px; }
p { margin: 0 0 12px; }
a { color: inherit; text-underline-offset: 2px; }
code { font: 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
"""
"""In the page itself, as whoever is refused it is refused its style sheets, too. In the colours of static/styles/base.css."""
_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>tracebus: {status}</title><style>{style}</style>
<header>tracebus</header><main role="alert"><h1>{what}</h1>{more}</main></html>
"""
_AGAIN: Final = '<p>Opened here before? <a href="">Open it again.</a></p>'
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing but this one style."""
_CODE: Final = re.compile(r"`([^`]+)`")


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
        page = _page(status, text, _AGAIN if may_retry else "")
        await Response(page, status, {"Content-Security-Policy": _POLICY}, "text/html")(scope, receive, send)


def _page(status: int, text: str, again: str) -> str:
    """Return the page of a problem: what is wrong, then what to do about it, which a message has behind a colon."""
    what, _, advice = (_CODE.sub(r"<code>\1</code>", part) for part in escape(_capitalised(text)).partition(": "))
    more = f"<p>{_capitalised(advice)}.</p>" if advice else ""
    return _PAGE.format(status=status, style=_STYLE, what=what, more=more + again)


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
