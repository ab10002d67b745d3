"""Serving the viewer to browsers of this machine, or with a token to those of others."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ..errors import ArgumentError, MissingExtraError
from ..links import HOST, PORT
from ..outputs.store import Reader
from .app import viewer
from .gate import PARAMETER, checked_token, new_token

try:
    import uvicorn
except ImportError as error:
    raise MissingExtraError('the viewer is served by uvicorn: pip install "tracebus[viewer]"') from error

__all__ = ["Server"]

TRIED: Final = 20
"""How many ports, one after the other, are tried."""
CLOSING_S: Final = 1
"""How long open pages may take to notice that the server goes away."""


class Server:
    """A viewer on a port of its own: from the first free one on, which is taken at once.

    Outside of loopback there is always a token; without one given, ``token`` is a new one. ``address`` is where it is.

    Raises ArgumentError for a host that is none and a token that is easy to guess, and when no port is free.
    """

    def __init__(
        self,
        store: Reader | str | os.PathLike[str] | None = None,
        *,
        host: str = HOST,
        port: int = PORT,
        token: str | None = None,
        names: Sequence[str] = (),
    ) -> None:
        family, bound = _resolved(host)
        is_loopback = ip_address(bound).is_loopback
        if token is None and not is_loopback:
            token = new_token()
        self.token = token if token is None else checked_token(token)
        self._socket = _first_free(family, bound, port)
        self.port: int = self._socket.getsockname()[1]
        shown = socket.gethostname() if ip_address(bound).is_unspecified else bound
        self.address = f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}"
        self._app = viewer(store, token=token, hosts=[host, shown, *names])
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app,
                http="h11",  # the one that is strict
                access_log=False,  # an address may have the token in it
                log_config=None,
                log_level="error",
                lifespan="off",
                ws="none",
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=CLOSING_S,
            )
        )

    def address_of(self, path: str = "/", *, with_token: bool = False) -> str:
        """Return the address of a page; with the token, which is to be kept from others, if there is one."""
        query = f"?{PARAMETER}={quote(self.token, safe='')}" if with_token and self.token is not None else ""
        return self.address + path + query

    def run(self) -> None:
        """Serve until ``stop`` or Ctrl-C, which raises KeyboardInterrupt then."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self.close()

    def stop(self) -> None:
        """Let ``run`` return, from another thread."""
        self._server.should_exit = True

    def close(self) -> None:
        """Give the port back, and close the store."""
        self._socket.close()
        self._app.state.source.close()

    @contextmanager
    def shown_in_browser(self, path: str = "/") -> Iterator[threading.Thread]:
        """Open a page in the user's browser. A token is in no command line, where other users could see it."""
        if self.token is None:
            yield _open(self.address_of(path))
            return
        number, name = tempfile.mkstemp(prefix="tracebus-", suffix=".html")
        try:
            with open(number, "w", encoding="utf-8") as file:
                file.write(_THERE.format(escape(self.address_of(path, with_token=True))))
            yield _open(Path(name).as_uri())
        finally:
            os.unlink(name)


_THERE: Final = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={}"><title>tracebus</title>'


def _open(address: str) -> threading.Thread:
    # Some browsers are programs of the terminal, and keep whoever starts them waiting.
    opening = threading.Thread(target=webbrowser.open, args=(address,), daemon=True)
    opening.start()
    return opening


def _resolved(host: str) -> tuple[socket.AddressFamily, str]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise ArgumentError(f"host={host!r} is no address of this machine: {error}") from None
    return family, str(address[0])


def _first_free(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    if not 0 <= port < 2**16:
        raise ArgumentError(f"port={port} is none: give one from 1 to 65535, or 0 for any that is free")
    last = min(port + TRIED, 2**16) - 1 if port else 0
    while True:
        try:
            return socket.create_server((host, port), family=family)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES) or port == last:
                raise ArgumentError(f"the viewer cannot listen on {host}, port {port}: {error.strerror}") from error
        port += 1
