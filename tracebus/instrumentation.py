"""What ``tracebus run`` switches on in a process, once tracebus has been imported there.

How the import of a library leads here is in ``bootstrap``, the options that set the variables in ``cli.run``. Nothing that
fails here reaches the program: it is said once, through ``logging``, and the program goes on untraced.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib import import_module
from operator import attrgetter
from threading import Lock
from typing import Any, Final

from .integrations import threads
from .signals import bus

__all__ = ["install", "start"]

_logger: Final = logging.getLogger("tracebus")
_begun: Final = Lock()


def start(unknown: Sequence[str] = ()) -> None:
    """Switch on what the TRACEBUS_… variables ask for. Calling it again changes nothing.

    ``unknown`` are the names in TRACEBUS_ONLY that nothing goes by.
    """
    if bus.disabled or not _begun.acquire(blocking=False):  # never released: whoever comes first does it
        return
    if unknown:
        _logger.warning("TRACEBUS_ONLY has names of nothing that could be traced: %s", ", ".join(unknown))
    threads.install()
    _log_lines()
    _save()


def _log_lines() -> None:
    format = os.environ.get("TRACEBUS_LOG") or "auto"
    if format == "off":
        return
    try:
        import_module("tracebus.outputs.logs").log_to(  # structlog loads slowly, and not at all with TRACEBUS_LOG=off
            os.environ.get("TRACEBUS_LOG_TO") or "stderr",
            format,
            tokens=_is_on("TRACEBUS_TOKENS"),
            links=_links(),
        )
    except Exception as error:
        _logger.warning("no log lines are written, and the app goes on without: %r", error)


def _links() -> bool | str:
    given = os.environ.get("TRACEBUS_LINKS", "").strip()
    return given.lower() in _ON or (given.lower() not in _OFF and given)


def _save() -> None:
    where = os.environ.get("TRACEBUS_SAVE", "").strip()
    if where.lower() in _OFF:
        return
    try:
        import_module("tracebus.outputs.store").save(None if where.lower() in _ON else where)
    except Exception as error:
        _logger.warning("no runs are kept, and the app goes on without: %r", error)


_ON: Final = frozenset({"1", "true", "yes", "on"})
_OFF: Final = frozenset({"", "0", "false", "no", "off"})


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() in _ON


def install(integration: str, distribution: str) -> None:
    """Install an integration, ``module`` or ``module:object``, of a library that has been imported.

    ``distribution`` is what ``pip`` calls the library.
    """
    if bus.disabled:
        return
    try:
        _found(integration).install()
    except (Exception, SystemExit) as error:
        _logger.warning(
            "%s %s is not traced, and the app goes on without: %s could not be installed: %r",
            distribution,
            _version_of(distribution),
            integration,
            error,
        )


def _found(integration: str) -> Any:
    name, _, attribute = integration.partition(":")
    module = import_module(name)
    return attrgetter(attribute)(module) if attribute else module


def _version_of(distribution: str) -> str:
    metadata = import_module("importlib.metadata")  # 20 ms, for this message only
    try:
        version: str = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "(of an unknown version)"
    return version
