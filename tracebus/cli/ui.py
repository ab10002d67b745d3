"""``tracebus ui``: the web viewer, on a port of this machine."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Annotated

import typer

from ..links import HOST, PORT, TRACE_PAGE
from ..outputs.store import default_path
from ..viewer.gate import new_token
from ..viewer.serving import Server
from .options import Db, offered_traces
from .stores import opened, trace_id

__all__ = ["command"]

_TRACE = typer.Argument(metavar="TRACE", help="What to begin with, by its id or @last.", autocompletion=offered_traces)
_HOST = typer.Option("--host", metavar="ADDRESS", help="Where to listen. Outside of this machine a token is wanted.")
_PORT = typer.Option("--port", metavar="PORT", min=0, max=65535, help="Or the next that is free; 0 is any.")
_TOKEN = typer.Option(
    "--token",
    metavar="TOKEN",
    envvar="TRACEBUS_UI_TOKEN",
    help="What a browser must know; auto makes a new one. The variable keeps it from those who list processes.",
)
_NAMES = typer.Option("--allow-host", metavar="NAME", help="A further name under which browsers may ask for it.")
_OPEN = typer.Option("--open/--no-open", help="Open it in the browser.")


def command(
    trace: Annotated[str | None, _TRACE] = None,
    db: Db = None,
    host: Annotated[str, _HOST] = HOST,
    port: Annotated[int, _PORT] = PORT,
    token: Annotated[str | None, _TOKEN] = None,
    names: Annotated[list[str] | None, _NAMES] = None,
    is_opened: Annotated[bool, _OPEN] = False,
) -> None:
    """Serve the viewer until Ctrl-C, and print its address."""
    path = "/"
    if trace is not None:
        with opened(db) as reader:
            path = TRACE_PAGE.format(trace=trace_id(reader, trace))
    server = Server(db, host=host, port=port, token=new_token() if token == "auto" else token or None, names=names or ())
    if port not in (0, server.port):
        print(f"port {port} is in use: taking {server.port}", file=sys.stderr)
    is_known = token not in (None, "", "auto")
    print(server.address_of(path, with_token=not is_known))
    print(f"shows {db or default_path()}, Ctrl-C ends", file=sys.stderr)
    sys.stdout.flush()
    with server.shown_in_browser(path) if is_opened else nullcontext():
        try:
            server.run()
        except KeyboardInterrupt:
            pass
