"""Modules that most processes need late or never, imported when they are first used.

``import tracebus`` costs little more than ``import blinker, anyio``; what is here would double that. Modules of our own
are among them: what has to wait, and where, matters to those who subscribe async callables.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["copy", "fnmatch", "lanes", "logging", "loops", "payload", "to_thread", "uuid"]


class _Late:
    """Stands for a module until one of its names is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        value = getattr(importlib.import_module(self._name), name)
        setattr(self, name, value)
        return value


if TYPE_CHECKING:
    import copy
    import fnmatch
    import logging
    import uuid

    from anyio import to_thread

    from . import lanes, loops, payload
else:
    copy = _Late("copy")
    fnmatch = _Late("fnmatch")
    lanes = _Late("tracebus.lanes")
    logging = _Late("logging")
    loops = _Late("tracebus.loops")
    payload = _Late("tracebus.payload")
    to_thread = _Late("anyio.to_thread")
    uuid = _Late("uuid")
