"""Which browsers may ask: those that look at this address, and not the pages of others that they have open as well.

A page elsewhere can send requests here, and by changing what its name resolves to it can even read the answers ("DNS
rebinding"). The former is told by ``Origin`` and ``Sec-Fetch-Site``, the latter by ``Host``, none of which a page can forge.
Who else may not ask is in ``gate``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .problems import refuse, route_of

__all__ = ["Guard", "Hosts"]

_HOST: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII | re.IGNORECASE)
_PORTS: Final = {"http": "80", "ws": "80", "https": "443", "wss": "443"}


class Hosts:
    """The names under which the viewer may be asked for: those of this machine's loopback, and those that are added.

    With ``any_address`` also every IP address: it is a name that nobody can make resolve to something else.
    """

    def __init__(self, names: Iterable[str] = (), *, any_address: bool = False) -> None:
        self._names = {"localhost", *(name.lower().strip("[]") for name in names)}
        self._any_address = any_address

    def __contains__(self, name: str) -> bool:
        """Tell whether ``name``, without a port, is one of them."""
        name = name.lower().strip("[]")
        if name in self._names:
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._any_address


class _Refused(NamedTuple):
    status: int
    text: str


class Guard:
    """Refuses what comes under a foreign name, 400, and what comes from another page, 403."""

    def __init__(self, app: ASGIApp, hosts: Hosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, or refuse it."""
        refused = self._refused(scope) if scope["type"] in ("http", "websocket") else None
        if refused is None:
            await self._app(scope, receive, send)
        else:
            await refuse(scope, receive, send, *refused)

    def _refused(self, scope: Scope) -> _Refused | None:
        headers = Headers(scope=scope)
        given = headers.getlist("host")
        host = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        if host is None or host["name"] not in self._hosts:
            told = ", ".join(given)[:100] or "none"
            return _Refused(400, f"the viewer is not known as {told!r}: ask for the address that it printed")
        origin = headers.get("origin")
        if origin is not None and not _is_of(origin, host["name"], host["port"]):
            return _Refused(403, "this was asked by a page of another origin")
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and not _is_followed_link(scope, headers):
            return _Refused(403, "this was asked by a page of another site, which may only link to pages of this one")
        return None


def _is_of(origin: str, name: str, port: str | None) -> bool:
    """Tell whether a page of ``origin`` is one of this host; behind a proxy the scheme is not known here."""
    try:
        parts = urlsplit(origin)
        default = _PORTS[parts.scheme]
        theirs = (parts.hostname or "", str(parts.port or default))
    except (ValueError, KeyError):
        return False
    return theirs == (name.lower().strip("[]"), port or default)


def _is_followed_link(scope: Scope, headers: Headers) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest", "document") == "document"
        and not route_of(scope).startswith("/api/")
    )
