"""What can be asked in the query of an address: a struct for each kind of question, whose fields are its parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

import msgspec

from ..errors import ArgumentError
from ..outputs.store import By, Filter, Grain

__all__ = [
    "Compared",
    "Latest",
    "Nothing",
    "Paged",
    "Points",
    "Searched",
    "Sessions",
    "Since",
    "Statistics",
    "Traces",
    "read",
]

Limit = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Nothing(msgspec.Struct, frozen=True, kw_only=True):
    """No parameters."""


class Paged(msgspec.Struct, frozen=True, kw_only=True):
    """A list that comes in pages; ``after`` is what the page before said."""

    limit: Limit = 50
    after: str | None = None


class Traces(Filter, frozen=True, kw_only=True):
    """A list of what a filter lets through."""

    limit: Limit = 50
    after: str | None = None


class Searched(Traces, frozen=True, kw_only=True):
    """The same among what has these words."""

    q: str


class Sessions(Paged, frozen=True, kw_only=True):
    """Conversations, of everybody or of one user."""

    user_id: str | None = None


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Two traces, or two runs as ``trace/run``."""

    left: str
    right: str


class Latest(msgspec.Struct, frozen=True, kw_only=True):
    """A list of the latest."""

    limit: Limit = 100


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What to group by, and between which times; the rest chooses by the same four."""

    by: list[By] = []
    since_ns: Count | None = None
    until_ns: Count | None = None
    project: str | None = None
    model: str | None = None
    name: str | None = None
    kind: str | None = None

    @property
    def only(self) -> dict[str, str]:
        """What is chosen by."""
        return {field: value for field in ("project", "model", "name", "kind") if (value := getattr(self, field)) is not None}


class Points(Statistics, frozen=True, kw_only=True):
    """The same over time."""

    grain: Grain = "hour"


class Since(msgspec.Struct, frozen=True, kw_only=True):
    """Where a live view begins: the ``cursor`` that was answered last."""

    since: Count | None = None


A = TypeVar("A", bound=msgspec.Struct)


def read(kind: type[A], parameters: Iterable[tuple[str, str]]) -> A:
    """Return what is asked; a parameter without a value is as good as none.

    Raises ArgumentError that names the parameter that is wrong.
    """
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    given: dict[str, Any] = {}
    for name, value in parameters:
        if name not in fields:
            raise ArgumentError(f"there is no parameter {name!r} here: choose from {', '.join(fields) or 'none'}")
        if not value:
            continue
        if fields[name].default_factory is list:
            given.setdefault(name, []).append(value)
        elif name in given:
            raise ArgumentError(f"{name!r} is given twice")
        else:
            given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ArgumentError(f"the query makes no sense: {str(error).replace('`$.', '`')}") from None
