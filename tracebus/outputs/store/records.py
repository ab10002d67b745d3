"""What the store notes of an event: a record for each start, token, end and whatever else is said.

What is noted of values, errors and runs is in ``notes``; masking, encoding and everything else that can wait is done by the
writer, in ``rows``.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from ...events import Event, LLMNewToken
from ...payload import Capture, captures_inputs, captures_outputs, snapshot
from ...runs import Run, Usage
from ...subscriptions import UNCOUNTED
from ..batches import BatchLane
from ..notes import FACTS_SIZE, Beside, Facts, Listener, Noted, OpenRuns, Said, as_said, metadata_of, note_fields

__all__ = ["Ended", "Happened", "Record", "Recorder", "Started", "Token"]


class Started(msgspec.Struct, gc=False):
    """A run has started."""

    size: int
    facts: Facts
    beside: Beside
    inputs: Said


class Token(msgspec.Struct, gc=False):
    """A run has streamed a token."""

    size: int
    seq: int
    """Of its run's start."""
    time_ns: int
    text: str


class Ended(msgspec.Struct, gc=False):
    """A run has ended."""

    size: int
    facts: Facts
    beside: Beside
    status: str
    duration_ns: int | None
    first_token_ns: int | None
    usage: Usage | None
    output: Said
    error: Noted | None

    def without_content(self) -> Ended:
        """Return what takes no room."""
        replace = msgspec.structs.replace
        return replace(self, size=0, beside=replace(self.beside, metadata=None), output=None, error=None)


class Happened(msgspec.Struct, gc=False):
    """Something else was said, on a run or outside one."""

    size: int
    facts: Facts | None
    time_ns: int
    hook: str
    data: bytes


Record: TypeAlias = "Started | Token | Ended | Happened"


class Recorder(Listener):
    """The subscriber: notes what is said and puts it into the lane."""

    def __init__(self, lane: BatchLane[Record], capture: Capture) -> None:
        self._put = lane.put_record
        self._takes_inputs = captures_inputs(capture)
        self._takes_outputs = captures_outputs(capture)
        self._runs = OpenRuns()

    def hear_start(self, sender: object, event: Any) -> object:
        """Note that a run starts."""
        run: Run = event.run
        inputs = as_said(event.inputs) if self._takes_inputs and event.inputs is not None else None
        metadata = metadata_of(run)
        size = FACTS_SIZE + len(inputs or b"") + len(metadata or b"")
        self._put(Started(size, self._runs.note(run), Beside(run.tags, run.model, metadata), inputs))
        return UNCOUNTED

    def hear_token(self, sender: object, event: LLMNewToken) -> object:
        """Note a token."""
        run = event.run
        if run is None:
            return None
        text = event.token if self._takes_outputs else ""
        if type(text) is not str or len(text) > 4096:
            text = str(snapshot(text))
        self._put(Token(120 + len(text), run._seq, event.time_ns, text))
        return UNCOUNTED

    def _end(self, run: Run, output: Any, error: Noted | None) -> None:
        facts = self._runs.known.pop(run._seq, None) or self._runs.facts_of(run)
        output = as_said(output) if self._takes_outputs and output is not None else None
        metadata = metadata_of(run)
        size = FACTS_SIZE + len(output or b"") + len(metadata or b"")
        beside = Beside(run.tags, run.model, metadata)
        started, ended, first = run._started, run._ended, run._first_token
        duration_ns = None if ended is None else ended - started
        first_ns = None if first is None else first - started
        self._put(Ended(size, facts, beside, run.status, duration_ns, first_ns, run.usage, output, error))

    def hear_other(self, sender: object, event: Event) -> object:
        """Note anything else."""
        data = note_fields(event, with_content=self._takes_outputs)
        facts = None if event.run is None else self._runs.facts_of(event.run)
        self._put(Happened(160 + len(data), facts, event.time_ns, event.signal_name, data))
        return UNCOUNTED
