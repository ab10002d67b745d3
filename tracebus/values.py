"""Small values with named fields. A NamedTuple compiles its class from text wherever it is imported: half a dozen of them were
a fifth of what ``import tracebus`` took.
"""

from __future__ import annotations

__all__ = ["Value"]


class Value:
    """Compares, hashes and shows itself by its fields, which are its slots. Nobody changes one that is made."""

    __slots__ = ()

    def _fields(self) -> tuple[tuple[str, object], ...]:
        names: tuple[str, ...] = type(self).__slots__
        return tuple((name, getattr(self, name)) for name in names)

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        return self._fields() == other._fields() if isinstance(other, Value) and type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        """Hash by value."""
        return hash(self._fields())

    def __repr__(self) -> str:
        """Show the fields."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._fields())})"
