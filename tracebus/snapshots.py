"""What an event said when it was said: copies that the app cannot change afterwards. Copying values is ``payload``'s job."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from itertools import islice
from operator import is_
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from .events import Event
from .late import copy, payload
from .runs import Run

if TYPE_CHECKING:
    from .payload import JSON

__all__ = ["Copied", "rough_size_of", "run_as_of_now", "size_of_run", "sized_snapshot_of", "snapshot_of"]

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


class Copied:
    """A copy of a run, and what it was made of: the app's own objects, which the run keeps alive anyway."""

    __slots__ = ("copies", "inputs", "metadata", "model", "output", "said", "status", "tags", "usage")

    def __init__(self, run: Run, before: Copied | None) -> None:
        self.status, self.model, self.usage, self.tags = run.status, run.model, run.usage, run.tags
        self.inputs, self.output = run.inputs, run.output
        metadata = run.metadata.copy()
        self.metadata = [*metadata, *metadata.values()]
        self.copies: dict[int, tuple[Any, JSON]] = {}
        """Of each value, by its id, itself and its copy."""
        self.said = said = copy.copy(run)
        said._said, said._kept_by, said._size = None, set(), 0
        said.status, said.model, said.usage, said.tags = self.status, self.model, self.usage, self.tags
        known = {} if before is None else before.copies
        said.inputs = self._copy(self.inputs, known)
        said.output = self._copy(self.output, known)
        said._metadata = {str(key): self._copy(value, known) for key, value in metadata.items()}

    def _copy(self, value: Any, known: dict[int, tuple[Any, JSON]]) -> Any:
        found = known.get(id(value))
        if found is None:
            copied, size = payload.sized_snapshot(value)
            self.said._size += size
            found = value, copied
        self.copies[id(value)] = found
        return found[1]

    def has_metadata_of(self, run: Run) -> bool:
        """Tell whether the metadata are the same objects: 50 ns for each, however large it is."""
        metadata = run.metadata
        return 2 * len(metadata) == len(self.metadata) and all(map(is_, [*metadata, *metadata.values()], self.metadata))


def run_as_of_now(run: Run) -> Run:
    """Return a copy of ``run`` with bounded plain data; its events share one until something else is set on the run.

    What is changed inside of a value, as in a list that is in the metadata, is seen in the copy made when the run ends.
    """
    before = run._said
    if before is None or before.status != run.status:
        run._said = before = Copied(run, None)
    elif (
        # Long, and without a call where there are no metadata, because it runs on every token.
        run.model is not before.model
        or run.usage is not before.usage
        or run.output is not before.output
        or run.inputs is not before.inputs
        or run.tags is not before.tags
        or ((run._metadata or before.metadata) and not before.has_metadata_of(run))
    ):
        run._said = before = Copied(run, before)
    return before.said


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
    size = 0
    for name in _slots(cast("Hashable", type(event)))[0]:
        value = getattr(event, name)
        if value is not None:
            size += len(value) if type(value) is str else _rough_size(value)
    return size


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
