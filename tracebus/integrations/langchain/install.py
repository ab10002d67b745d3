"""The handler in every run of the process, through the one place that LangChain offers for it."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any, cast

from ...runs import innermost
from ...signals import bus
from .bridge import TracebusHandler
from .lives import disconnect

try:
    from langchain_core.tracers.context import register_configure_hook
except ImportError:  # a version that has it elsewhere: install() says so
    register_configure_hook = cast("Any", None)

__all__ = ["install", "uninstall"]


class _Installed:
    """Stands where LangChain looks for a handler in a context variable: the same in every thread, none while nobody hears.

    So what nobody hears costs what it costs without tracebus.
    """

    def __init__(self) -> None:
        self.handler: TracebusHandler | None = None
        self.is_registered: bool | None = None

    def get(self) -> TracebusHandler | None:
        """Return the handler, if anything listens here."""
        return self.handler if self.handler is not None and (bus.live or innermost() is not None) else None


_installed = _Installed()


def install() -> None:
    """Trace every run of LangChain and LangGraph in this process from now on; a second call changes nothing.

    With a version of LangChain that cannot do that, one warning names it, and the app runs on untraced.
    """
    if _installed.is_registered is None:
        _installed.is_registered = _register()
    if _installed.is_registered:
        _installed.handler = _installed.handler or TracebusHandler()


def uninstall() -> None:
    """Trace no more runs; those that are open are told to their end."""
    _installed.handler = None
    disconnect()


def _register() -> bool:
    try:
        place = cast("ContextVar[Any]", _installed)
        register_configure_hook(place, inheritable=True, handle_class=TracebusHandler)
    except Exception as error:
        logging.getLogger("tracebus").warning(
            "langchain-core %s has no register_configure_hook that tracebus knows (%s: %s): LangChain's runs are not traced; "
            'pass callbacks=[TracebusHandler()], or pip install -U "tracebus[langchain]"',
            version("langchain-core"),
            type(error).__name__,
            error,
        )
        return False
    return True
