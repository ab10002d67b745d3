"""Modules that most processes need late or never, imported when they are first used.

``import tracebus`` costs little more than ``import blinker, anyio``; what is here would double that. Modules of our own
are among them: what has to wait, and where, matters to those who subscribe async callables.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

__all__ = [
    "awaiting",
    "callbacks",
    "copy",
    "fnmatch",
    "lanes",
    "logging",
    "loops",
    "ownloop",
    "payload",
    "proxies",
    "to_thread",
    "uuid",
]


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

    from . import awaiting, callbacks, lanes, loops, ownloop, payload, proxies
else:
    awaiting = _Late("tracebus.awaiting")
    callbacks = _Late("tracebus.callbacks")
    copy = _Late("copy")
    fnmatch = _Late("fnmatch")
    lanes = _Late("tracebus.lanes")
    logging = _Late("logging")
    loops = _Late("tracebus.loops")
    ownloop = _Late("tracebus.ownloop")
    payload = _Late("tracebus.payload")
    proxies = _Late("tracebus.proxies")
    to_thread = _Late("anyio.to_thread")
    uuid = _Late("uuid")


def _finish_imports() -> None:
    """Wait for the threads that are just importing one of these: a forked child would have half of it, locked for ever."""
    for name in ("asyncio", "trio", *(late._name for late in globals().values() if isinstance(late, _Late))):
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if getattr(spec, "_initializing", False):
            importlib.import_module(name)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_finish_imports)
