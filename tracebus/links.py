"""Where the web viewer shows traces and runs. Its pages are in ``viewer``; what links to them is in ``outputs``."""

from __future__ import annotations

from typing import Final

__all__ = ["RUN_PAGE", "TRACE_PAGE", "link_to"]

TRACE_PAGE: Final = "/traces/{trace}"
RUN_PAGE: Final = "/traces/{trace}/runs/{run}"


def link_to(viewer: str, trace_id: str, span_id: str | None = None) -> str:
    """Return the address of a run, or of a whole trace, in the viewer at ``viewer``: ``"http://127.0.0.1:8287"``.

    ``trace_id`` are the 32 digits of a trace, ``span_id`` the 16 of a run's span.
    """
    page = TRACE_PAGE if span_id is None else RUN_PAGE
    return viewer.rstrip("/") + page.format(trace=trace_id, run=span_id)
