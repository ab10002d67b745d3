"""A run on its way into the store: what the writer knows of it until it has ended, and of how its usage is counted.

How rows get into the tables is in ``writer``.
"""

from __future__ import annotations

import importlib
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, cast

import msgspec

from ...figures import count
from ...payload import INT64, encode
from ...runs import COUNTS, Usage
from ..notes import Beside, Facts
from .answers import PriceList
from .bodies import NOTHING, Body, Encoder, error_words, headline, output_words, words
from .records import Ended, Happened, Record, Started, Token
from .steps import Steps

__all__ = ["REPLAY_KEY", "Event", "Prepared", "Preparer", "Row", "signed"]

REPLAY_KEY: Final = "tracebus.replay_of"
"""The name in a run's metadata under which a replay says which trace it repeats."""

_REPLAY_MARK: Final = f'"{REPLAY_KEY}"'.encode()
LOST_ENDS_KEPT: Final = 10_000
LOST_END_TRIES: Final = 20
"""For how many batches the start of a run is waited for whose end had to give way."""
_SPAN: Final = 0xFFFF_FFFF_FFFF_FFFF
_NO_COUNTS: Final = (None,) * len(COUNTS)
_counts_of: Final = attrgetter(*COUNTS)


def signed(number: int) -> int:
    """Return 64 bits as SQLite holds them."""
    return number - (1 << 64) if number >> 63 else number


class Row(msgspec.Struct, eq=False, gc=False):
    """One run. The collector does not look at it: it refers to the run above it, and nothing refers back."""

    seq: int
    high: int
    span: int
    trace: bytes
    parent: int | None
    outer_span: int | None
    sampled: bool
    is_root: bool
    above: Row | None
    top: bool
    name: str
    kind: str
    session: str | None
    user: str | None
    started_ns: int
    status: str = "open"
    model: str | None = None
    tags: list[str] = []
    inputs: Body = NOTHING
    output: Body = NOTHING
    error: Body = NOTHING
    metadata: Body = NOTHING
    streamed: Body = NOTHING
    asked: str = ""
    """The words of its inputs."""
    found_by: tuple[str, str, str] = ("", "", "")
    """What it is found by, once it has ended: inputs, output with what was streamed, error."""
    given: str | None = None
    """A line of the inputs, and the next two of the output and of the error, for lists."""
    told: str | None = None
    failure: str | None = None
    steps: Steps | None = None
    duration_ns: int | None = None
    first_token_ns: int | None = None
    tokens: tuple[int | None, ...] = _NO_COUNTS
    """The counts of its usage, in the order of COUNTS."""
    cost: float | None = None
    counts: bool = False
    used_below: bool = False
    masked: int = 0
    cut: bool = False
    is_ended: bool = False
    is_written: bool = False
    id: int = 0
    trace_row: int = 0

    @classmethod
    def of(cls, facts: Facts, beside: Beside, encoder: Encoder, above: Row | None) -> Row:
        """Return the row of a run that has started."""
        number, parent, outer = facts.number, facts.parent, facts.between
        row = cls(
            seq=facts.seq,
            high=signed(number >> 64),
            span=signed(number & _SPAN),
            trace=facts.trace.to_bytes(16),
            parent=None if parent is None else signed(parent),
            outer_span=None if outer is None else signed(outer),
            sampled=facts.sampled,
            is_root=facts.above is None,
            above=above,
            top=above is None,
            name=encoder.text(facts.named.name),
            kind=facts.named.kind,
            session=None if facts.session_id is None else encoder.text(str(facts.session_id)),
            user=None if facts.user_id is None else encoder.text(str(facts.user_id)),
            started_ns=facts.started_ns,
        )
        row.tell(beside, encoder)
        return row

    def tell(self, beside: Beside, encoder: Encoder) -> None:
        """Take over what may have been set while the run was open."""
        self.model = None if beside.model is None else encoder.text(str(beside.model))
        self.tags = encoder.texts(beside.tags)
        self.metadata = encoder.body(beside.metadata).without_containers()

    def use(self, usage: Usage) -> None:
        """Take over what the run has used, and what that cost."""
        self.tokens = _counts_of(usage)
        if self.model is not None and self.tokens != _NO_COUNTS:
            self.cost = cost_of(self.model, usage, self.started_ns)

    @property
    def text(self) -> str | None:
        """What was streamed, if it is not the output."""
        return cast("str | None", self.streamed.value)

    @property
    def is_failure(self) -> bool:
        """Whether the run counts among the errors."""
        return self.status == "error"

    def tags_json(self) -> str | None:
        """Return its tags as JSON, None if there are none."""
        return encode(self.tags).decode() if self.tags else None

    def take_words(self) -> None:
        """Take over what it is found by, after which its values are not needed."""
        self.found_by = self.asked, output_words(self.output.value, self.text), error_words(self.error.value)
        self.output = self.output.without_containers()
        self.error = self.error.without_containers()


class Event(msgspec.Struct, frozen=True):
    """Something that was said on a run or outside one."""

    row: Row | None
    trace: bytes | None
    span: int | None
    time_ns: int
    hook: str
    data: str


class Prepared:
    """A batch, ready to be written: what has to be done outside of a transaction is done."""

    __slots__ = ("changed", "events", "fresh", "is_committed", "late", "records")

    def __init__(self, records: int) -> None:
        self.records = records
        self.is_committed = False
        self.fresh: list[Row] = []
        """Runs that are not in the store yet."""
        self.changed: dict[int, Row] = {}
        """Runs that are, with something new, by number."""
        self.events: list[Event] = []
        self.late: list[Row] = []
        """Runs whose usage is to be taken off what an ancestor has counted that is no longer in memory."""

    def begin_again(self, open_rows: Iterable[Row]) -> None:
        """Write everything that is not finished as if it had not been written before."""
        known = {id(row): row for row in (*open_rows, *self.changed.values(), *self.fresh)}
        self.fresh = sorted(known.values(), key=lambda row: row.started_ns)
        self.changed = {}
        for row in self.fresh:
            row.is_written = False
            if row.steps is not None:
                row.steps.packed = row.steps.told = 0


class Preparer:
    """Makes rows of records, in the writer's thread, and keeps those of open runs."""

    def __init__(self, encoder: Encoder, project: str, *, keeps_replays: bool) -> None:
        self.encoder = encoder
        self.project = project
        self._keeps_replays = keeps_replays
        self.forget()

    def forget(self) -> None:
        """Forget the open runs, as a forked child does with its parent's."""
        self.open: dict[int, Row] = {}
        self.lost_ends: deque[Ended] = deque(maxlen=LOST_ENDS_KEPT)
        """Ends of runs that had to give way, but for their content."""
        self._lost_starts: set[int] = set()
        """Open runs whose start had to give way: their ends need not be remembered."""
        self.unshown: dict[int, Row] = {}
        """Runs whose streamed text there was no time to write."""
        self._waiting_ends: list[tuple[Ended, int]] = []
        self._replays: set[int] = set()

    def lose(self, record: Record) -> None:
        """Remember of what gave way what costs next to nothing: that a run has ended, which may be open here."""
        if isinstance(record, Started):
            self._lost_starts.add(record.facts.seq)
        elif isinstance(record, Ended):
            try:
                self._lost_starts.remove(record.facts.seq)
            except KeyError:
                self.lost_ends.append(record.without_content())

    def prepare(self, records: Iterable[Record]) -> Prepared:
        """Return what is to be written for these records."""
        todo: list[Record] = list(records)
        batch = Prepared(len(todo))
        for record in todo:
            self._take[type(record)](self, record, batch)
        if self.lost_ends or self._waiting_ends:
            self._end_what_was_lost(batch)
        if self.unshown:
            batch.changed = {seq: row for seq, row in self.unshown.items() if not row.is_ended} | batch.changed
            self.unshown = {}
        return batch

    def _end_what_was_lost(self, batch: Prepared) -> None:
        """End the runs that are open here though they have ended; the start of one may still be in the queue."""
        waiting, self._waiting_ends = self._waiting_ends, []
        while self.lost_ends:
            waiting.append((self.lost_ends.popleft(), 0))
        for record, tries in waiting:
            row = self.open.get(record.facts.seq)
            if row is not None:
                self._end(record, batch)
                row.cut = True
            elif tries < LOST_END_TRIES:
                self._waiting_ends.append((record, tries + 1))

    def _start(self, record: Started, batch: Prepared) -> None:
        facts = record.facts
        if self._is_replay(facts, record.beside):
            self._replays.add(facts.seq)
            return
        row = self._new_row(facts, record.beside, batch)
        inputs = self.encoder.body(record.inputs)
        row.inputs = inputs.without_containers()
        row.given = headline(inputs.value)
        row.asked = words(inputs.value)
        self.open[facts.seq] = row

    def _new_row(self, facts: Facts, beside: Beside, batch: Prepared) -> Row:
        above = None if facts.above is None else self.open.get(facts.above.seq)
        row = Row.of(facts, beside, self.encoder, above)
        batch.fresh.append(row)
        return row

    def _is_replay(self, facts: Facts, beside: Beside) -> bool:
        if self._keeps_replays:
            return False
        if facts.above is not None and facts.above.seq in self._replays:
            return True
        return isinstance(beside.metadata, bytes) and _REPLAY_MARK in beside.metadata

    def _token(self, record: Token, batch: Prepared) -> None:
        row = self.open.get(record.seq)
        if row is None:
            return
        if row.steps is None:
            row.steps = Steps(row.started_ns)
        row.steps.add(record.time_ns, record.text)
        if row.is_written:
            batch.changed[row.seq] = row

    def _end(self, record: Ended, batch: Prepared) -> None:
        facts = record.facts
        if facts.seq in self._replays or self._is_replay(facts, record.beside):
            self._replays.discard(facts.seq)
            return
        row = self.open.pop(facts.seq, None)
        if row is None:  # its start was dropped
            self._lost_starts.discard(facts.seq)
            row = self._new_row(facts, record.beside, batch)
        row.tell(record.beside, self.encoder)
        row.is_ended = True
        row.status = record.status
        row.duration_ns = record.duration_ns
        row.first_token_ns = record.first_token_ns
        row.output = self.encoder.body(record.output)
        if record.error is not None:
            row.error = self.encoder.error(record.error)
            row.failure = headline(error_words(row.error.value))
        self._finish_stream(row)
        row.told = self._line_of_output(row)
        row.take_words()
        bodies = (row.inputs, row.output, row.error, row.metadata, row.streamed)
        row.masked = sum(body.masked for body in bodies)
        row.cut = any(body.cut for body in bodies)
        self._count(row, record.usage, batch)
        if row.is_written:
            batch.changed[row.seq] = row

    def _finish_stream(self, row: Row) -> None:
        if row.steps is None:
            return
        text = row.steps.text()
        streamed = self.encoder.body(text) if text else NOTHING
        if text and streamed.value != row.output.value:
            row.streamed = streamed

    def _line_of_output(self, row: Row) -> str | None:
        output = row.output.value if row.output.value is not None else row.streamed.value
        if row.kind == "retriever" and isinstance(output, list):
            return count(len(output), "document")
        return headline(output)

    def _count(self, row: Row, usage: Any, batch: Prepared) -> None:
        """Say whether the usage of the run is in the totals: it is when no run below it has one."""
        if isinstance(usage, Usage):
            row.use(_countable(usage))
        has_usage = row.tokens != _NO_COUNTS
        row.counts = has_usage and not row.used_below
        above, row.above = row.above, None
        if not has_usage and not row.used_below:
            return
        if above is not None and not above.is_ended:
            above.used_below = True
        elif row.parent is not None:
            batch.late.append(row)

    def _happen(self, record: Happened, batch: Prepared) -> None:
        facts = record.facts
        data = self.encoder.body(record.data).json or "{}"
        if facts is None:
            batch.events.append(Event(None, None, None, record.time_ns, record.hook, data))
        elif facts.seq not in self._replays:
            trace, span = facts.trace.to_bytes(16), signed(facts.number & _SPAN)
            batch.events.append(Event(self.open.get(facts.seq), trace, span, record.time_ns, record.hook, data))

    _take: Final[dict[type, Callable[[Preparer, Any, Prepared], None]]] = {
        Started: _start,
        Token: _token,
        Ended: _end,
        Happened: _happen,
    }


def _countable(usage: Usage) -> Usage:
    """Return a usage without counts that are none, or more than a table holds."""
    if all(count is None or (type(count) is int and count in INT64) for count in _counts_of(usage)):
        return usage
    known = {name: int(count) for name in COUNTS if isinstance(count := getattr(usage, name), int) and count in INT64}
    return Usage(**known)


def price_list() -> PriceList | None:
    """Return which prices costs are computed from, None where there are none."""
    prices = _prices()
    if prices is None:
        return None
    source, checked = prices.price_list()
    return PriceList(source, None if checked is None else checked.isoformat())


def cost_of(model: str, usage: Usage, time_ns: int) -> float | None:
    """Return what a call cost in US dollars, None where that is unknown."""
    prices = _prices()
    return None if prices is None else cast("float | None", prices.cost_of(model, usage, time_ns))


@lru_cache(maxsize=1)
def _prices() -> Any:
    """Load the prices when the first cost is computed; without them every cost is unknown."""
    try:
        return importlib.import_module(f"{__package__}.prices")
    except ImportError as error:
        logging.getLogger("tracebus").warning(
            'costs stay unknown, because prices cannot be loaded: %s; pip install "tracebus[store]"', error
        )
        return None
