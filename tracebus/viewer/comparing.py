"""Two traces side by side: which run of one is which of the other. What differs between two texts is in ``differences``."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from ..outputs.store import Reader, RunDetail, RunSummary, TraceSummary
from .differences import Difference, as_text, differences

__all__ = ["Comparison", "Pair", "RunComparison", "compare_runs", "compare_traces"]

MOST_RUNS: Final = 10_000
"""Of each trace; those behind are left out."""


class Pair(msgspec.Struct, frozen=True):
    """A run of the left trace and the one that it is in the right trace; None where there is no such run."""

    left: RunSummary | None
    right: RunSummary | None
    depth: int
    same: bool
    """Whether both ended alike, with the same model, the same input and the same output."""


class Comparison(msgspec.Struct, frozen=True):
    """Two traces and their runs, each before those below it."""

    left: TraceSummary
    right: TraceSummary
    rows: list[Pair]
    is_complete: bool
    """False when one has more runs than are compared."""


class RunComparison(msgspec.Struct, frozen=True):
    """What is different between two runs."""

    inputs: list[Difference]
    output: list[Difference]
    error: list[Difference]


def compare_runs(left: RunDetail, right: RunDetail) -> RunComparison:
    """Return what is different in what went in, what came out and what went wrong."""
    return RunComparison(
        differences(as_text(left.body.inputs), as_text(right.body.inputs)),
        differences(_output(left), _output(right)),
        differences(_error(left), _error(right)),
    )


def _output(run: RunDetail) -> str:
    return as_text(run.body.streamed if run.body.output is None else run.body.output)


def _error(run: RunDetail) -> str:
    error = run.body.error
    return "" if error is None else ": ".join(filter(None, (error.type, error.message)))


def compare_traces(reader: Reader, left: str, right: str) -> Comparison:
    """Return how the runs of two traces belong together: by their names, and those of one name by their order."""
    summaries = reader.trace(left), reader.trace(right)
    trees = [_Tree(reader, summary.trace_id) for summary in summaries]
    rows = list(_pairs(*trees))
    return Comparison(*summaries, rows, all(tree.is_complete for tree in trees))


class _Node:
    """A run with those below it."""

    def __init__(self, run: RunSummary) -> None:
        self.run = run
        self.below: list[_Node] = []


class _Tree:
    """The runs of a trace, and of each what tells its content from another's."""

    def __init__(self, reader: Reader, trace: str) -> None:
        page = reader.tree(trace, limit=MOST_RUNS)
        self.is_complete = page.after is None
        self.contents = reader.fingerprints(trace)
        self.tops: list[_Node] = []
        levels = [self.tops]
        for row in page.items:
            node = _Node(row.run)
            levels[row.depth].append(node)
            del levels[row.depth + 1 :]
            levels.append(node.below)


_Two: TypeAlias = tuple[_Node | None, _Node | None]


def _pairs(left: _Tree, right: _Tree) -> Iterator[Pair]:
    waiting = [(0, pair) for pair in reversed(_tops(left.tops, right.tops))]
    while waiting:
        depth, (one, other) = waiting.pop()
        is_same = one is not None and other is not None and _is_same(left, one.run, right, other.run)
        yield Pair(None if one is None else one.run, None if other is None else other.run, depth, is_same)
        below = _matched(one.below if one else [], other.below if other else [])
        waiting += [(depth + 1, pair) for pair in reversed(below)]


def _is_same(left: _Tree, one: RunSummary, right: _Tree, other: RunSummary) -> bool:
    return (one.status, one.model, one.kind, one.error, left.contents.get(one.span_id)) == (
        other.status,
        other.model,
        other.kind,
        other.error,
        right.contents.get(other.span_id),
    )


def _tops(left: list[_Node], right: list[_Node]) -> list[_Two]:
    """Match the roots; the only ones belong together whatever they are called."""
    if len(left) == len(right) == 1:
        return [(left[0], right[0])]
    return _matched(left, right)


def _matched(left: list[_Node], right: list[_Node]) -> list[_Two]:
    """Match siblings in the order of the left; what only the right has comes before what follows it there."""
    by_name: defaultdict[str, deque[int]] = defaultdict(deque)
    for position, node in enumerate(right):
        by_name[node.run.name].append(position)
    partners = [by_name[node.run.name].popleft() if by_name[node.run.name] else None for node in left]
    alone = deque(sorted(set(range(len(right))).difference(partner for partner in partners if partner is not None)))
    found: list[_Two] = []
    for node, partner in zip(left, partners, strict=True):
        while partner is not None and alone and alone[0] < partner:
            found.append((None, right[alone.popleft()]))
        found.append((node, None if partner is None else right[partner]))
    return found + [(None, right[position]) for position in alone]
