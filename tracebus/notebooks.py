"""Telling when a notebook cell subscribes again: its earlier self is replaced, so that a re-run does not double every line."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["CellSite", "site_of_caller"]


class CellSite:
    """Where in a notebook something was subscribed: what stays the same when the cell runs again, and in which run it was."""

    __slots__ = ("execution", "place")

    def __init__(self, place: tuple[object, ...], execution: int) -> None:
        self.place = place
        self.execution = execution

    def replaces(self, earlier: CellSite | None) -> bool:
        """Whether this is the same place in a later execution. A loop in one cell replaces nothing."""
        return earlier is not None and self.place == earlier.place and self.execution > earlier.execution


def site_of_caller(target: object) -> CellSite | None:
    """Return the notebook cell that is subscribing ``target`` now, None outside of notebooks.

    A named function or a class of the notebook is known by its name, also when its cell was edited; anything else by
    the line that subscribes it.
    """
    shell = _running_shell()
    if shell is None:
        return None
    named = target if hasattr(target, "__qualname__") else type(target)
    name = getattr(named, "__qualname__", "<")
    if getattr(named, "__module__", None) == "__main__" and "<" not in name:
        return CellSite((name,), shell.execution_count)
    frame = _cell_frame(sys._getframe(1))
    if frame is None:
        return None
    # IPython numbers the files that its cells pretend to be; what is the same in a re-run is the text.
    text = "".join(linecache.getlines(frame.f_code.co_filename))
    return CellSite((text, frame.f_lineno), shell.execution_count)


def _running_shell() -> Any:
    ipython = sys.modules.get("IPython")
    get_shell: Callable[[], Any] | None = getattr(ipython, "get_ipython", None)
    return None if get_shell is None else get_shell()


def _cell_frame(frame: FrameType | None) -> FrameType | None:
    while frame is not None and frame.f_globals.get("__name__") != "__main__":
        frame = frame.f_back
    return frame
