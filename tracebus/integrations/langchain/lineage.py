"""Which runs one handler of LangChain's knows, so that it is told of whole runs only, and of no parent that it never met.

In LangChain a handler hears a run from its start, and what has no parent there is a root: handlers keep state from start to
end, and let go of a trace at the end of its root. Here a handler may be attached while runs are open, or given to a scope or
a callable deep inside a run.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping
from uuid import UUID

from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer

from ...families import family_of
from ...runs import Run

__all__ = ["Lineage"]


class _Tree:
    """The runs under one root, as far as one handler knows them. It holds no run, which would never be collected then."""

    __slots__ = ("ids", "is_over")

    def __init__(self) -> None:
        self.ids: list[UUID] = []
        self.is_over = False


class Lineage:
    """Remember which runs ``handler`` has heard the start of.

    ``starts`` are the hooks of starts that it has a method for, each with the attribute by which it ignores them. Runs that it
    would not be told the start of in LangChain either are known to it all the same, as they are there.
    """

    def __init__(self, handler: object, starts: Mapping[str, str]) -> None:
        self.handler = handler
        self._starts = starts
        self._trees: weakref.WeakKeyDictionary[Run, _Tree] = weakref.WeakKeyDictionary()
        self._over: deque[_Tree] = deque()
        self._orders = handler.order_map if isinstance(handler, (BaseTracer, AsyncBaseTracer)) else None

    def knows(self, run: Run) -> bool:
        """Tell whether the handler heard the start of ``run``, or has no ear for such starts."""
        if run in self._trees:
            return True
        ignored_by = self._starts.get(family_of(run.kind).start.name)
        return ignored_by is None or bool(getattr(self.handler, ignored_by, False))

    def parent_of(self, run: Run) -> Run | None:
        """Return the nearest run around ``run`` that the handler knows."""
        parent = run.parent
        while parent is not None and not self.knows(parent):
            parent = parent.parent
        return parent

    def begin(self, run: Run) -> None:
        """Note that the handler hears the start of ``run``."""
        if run in self._trees:
            return  # as a chat model, and now as a text model
        parent = self.parent_of(run)
        tree = self._trees.get(parent) if parent is not None else None
        if tree is None:
            self._forget_what_is_over()
            tree = _Tree()
        self._trees[run] = tree
        if self._orders is not None:
            tree.ids.append(run.id)

    def end(self, run: Run) -> None:
        """Note that the handler hears the end of ``run``."""
        tree = self._trees.get(run)
        if tree is None:
            return
        tree.is_over = tree.is_over or self.parent_of(run) is None
        if tree.is_over and self._orders is not None:
            self._over.append(tree)

    def _forget_what_is_over(self) -> None:
        """Free what a tracer would keep about each run for ever: LangChain makes a tracer for each request, and drops it."""
        while self._over and self._orders is not None:
            try:
                tree = self._over.popleft()
            except IndexError:  # another thread took it
                return
            ids, tree.ids = tree.ids, []
            for run_id in ids:
                self._orders.pop(run_id, None)
