"""Wrap functions of a library that has no hook of its own, and unwrap them again. What the wrappers do is not known here.

Nothing is wrapped unless everything is found as it is expected: half a patch would lose runs without a word.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

from ..counts import Throttle
from ..errors import MissingExtraError

__all__ = ["Patches", "Point", "import_library"]

Wrapper: TypeAlias = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]


def import_library(name: str, package: str | None = None) -> ModuleType:
    """Return the module ``name``; raise MissingExtraError saying which ``package`` to install when it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{name} is not installed: pip install {package or name}") from error


class Point(NamedTuple):
    """One function to wrap: where it is in its module, with what, and the parameters without which it is not the same one.

    What is not ``needed`` is left alone when it is not there.
    """

    path: str
    wrapper: Wrapper
    parameters: tuple[str, ...] = ()
    needed: bool = True


class _Place(NamedTuple):
    owner: Any
    name: str


class _Wrapped(NamedTuple):
    place: _Place
    before: Any
    now: Any


class Patches:
    """The wrapped functions of one library. ``extra`` is the one of tracebus that brings what wrapping needs."""

    def __init__(self, library: str, extra: str, points: Iterable[Point]) -> None:
        self._library = library
        self._extra = extra
        self._points = tuple(points)
        self._wrapped: list[_Wrapped] = []
        self._installation: object = None
        self._warnings = Throttle()
        self._lock = threading.Lock()

    def install(self) -> None:
        """Wrap the functions, unless they are. A version that does not have them is left as it is, with one warning.

        Raises MissingExtraError when the library, or what wrapping needs, is not installed.
        """
        module = import_library(self._library)
        wrapt = import_library("wrapt", f'"tracebus[{self._extra}]"')
        with self._lock:
            if self._installation is not None:
                return
            found = {point: _find(wrapt, module, point) for point in self._points}
            moved = [point.path for point, place in found.items() if point.needed and place is None]
            if moved:
                self._warn(moved)
                return
            self._installation = object()
            # By place, because two classes may inherit the same function.
            wrappers = {place: point.wrapper for point, place in found.items() if place is not None}
            self._wrapped = [self._wrap(wrapt, place, wrapper) for place, wrapper in wrappers.items()]

    def uninstall(self) -> None:
        """Put back what was there. Where somebody has wrapped our wrapper, it stays, and does nothing any more."""
        with self._lock:
            self._installation = None
            for wrapped in self._wrapped:
                _put_back(wrapped)
            self._wrapped = []

    def _wrap(self, wrapt: ModuleType, place: _Place, wrapper: Wrapper) -> _Wrapped:
        installation = self._installation  # a wrapper that uninstall() had to leave behind stays off when there is a new one
        before = vars(place.owner)[place.name]
        now = wrapt.FunctionWrapper(before, wrapper, enabled=lambda: self._installation is installation)
        setattr(place.owner, place.name, now)
        return _Wrapped(place, before, now)

    def _warn(self, moved: list[str]) -> None:
        version = importlib.metadata.version(self._library)
        message = "%s %s does not have %s as tracebus knows it: its calls are not traced. Is there a newer tracebus?"
        self._warnings.warn("moved", message, self._library, version, " and ".join(moved))


def _find(wrapt: ModuleType, module: ModuleType, point: Point) -> _Place | None:
    """Return where the function is defined, if it is the one that is expected: all who inherit it are meant."""
    try:
        owner, name, function = wrapt.resolve_path(module, point.path)
        known: Mapping[str, Any] = inspect.signature(function).parameters
    except (AttributeError, TypeError, ValueError):
        return None
    if not all(parameter in known for parameter in point.parameters):
        return None
    return _Place(next(one for one in getattr(owner, "__mro__", (owner,)) if name in vars(one)), name)


def _put_back(wrapped: _Wrapped) -> None:
    if vars(wrapped.place.owner).get(wrapped.place.name) is wrapped.now:
        setattr(wrapped.place.owner, wrapped.place.name, wrapped.before)
