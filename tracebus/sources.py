"""Runs that somebody else reports, by ids of their own: a framework's callbacks, another tracer's spans, a stored trace.

How a run lives that our own code steps is in ``tracing``. A report is made wherever the framework makes it (another
thread, another context), so a reported run is never current by itself: ``current_in`` lets a framework say which one is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from typing import Any, Final
from weakref import ref

from . import runs
from .counts import Throttle
from .families import ASYNC, SYNC, Colour, Pending
from .late import uuid
from .runs import Run, Scope, Status, Usage, get_current, innermost
from .scopes import InnerScope
from .signals import Hook, bus
from .tracing import Source, fail_run, open_run, say, say_own_token, settle

__all__ = ["LibrarySource", "Reporter", "calling_run"]

SOURCES_KEPT: Final = 1_000
"""How many names of runs a reporter remembers what they share for."""

OPEN_KEPT: Final = 1_000
"""How many open runs a reporter has before it looks for some that have ended in another way than by its reports."""

ENDED_KEPT: Final = 1_000
"""How many ended runs a reporter still knows, for reports that come late."""


_callers: Final[list[Callable[[], Run | None]]] = []


def calling_run() -> Run | None:
    """Return the run of a framework that is calling a model here, None when no framework says so."""
    return next((run for find in list(_callers) if (run := find()) is not None), None)


class LibrarySource(Source):
    """What is the same for all runs of one kind that an integration makes of what a library does.

    A library that ``takes_parts`` does not tell of tokens: those of a provider's client that it calls are said on its run.
    """

    __slots__ = ("takes_parts",)

    def __init__(self, name: str, kind: str, sender: str, *, takes_parts: bool = False) -> None:
        super().__init__(name, kind, sender)
        self.takes_parts = takes_parts


class Reporter:
    """Make runs on the bus of what one framework reports about its own.

    ``sender`` is what receivers get as sender, such as ``"langchain"``. A key is what the framework knows a run by: any
    hashable value but None that is unique among its runs. Nothing here raises for what is reported late, twice or about a run
    whose start was never seen: it is ignored, and logged once, with the key as ``shown`` makes it readable.
    What a subscriber with ``raise_error`` raised does come through.

    A framework that reports from async code says so with ``colour=ASYNC``, and awaits what is returned unless that is None.
    Where the framework calls a model through a client that is traced, too, the call is the framework's run alone. With
    ``takes_parts`` that run gets what the client knows: for a framework that tells of no tokens itself.
    """

    def __init__(self, sender: str, *, takes_parts: bool = False, shown: Callable[[Any], object] = str) -> None:
        self.sender = sender
        self._shown = shown
        self._takes_parts = takes_parts
        self._open: dict[Hashable, Run] = {}
        self._ended: dict[Hashable, ref[Run]] = {}
        self._ended_in_turn: deque[Hashable] = deque()
        self._sources: dict[tuple[str, str], LibrarySource] = {}
        self._warnings = Throttle()
        self._look_at = OPEN_KEPT

    def __len__(self) -> int:
        """Return how many runs are open."""
        return len(self._open)

    def knows(self, key: Hashable) -> bool:
        """Tell whether the start of the run ``key`` was seen, not too long ago."""
        return key in self._open or key in self._ended

    def find(self, key: Hashable) -> Run | None:
        """Return the run that is known by ``key``, while it is open and, as long as anybody holds it, afterwards."""
        run = self._open.get(key)
        if run is None and (ended := self._ended.get(key)) is not None:
            run = ended()
        return run

    def start(
        self,
        key: Hashable,
        parent: Hashable | None = None,
        *,
        name: str,
        kind: str = "chain",
        inputs: Any = None,
        model: str | None = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        run_id: uuid.UUID | int | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        say: bool = True,
    ) -> Run | None:
        """Start the run ``key``, nested in the run ``parent`` or else in what is current here; None while nothing listens.

        A ``@traced`` run inside of ``parent`` that is current here is further in, and becomes the parent.
        A ``parent`` that was never seen makes a root. ``run_id``, a UUID or its number, is kept as the run's id. With
        ``say=False`` it is left to ``say_start`` to say so, which async code can await.

        Raises ArgumentError for an unknown kind.
        """
        known = self._open.get(key)
        if known is not None and known.status == "open":
            self.warn_once("twice", "%s reported the start of a run twice: %s", self.sender, self._shown(key))
            return known
        outside = self._outside(parent)
        if outside is None and not bus.live:
            return None
        if session_id is not None or user_id is not None:
            outside = _with_ids(outside, session_id, user_id)
        run = open_run(self._source(name, kind), outside, inputs, outside_is_sure=True, is_reported=True)
        if run_id is not None:
            run._id = int(run_id)
        if tags:
            run.tags = tuple(dict.fromkeys((*run.tags, *tags)))
        if metadata:
            run.metadata.update(metadata)
        run.model = model
        if len(self._open) >= self._look_at:
            self._forget_ended()
        self._open[key] = run
        if say:
            self.say_start(key)
        return run

    def is_heard(self, parent: Hashable | None = None) -> bool:
        """Tell whether anything listens, or could, to a run that ``start`` made here."""
        return bus.live or self._outside(parent) is not None

    def say_start(self, key: Hashable, colour: Colour = SYNC) -> Pending:
        """Say that the run ``key`` starts, which ``start`` made without saying so. It fails with what a subscriber raises."""
        run = self._open.get(key)
        if run is None:
            return None
        try:
            pending = run._source.family.say_start(run, colour)
        except BaseException as error:
            self.fail(key, error)
            raise
        return None if pending is None else self._started(key, pending)

    async def _started(self, key: Hashable, pending: Awaitable[None]) -> None:
        try:
            await pending
        except BaseException as error:
            remaining = self.fail(key, error, colour=ASYNC)
            if remaining is not None:
                await remaining
            raise

    def token(self, key: Hashable, token: str, chunk: Any = None, colour: Colour = SYNC) -> Pending:
        """Say that the run ``key`` streamed a piece of its answer."""
        run = self._known(key, "a token")
        return None if run is None else say_own_token(run, colour, token, chunk)

    def say(self, key: Hashable | None, hook: Hook[Any], *, colour: Colour = SYNC, **fields: Any) -> Pending:
        """Say something on the run ``key``; with None, on what is current here.

        Raises ArgumentError for fields that the hook's event does not have.
        """
        if key is None:
            current = innermost()
            return say(hook, current.run if isinstance(current, Scope) else current, fields, colour, current)
        run = self._known(key, hook.name)
        return say(hook, run, fields, colour) if run is not None and run.status == "open" else None

    def end(
        self,
        key: Hashable,
        *,
        output: Any = None,
        usage: Usage | None = None,
        model: str | None = None,
        status: Status = "ok",
        first_token_s: float | None = None,
        colour: Colour = SYNC,
    ) -> Pending:
        """End the run ``key``, unless it has ended; what was told about it before stays where nothing is given.

        ``first_token_s`` is for a framework that streams without telling of the tokens.
        """
        run = self._taken(key, output, usage, model)
        if run is None:
            return None
        if first_token_s is not None and run._first_token is None:
            run._first_token = run._started + round(first_token_s * 1e9)
        pending = run._source.family.end_run(run, colour, status)
        return pending if run.parent is not None else _settled(run, pending)

    def fail(
        self,
        key: Hashable,
        error: BaseException,
        *,
        output: Any = None,
        usage: Usage | None = None,
        model: str | None = None,
        status: Status | None = None,
        colour: Colour = SYNC,
    ) -> Pending:
        """End the run ``key`` with an error, unless it has ended; cancellations are told from errors by their type."""
        run = self._taken(key, output, usage, model)
        return None if run is None else _settled(run, fail_run(run, colour, error, status))

    def warn_once(self, about: str, message: str, *values: object) -> None:
        """Log a warning, the first time that it is ``about`` this."""
        self._warnings.warn(about, message, *values)

    def current_in(self, current_key: Callable[[], Hashable | None]) -> Callable[[], None]:
        """Let the framework say, through ``current_key``, which of its runs is current here; return what ends that.

        ``@traced`` functions, ``trace()`` blocks and ``current_run()`` then find that run.
        """
        return runs.find_with(lambda: self._open.get(current_key()))

    def calling_in(self, model_key: Callable[[], Hashable | None]) -> Callable[[], None]:
        """Let the framework say, through ``model_key``, which of its models is being called here; return what ends that.

        The run need not be current; what a provider's client does here is a part of it.
        """

        def find() -> Run | None:
            return self._open.get(model_key())

        _callers.append(find)
        return lambda: _callers.remove(find)

    def _outside(self, parent: Hashable | None) -> Run | Scope | None:
        if parent is None:
            return innermost()
        run = self.find(parent)
        if run is None:
            if bus.live and parent not in self._ended:
                self.warn_once(
                    "parent", "%s reported a run whose parent %s was not seen: it is a root", self.sender, self._shown(parent)
                )
            return get_current()  # what was cut from its parent is still a part of what it happens in
        if get_current() is None and len(runs.finders or ()) < 2:
            return run  # nothing else can be further in: the path of most
        current = innermost()
        if current is None or (isinstance(current, Run) and current.sender is self.sender):
            return run  # the framework knows best which of its runs is outside
        return current if run in current._seen or runs.is_inside(current, run) else run

    def _source(self, name: str, kind: str) -> LibrarySource:
        source = self._sources.get((name, kind))
        if source is None:
            if len(self._sources) >= SOURCES_KEPT:
                self._sources.clear()
            source = self._sources[name, kind] = LibrarySource(name, kind, self.sender, takes_parts=self._takes_parts)
        return source

    def _known(self, key: Hashable, what: str) -> Run | None:
        run = self._open.get(key)
        if run is None and key not in self._ended and bus.live:
            self.warn_once(
                "unknown", "%s reported %s of a run whose start was not seen: %s", self.sender, what, self._shown(key)
            )
        return run

    def _taken(self, key: Hashable, output: Any, usage: Usage | None, model: str | None) -> Run | None:
        run = self._open.pop(key, None)
        if run is None:
            self._known(key, "the end")
            return None
        # Remembered without a lock, which a forked child or the collector could find taken: each of these is one atomic step.
        self._ended[key] = ref(run)
        self._ended_in_turn.append(key)
        if len(self._ended_in_turn) > ENDED_KEPT:
            self._ended.pop(self._ended_in_turn.popleft(), None)
        if output is not None:
            run.output = output
        if usage is not None:
            run.usage = usage
        if model is not None:
            run.model = model
        return run

    def _forget_ended(self) -> None:
        for key, run in list(self._open.items()):
            if run.status != "open":
                self._open.pop(key, None)
        self._look_at = max(OPEN_KEPT, 2 * len(self._open))


def _settled(run: Run, pending: Pending) -> Pending:
    """Wait, in sync code, for what the trace of an outermost run left in queues."""
    if run.parent is None and pending is None:
        settle(run)
    return pending


def _with_ids(outside: Run | Scope | None, session_id: str | None, user_id: str | None) -> Run | Scope | None:
    around = outside._scope if isinstance(outside, Run) else outside or runs.ROOT_SCOPE
    if session_id in (None, around.session_id) and user_id in (None, around.user_id):
        return outside  # as everything nested in a run that brought them here
    run = outside if isinstance(outside, Run) else around.run
    return InnerScope(around, run, remote=around.remote, outside=outside, session_id=session_id, user_id=user_id)
