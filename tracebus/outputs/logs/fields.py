"""What a line of JSON says of an event: structlog processors from an event to fields, and from fields to bytes.

How the same event reads on a terminal is in ``rows`` and ``layout``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias, cast

import msgspec

from ...events import (
    AgentAction,
    AgentFinish,
    ChainEnd,
    ChainError,
    ChainStart,
    ChatModelStart,
    CustomEvent,
    Event,
    LLMEnd,
    LLMError,
    LLMNewToken,
    LLMStart,
    RetrieverEnd,
    RetrieverError,
    RetrieverStart,
    Retry,
    SubscriberFailed,
    Text,
    ToolEnd,
    ToolError,
    ToolStart,
    prompts_of,
)
from ...links import link_to
from ...payload import Capture, captures_inputs, captures_outputs, encode, sanitize
from ...redaction import Redactor, default_redactor
from ...runs import Run, Usage
from ...subscriptions import name_of
from .wording import clean, clean_name, failure_of, main_alone

__all__ = ["FieldsOf", "as_json"]

Fields: TypeAlias = dict[str, Any]

OPEN_RUNS_KNOWN: Final = 10_000
"""Of how many open runs the ids are kept as text."""
TEXT_KEPT: Final = 4096
"""How long the last text may be that is kept, in characters."""


class FieldsOf:
    """A processor that makes fields of ``event_dict["event"]``, in the order in which they are read.

    Content is masked and bounded; what ``capture`` leaves out, and what is not known, has no field.
    """

    def __init__(self, capture: Capture, redactor: Redactor | None, viewer: str | None) -> None:
        self._takes_inputs = captures_inputs(capture)
        self._redactor = redactor
        self._viewer = viewer
        self._content = {
            **(_INPUT if captures_inputs(capture) else {}),
            **(_OUTPUT if captures_outputs(capture) else {}),
        }
        self._known: dict[Run | None, Fields] = {}
        self._now = (-1, "")
        self._cleaned: tuple[str, Redactor | None, Any] = ("", None, "")

    def __call__(self, logger: object, level: str, event_dict: Any) -> Fields:
        """Return the fields of the event."""
        # Long, in one piece and with private names, because it runs on every event: each call is 2 % of a line.
        event: Event = event_dict["event"]
        event_class = type(event)
        run = event.run
        is_end = event_class.is_end
        known = self._known.pop(run, None) if is_end else self._known.get(run)
        if known is None:
            known = self._beginning(run)
            if run is not None and (event_class.is_start or run.status == "open"):
                self._keep(run, known)
        fields = known.copy()
        milliseconds = event.time_ns // 1_000_000
        known_milliseconds, timestamp = self._now
        if milliseconds != known_milliseconds:
            timestamp = _timestamp(milliseconds)
            self._now = milliseconds, timestamp
        fields["event"] = event_class.signal_name
        fields["level"] = level
        fields["timestamp"] = timestamp
        if run is not None:
            if is_end:
                fields["status"] = run.status
                if run.duration_s is not None:
                    fields["duration_ms"] = int(run.duration_s * 10_000 + 0.5) / 10
                if run.first_token_s is not None:
                    fields["first_token_ms"] = int(run.first_token_s * 10_000 + 0.5) / 10
            if self._viewer is not None and (is_end or event_class.is_start):
                fields["link"] = link_to(self._viewer, run._trace_number(), run._number())
            if run.model is not None:
                fields["model"] = clean_name(run.model)
            if is_end and run.usage is not None:
                fields["usage"] = _usage(run.usage)
        add = _ADD.get(event_class)
        if add is not None:
            add(self, event, fields)
        name = self._content.get(event_class)
        if name is not None:
            value = getattr(event, name)
            if value is not None:
                # What a model answers, the chain around it answers again: the same text is masked once.
                redactor = self._redactor or default_redactor()
                known_text, known_redactor, cleaned = self._cleaned
                if value is not known_text or redactor is not known_redactor:
                    cleaned = clean(value, redactor)
                    if type(value) is str and len(value) <= TEXT_KEPT:
                        self._cleaned = value, redactor, cleaned
                fields[name] = cleaned
        if run is not None:
            tags = run.tags
            if type(tags) is not tuple or tags:  # set by the app, it may be anything, also what has no truth
                fields["tags"] = sanitize(tags, self._redactor)
            metadata = run._metadata or run._scope.metadata
            if metadata:
                fields["metadata"] = sanitize(metadata, self._redactor)
        return fields

    def _beginning(self, run: Run | None) -> Fields:
        """Return what is the same in all lines of a run, and room for what is not."""
        fields: Fields = {"event": "", "level": "", "timestamp": ""}
        if run is None:
            return fields
        run_id = _id_text(run._number())
        fields["run_id"] = run_id
        parent, scope = run.parent, run._scope
        if parent is not None:
            above = self._known.get(parent)
            fields["parent_run_id"] = _id_text(parent._number()) if above is None else above["run_id"]
            fields["trace_id"] = _id_text(run._trace_number()) if above is None else above["trace_id"]
        elif scope.remote is not None:
            fields["parent_span_id"] = f"{scope.remote.span_id:016x}"
            fields["trace_id"] = _id_text(run._trace_number())
        else:
            fields["trace_id"] = run_id if run._trace is None else _id_text(run._trace)
        fields["name"] = clean_name(run.name)
        fields["kind"] = run.kind
        if scope.session_id:
            fields["session_id"] = sanitize(scope.session_id, self._redactor)
        if scope.user_id:
            fields["user_id"] = sanitize(scope.user_id, self._redactor)
        return fields

    def _keep(self, run: Run, beginning: Fields) -> None:
        """Keep how the lines of a run begin, until it ends."""
        if len(self._known) >= OPEN_RUNS_KNOWN:  # of those whose end nobody hears
            self._known.clear()
        self._known[run] = beginning

    def add_prompts(self, event: LLMStart, fields: Fields) -> None:
        """Add what a text model is asked, and how it is called."""
        if self._takes_inputs:
            self._add_params(event, fields)
            fields["prompts"] = prompts_of(self._clean_main(event))

    def add_messages(self, event: ChatModelStart, fields: Fields) -> None:
        """Add what a chat model is asked, and how it is called."""
        if self._takes_inputs:
            self._add_params(event, fields)
            fields["messages"] = self._clean_main(event)

    def add_query(self, event: RetrieverStart, fields: Fields) -> None:
        """Add what a retriever is asked."""
        if self._takes_inputs:
            query = self._clean_main(event)
            if query is not None:
                fields["query"] = query

    def _clean_main(self, event: LLMStart | ChatModelStart | RetrieverStart) -> Any:
        # Masked before it is taken from under its name and text is made of it: a secret is known by the names around it.
        cleaned = clean(main_alone(event), self._redactor or default_redactor())
        if isinstance(event.inputs, dict) and isinstance(cleaned, dict):
            return next(iter(cast("Fields", cleaned).values()), None)
        return cleaned

    def _add_params(self, event: LLMStart | ChatModelStart, fields: Fields) -> None:
        if event.params:
            fields["params"] = sanitize(event.params, self._redactor)

    def add_index(self, event: LLMNewToken, fields: Fields) -> None:
        """Add which piece of an answer it is."""
        fields["index"] = event.index

    def add_error(self, event: ChainError | Retry | SubscriberFailed, fields: Fields) -> None:
        """Add what went wrong. An error is not content: it stays whatever is captured."""
        if event.error is not None:
            failure = failure_of(event.error, self._redactor)
            fields["error"] = {"type": failure.type, "message": failure.message}
            if failure.where is not None:
                fields["error"]["where"] = failure.where

    def add_tool(self, event: AgentAction, fields: Fields) -> None:
        """Add what an agent decided to use."""
        fields["tool"] = clean_name(event.tool)
        self.add_log(event, fields)

    def add_log(self, event: AgentAction | AgentFinish, fields: Fields) -> None:
        """Add why an agent decided so."""
        log = sanitize(event.log, self._redactor) if type(event) in self._content else ""
        if log not in ("", None):
            fields["log"] = log

    def add_retry(self, event: Retry, fields: Fields) -> None:
        """Add the how manieth attempt it is, when it is made, and why."""
        fields["attempt"] = event.attempt
        fields["wait_s"] = event.wait_s
        self.add_error(event, fields)

    def add_custom_name(self, event: CustomEvent, fields: Fields) -> None:
        """Add the name of the event; ``name`` is that of the run."""
        fields["custom_name"] = clean_name(event.name)

    def add_subscriber(self, event: SubscriberFailed, fields: Fields) -> None:
        """Add who failed, and on what."""
        fields["hook"] = event.hook
        fields["subscriber"] = name_of(event.subscriber)
        self.add_error(event, fields)


_INPUT: Final[dict[type[Event], str]] = {
    ChainStart: "inputs",
    ToolStart: "inputs",
}
"""What went in, by event, where it is one of its fields as it stands."""
_OUTPUT: Final[dict[type[Event], str]] = {
    LLMNewToken: "token",
    **dict.fromkeys((LLMEnd, ChainEnd, ToolEnd), "output"),
    RetrieverEnd: "documents",
    **dict.fromkeys((LLMError, ChainError, ToolError, RetrieverError), "output"),
    AgentAction: "tool_input",
    AgentFinish: "return_values",
    Text: "text",
    CustomEvent: "data",
}
"""What came out, and what was said on the way, by event."""
_ADD: Final[dict[type[Event], Callable[[FieldsOf, Any, Fields], None]]] = {
    LLMStart: FieldsOf.add_prompts,
    ChatModelStart: FieldsOf.add_messages,
    RetrieverStart: FieldsOf.add_query,
    LLMNewToken: FieldsOf.add_index,
    **dict.fromkeys((LLMError, ChainError, ToolError, RetrieverError), FieldsOf.add_error),
    AgentAction: FieldsOf.add_tool,
    AgentFinish: FieldsOf.add_log,
    Retry: FieldsOf.add_retry,
    CustomEvent: FieldsOf.add_custom_name,
    SubscriberFailed: FieldsOf.add_subscriber,
}
"""What else there is to say, by event."""


def _timestamp(milliseconds: int) -> str:
    """Return a moment, given in milliseconds since the epoch, in UTC (ISO 8601)."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:03d}Z"


def _id_text(number: int) -> str:
    """Return what ``str(uuid.UUID(int=number))`` does, in half the time."""
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _usage(usage: Any) -> Any:
    if not isinstance(usage, Usage):
        return sanitize(usage)
    counts = usage.as_dict()
    if counts.get("total_tokens") == counts.get("input_tokens", 0) + counts.get("output_tokens", 0):
        del counts["total_tokens"]  # it says nothing new
    return counts


# -- bytes -------------------------------------------------------------------------------------------------------------

_encode: Final = msgspec.json.Encoder().encode

# JSON escapes the controls below space itself. These it lets through, and a terminal or a viewer of lines obeys them.
_UNSAFE: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def as_json(logger: object, level: str, fields: Any) -> bytes:
    """Return the fields as one line of strict JSON: the last processor."""
    try:
        line = _encode(fields)
    except Exception:  # a lone surrogate, or what a rule or the app has put in the place of a text
        # Each by itself: the names of the fields are ours, and a `token` of them is no secret.
        line = encode({name: sanitize(value) for name, value in fields.items()})
    if not line.isascii() or b"\x7f" in line:
        line = _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", line.decode()).encode()
    return line + b"\n"
