"""What an event said when it was said: copies that the app cannot change afterwards. Copying values is ``payload``'s job."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from itertools import islice
from typing import Final, TypeVar, cast

from .events import Event
from .late import copy, payload
from .runs import Run

__all__ = ["rough_size_of", "run_as_of_now", "size_of_run", "sized_snapshot_of", "snapshot_of"]

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
    return sized_snapshot_of(event)[0]


def sized_snapshot_of(event: E) -> tuple[E, int]:
    """Return a ``snapshot_of`` the event and how many bytes its own values are about; ``size_of_run`` has its run's."""
    copied, kept = _slots(cast("Hashable", type(event)))
    said = event.__class__.__new__(event.__class__)
    size = 0
    for name in kept:
        setattr(said, name, getattr(event, name))
    for name in copied:
        value = getattr(event, name)
        if value is not None:
            value, its_size = payload.sized_snapshot(value)
            size += its_size
        setattr(said, name, value)
    if event.run is not None:
        said.run = run_as_of_now(event.run)
    return said, size


def run_as_of_now(run: Run) -> Run:
    """Return a copy of ``run`` with bounded plain data; the events of an open run share one."""
    if run._said is not None and run._said.status == run.status:
        return run._said
    said = copy.copy(run)
    said.inputs, inputs_size = payload.sized_snapshot(run.inputs)
    said.output, output_size = payload.sized_snapshot(run.output)
    metadata = {str(key): payload.sized_snapshot(value) for key, value in run.metadata.items()}
    said._metadata = {key: value for key, (value, _) in metadata.items()}
    said._size = inputs_size + output_size + sum(size for _, size in metadata.values())
    said._kept_by = set()
    run._said = said
    return said


def size_of_run(said: Run | None, keeper: int) -> int:
    """Return the bytes that a copied run adds to what ``keeper`` keeps: those of its values the first time, then 0.

    Many events share the copy. It is counted with the first that comes and no longer when that one goes, so what is not
    counted is at most one copy of the inputs of each run that the keeper has more events of.
    """
    if said is None or said._kept_by is None or keeper in said._kept_by:
        return 0
    said._kept_by.add(keeper)
    return said._size


def rough_size_of(event: Event) -> int:
    """Return how many bytes of text an event brings, about: for one that is queued as it is, with the app's own values."""
    copied, _ = _slots(cast("Hashable", type(event)))
    return sum(_rough_size(getattr(event, name)) for name in copied)


def _rough_size(value: object, depth: int = 3) -> int:
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if depth == 0 or not isinstance(value, dict | list | tuple):
        return 0
    try:
        items = list(islice(value.values() if isinstance(value, dict) else value, 100))
    except RuntimeError:  # another thread changes it
        return 0
    return sum(_rough_size(item, depth - 1) for item in items)
