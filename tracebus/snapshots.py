"""What an event said when it was said: copies that the app cannot change afterwards. Copying values is ``payload``'s job."""

from __future__ import annotations

import copy
import functools
from typing import Final, TypeVar

from .events import Event
from .late import payload
from .runs import Run

__all__ = ["run_as_of_now", "snapshot_of"]

E = TypeVar("E", bound=Event)

_COPIED: Final = {
    "prompts",
    "messages",
    "params",
    "token",
    "chunk",
    "inputs",
    "output",
    "query",
    "tool_input",
    "return_values",
    "data",
    "text",
    "log",
}
"""The fields that hold the app's values; errors, usage and names are not changed by anybody."""


@functools.cache
def _copied_slots(event_class: type[Event]) -> tuple[str, ...]:
    slots = (name for cls in event_class.__mro__ for name in getattr(cls, "__slots__", ()))
    return tuple(name for name in slots if name in _COPIED)


def snapshot_of(event: E) -> E:
    """Return a copy of ``event`` and of its run whose values are bounded plain data."""
    said = copy.copy(event)
    for name in _copied_slots(type(event)):
        setattr(said, name, payload.snapshot(getattr(event, name)))
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
