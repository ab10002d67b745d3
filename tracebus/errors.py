"""What a user of tracebus can get wrong. What goes wrong inside a subscriber is never an exception here: see dispatch."""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "MissingExtraError",
    "RunAbortedError",
    "SubscriberError",
    "TracebusError",
    "UnknownHookError",
    "WrongThreadError",
]


class TracebusError(Exception):
    """Base of every exception that tracebus raises on purpose."""


class ArgumentError(TracebusError, ValueError):
    """Say that an argument has a value outside its choices."""


class UnknownHookError(ArgumentError):
    """Say that no hook has this name and no hook matches this pattern."""


class SubscriberError(TracebusError, TypeError):
    """Say that an object cannot hear events: not callable, or without a single ``on_*`` method."""


class MissingExtraError(TracebusError, ImportError):
    """Say which extra an optional part needs."""


class WrongThreadError(TracebusError, RuntimeError):
    """Say that a blocking call was made in the thread of the event loop that it would wait for."""


class RunAbortedError(TracebusError):
    """Say that the interpreter exited while a run was open: the ``error`` of a run whose status is ``aborted``."""
