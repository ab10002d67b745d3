"""Where the web viewer is, and under which address it shows a run. Its pages are in ``viewer``; what links to them is in
``outputs``.
"""

from __future__ import annotations

import re
from typing import Final

from .errors import ArgumentError

__all__ = ["HOST", "PORT", "RUN_PAGE", "TRACE_PAGE", "link_to", "viewer_at"]

HOST: Final = "127.0.0.1"
PORT: Final = 8287
"""Where `tracebus ui` serves unless it is told otherwise."""

_ADDRESS: Final = re.compile(r"https?://(?:(?![?#])[!-~])+")
"""Without a query: that of the viewer may have its token, which is in no log line."""

TRACE_PAGE: Final = "/traces/{trace}"
RUN_PAGE: Final = "/traces/{trace}/runs/{run}"


def viewer_at(given: object) -> str | None:
    """Return the address of the viewer that ``links=`` means: None for False, the usual one for True.

    Raises ArgumentError for what is no address.
    """
    if given is None or given is False:
        return None
    if given is True:
        return f"http://{HOST}:{PORT}"
    if isinstance(given, str) and _ADDRESS.fullmatch(given):
        return given.rstrip("/")
    raise ArgumentError(f"links={given!r} is no address of the viewer: give what `tracebus ui` prints, http://…, or True")


def link_to(viewer: str, trace: int, run: int | None = None) -> str:
    """Return the address of a run, or of a whole trace, in the viewer at ``viewer``; both are numbers of 128 bits."""
    page = TRACE_PAGE if run is None else RUN_PAGE
    return viewer + page.format(trace=f"{trace:032x}", run=f"{(run or 0) & 0xFFFF_FFFF_FFFF_FFFF:016x}")
