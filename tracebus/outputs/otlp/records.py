"""What is noted of a run: one record, queued when the run has ended, because a span is sent as a whole.

What the values in it are is in ``notes``; how they become a span is in ``spans``.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ...events import Event, LLMNewToken
from ...payload import Capture, captures_inputs, captures_outputs
from ...runs import Run, Usage
from ..batches import BatchLane
from ..notes import FACTS_SIZE, Beside, Facts, Listener, Noted, OpenRuns, Said, as_said, metadata_of, note_fields

__all__ = ["NO_CONTENT", "SETTINGS", "Happened", "Recorder", "RunRecord"]

HAPPENED_KEPT: Final = 200
"""How many events of one run are kept beside its start and its end."""
TOKENS_TIMED: Final = 10_000
"""Of how many tokens of one run the times are kept."""
OPEN_RUNS_NOTED: Final = 100_000
SETTINGS: Final[dict[str, tuple[str, type]]] = {
    "n": ("choice_count", int),
    "seed": ("seed", int),
    "top_k": ("top_k", float),
    "top_p": ("top_p", float),
    "temperature": ("temperature", float),
    "max_tokens": ("max_tokens", int),
    "max_completion_tokens": ("max_tokens", int),
    "max_output_tokens": ("max_tokens", int),
    "frequency_penalty": ("frequency_penalty", float),
    "presence_penalty": ("presence_penalty", float),
    "dimensions": ("dimensions", int),
}
"""The fields of a request, and of what type they are, by the names that providers give them."""

NO_CONTENT: Final = frozenset({*SETTINGS, "stream"})
"""The inputs of a model that are numbers and switches, and leave also where content does not."""


class Happened(msgspec.Struct, gc=False):
    """Something was said on a run while it was open."""

    time_ns: int
    hook: str
    data: bytes


class RunRecord(msgspec.Struct, gc=False):
    """A run that has ended."""

    size: int
    facts: Facts
    asked_model: str | None
    """The model that was asked for; ``beside`` has the one that answered."""
    beside: Beside
    inputs: Said
    status: str
    duration_ns: int | None
    first_token_ns: int | None
    tokens: int
    token_times: list[int]
    """When the tokens came, in nanoseconds since the epoch; no more than TOKENS_TIMED."""
    usage: Usage | None
    output: Said
    error: Noted | None
    happened: list[Happened]


class _Open(msgspec.Struct, gc=False):
    """What was noted of a run that is open."""

    facts: Facts
    model: str | None
    inputs: Said
    token_times: list[int]
    happened: list[Happened]


class Recorder(Listener):
    """The subscriber: notes what is said of a run, and puts it into the lane when the run has ended.

    What is counted as delivered of a start, a token or anything else that is said in between is that it was noted; of an
    end, that the receiver has acknowledged the run.
    """

    def __init__(self, lane: BatchLane[RunRecord], capture: Capture) -> None:
        self._lane = lane
        self._put = lane.put_record
        self._takes_inputs = captures_inputs(capture)
        self._takes_outputs = captures_outputs(capture)
        self._runs = OpenRuns()
        self._open: dict[int, _Open] = {}

    def hear_start(self, sender: object, event: Any) -> object:
        """Note what a run is given."""
        run: Run = event.run
        if len(self._open) >= OPEN_RUNS_NOTED:  # of those whose end nobody hears
            self._open.clear()
        self._open[run._seq] = _Open(self._runs.note(run), run.model, self._inputs(run, event.inputs), [], [])
        self._lane.get_ready()
        return None

    def hear_token(self, sender: object, event: LLMNewToken) -> object:
        """Note when a token came."""
        opened = None if event.run is None else self._open.get(event.run._seq)
        if opened is not None and len(opened.token_times) < TOKENS_TIMED:
            opened.token_times.append(event.time_ns)
        return None

    def hear_other(self, sender: object, event: Event) -> object:
        """Note what else is said on an open run."""
        opened = None if event.run is None else self._open.get(event.run._seq)
        if opened is not None and len(opened.happened) < HAPPENED_KEPT:
            data = note_fields(event, with_content=self._takes_outputs)
            opened.happened.append(Happened(event.time_ns, event.signal_name, data))
        return None

    def _end(self, run: Run, output: Any, error: Noted | None) -> None:
        # In one piece and with private names, because it runs in the app's own time.
        seq = run._seq
        self._runs.known.pop(seq, None)
        opened = self._open.pop(seq, None)
        if opened is None:  # it had started before anybody listened
            opened = _Open(self._runs.facts_of(run), None, None, [], [])
        inputs = opened.inputs
        if inputs is None and run.inputs is not None:  # known only now
            inputs = self._inputs(run, run.inputs)
        output = as_said(output) if self._takes_outputs and output is not None else None
        metadata = metadata_of(run)
        happened = opened.happened
        size = FACTS_SIZE + len(inputs or b"") + len(output or b"") + len(metadata or b"")
        if happened:
            size += sum(160 + len(one.data) for one in happened)
        started, ended, first = run._started, run._ended, run._first_token
        self._put(
            RunRecord(
                size,
                opened.facts,
                opened.model,
                Beside(run.tags, run.model, metadata),
                inputs,
                run.status,
                None if ended is None else ended - started,
                None if first is None else first - started,
                run._token_count,
                opened.token_times,
                run.usage,
                output,
                error,
                happened,
            )
        )

    def _inputs(self, run: Run, inputs: Any) -> Said:
        if inputs is None:
            return None
        if self._takes_inputs:
            return as_said(inputs)
        settings = {name: inputs[name] for name in NO_CONTENT & inputs.keys()} if type(inputs) is dict else None
        numbers = {name: value for name, value in (settings or {}).items() if type(value) in (int, float, bool)}
        return as_said(numbers) if numbers else None
