"""What an event said when it was said: copies that the app cannot change afterwards. Copying values is ``payload``'s job."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Final, TypeVar, cast

from .events import Event
from .late import copy, payload
from .runs import Run

__all__ = ["run_as_of_now", "snapshot_of"]

E = TypeVar("E", bound=Event)

_COPIED: Final = {
    "token",
    "chunk",
    "inputs",
    "output",
    "tool_input",
    "return_values",
    "data",
    "text",
    "log",
}
"""The fields that hold the app's values; errors, usage and names are not changed by anybody."""


@functools.cache
def _slots(event_class: Hashable) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the fields that are copied and those that are kept."""
    names = [name for cls in cast("type", event_class).__mro__ for name in getattr(cls, "__slots__", ())]
    return tuple(name for name in names if name in _COPIED), tuple(name for name in names if name not in _COPIED)


def snapshot_of(event: E) -> E:
    """Return a copy of ``event`` and of its run whose values are bounded plain data."""
    copied, kept = _slots(cast("Hashable", type(event)))
    said = event.__class__.__new__(event.__class__)
    for name in kept:
        setattr(said, name, getattr(event, name))
    for name in copied:
        value = getattr(event, name)
        setattr(said, name, None if value is None else payload.snapshot(value))
    if event.run is not None:
        said.run = run_as_of_now(event.run)
    return said


def run_as_of_now(run: Run) -> Run:
    """Return a copy of ``run`` with bounded plain data; the events of an open run share one."""
    if run._said is not None and run._said.status == run.status:
        return run._said
    said = copy.copy(run)
    said.inputs = payload.snapshot(run.inputs)
    said.output = payload.snapshot(run.output)
    said._metadata = {str(key): payload.snapshot(value) for key, value in run.metadata.items()}
    run._said = said
    return said
