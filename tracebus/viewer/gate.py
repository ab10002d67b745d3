"""Who may ask when others can reach the viewer: whoever has its token, given once in the address and then kept in a cookie."""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from html import escape
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import ArgumentError
from .problems import refuse

__all__ = ["Gate", "checked_token", "new_token"]

BITS: Final = 128
"""How much there must be to guess, at least."""
PARAMETER: Final = "token"
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]+", re.ASCII)
_ALPHABETS: Final = ((r"[0-9]+", 10), (r"[0-9a-f]+|[0-9A-F]+", 16), (r"[0-9a-z]+|[0-9A-Z]+", 36))


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(32)


def checked_token(token: str) -> str:
    """Return the token; raise ArgumentError, which does not show it, for one that could be guessed or sent by no browser."""
    advice = 'make one with python -c "import secrets; print(secrets.token_urlsafe())"'
    if not _TOKEN.fullmatch(token):
        raise ArgumentError(f"the token may have letters, digits and . _ ~ + / = - only: {advice}")
    if len(set(token)) < 8 or _bits_of(token) < BITS:
        raise ArgumentError(f"the token is too easy to guess, it must have {BITS} bits: {advice}")
    return token


def _bits_of(token: str) -> float:
    letters = next((size for alphabet, size in _ALPHABETS if re.fullmatch(alphabet, token)), 64)
    return len(token) * math.log2(letters)


_AGAIN: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="0; url={0}"><title>tracebus</title><p><a href="{0}">Go on.</a></p></html>
"""


class Gate:
    """Lets pass who has the token: in the cookie, as a bearer's, or in the address, which is then asked for without it."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()
        # Cookies of all ports of a host are one: two viewers must not take each other's away.
        self._cookie = f"tracebus_{hashlib.sha256(self._token).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, let it be asked again, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = _taken_from_query(scope)
        if given is not None and self._is_right(given):
            await self._asked_again(scope)(scope, receive, send)
        elif given is None and any(map(self._is_right, self._shown(scope))):
            await self._app(scope, receive, send)
        else:
            text = "this viewer wants its token" if given is None else "the token is wrong"
            text += ": open the address that `tracebus ui` printed"
            await refuse(scope, receive, send, 401, text, may_retry=given is None)

    def _is_right(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self._token)

    def _shown(self, scope: Scope) -> list[str]:
        headers = Headers(scope=scope)
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        cookie = cookie_parser(headers.get("cookie", "")).get(self._cookie)
        return [*([bearer.strip()] if kind.lower() == "bearer" else []), *([cookie] if cookie is not None else [])]

    def _asked_again(self, scope: Scope) -> Response:
        """Return the answer that keeps the token in the browser, and takes it out of the address.

        It is a page: what follows a redirect still counts as asked by whoever linked to it, and then the cookie is not shown.
        """
        query = scope["query_string"].decode("latin-1")
        path = "/" + quote(scope["path"]).lstrip("/")  # two slashes would begin the name of another host
        response = Response(_AGAIN.format(escape(f"{path}?{query}" if query else path)), media_type="text/html")
        response.set_cookie(
            self._cookie,
            self._token.decode(),
            path=scope.get("root_path") or "/",
            httponly=True,
            samesite="strict",
            secure=scope.get("scheme") in ("https", "wss"),
        )
        return response


def _taken_from_query(scope: Scope) -> str | None:
    """Return the token in the address. It is taken out of it, also for the log of whoever serves the app."""
    if b"token" not in scope["query_string"]:
        return None
    query: bytes = scope["query_string"]
    parameters = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    given = [value for name, value in parameters if name == PARAMETER]
    if not given:
        return None
    scope["query_string"] = urlencode([(name, value) for name, value in parameters if name != PARAMETER]).encode()
    return given[-1]
