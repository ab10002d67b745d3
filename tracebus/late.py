"""Modules that most processes need late or never, imported when they are first used.

``import tracebus`` costs little more than ``import blinker, anyio``; what is here would double that. Modules of our own
are among them: what has to wait, and where, matters to those who subscribe async callables.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["awaiting", "lanes", "logging", "loops", "payload", "random", "to_thread", "uuid"]


class _Late:
    """Stands for a module until one of its names is asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        value = getattr(importlib.import_module(self._name), name)
        setattr(self, name, value)
        return value


if TYPE_CHECKING:
    import logging
    import random
    import uuid

    from anyio import to_thread

    from . import awaiting, lanes, loops, payload
else:
    awaiting = _Late("tracebus.awaiting")
    lanes = _Late("tracebus.lanes")
    logging = _Late("logging")
    loops = _Late("tracebus.loops")
    payload = _Late("tracebus.payload")
    random = _Late("random")
    to_thread = _Late("anyio.to_thread")
    uuid = _Late("uuid")
