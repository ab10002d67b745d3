"""The runs of ``openai-agents`` (the package ``agents``), through its own trace processors.

    from tracebus.integrations import openai_agents
    openai_agents.install()

The sender is ``"openai_agents"``. A trace is a run of kind ``workflow``, whose group is the session; in it are the agents, the
model calls, tools, handoffs and guardrails. Inside of them, ``current_run()`` and what is ``@traced`` find their run.

The library tells what a model was asked and what it used when the call is over, and nothing of tokens: where OpenAI's client
is traced, too, its tokens are said on the same run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from ..runs import Usage
from ..sources import Reporter
from .model_calls import Record, arguments_of, message, one_or_all, without_headers
from .openai.responses import ResponsesAnswer, responses_inputs
from .patching import import_library

__all__ = ["install", "uninstall"]

_KINDS: Final = {
    "agent": "agent",
    "function": "tool",
    "generation": "chat_model",
    "response": "chat_model",
    "guardrail": "guardrail",
}
"""The kinds of run that the types of span are; others are steps of a chain."""


class _Processor:
    """Hears of traces and spans as agents tells of them. It is given once, and asked to be silent after ``uninstall()``."""

    def __init__(self) -> None:
        self.reporter = Reporter("openai_agents", takes_parts=True)
        self.installed = False
        self.added = False

    def on_trace_start(self, trace: Any) -> None:
        """Start the run of a whole workflow."""
        if self.installed:
            metadata = getattr(trace, "metadata", None)
            group = getattr(trace, "group_id", None)
            self.reporter.start(trace.trace_id, name=trace.name, kind="workflow", metadata=metadata, session_id=group)

    def on_trace_end(self, trace: Any) -> None:
        """End it."""
        self.reporter.end(trace.trace_id)

    def on_span_start(self, span: Any) -> None:
        """Start a run."""
        if self.installed:
            data = span.span_data
            self.reporter.start(
                span.span_id,
                span.parent_id or span.trace_id,
                name=data.type if data.type == "task" else getattr(data, "name", None) or data.type,
                kind=_KINDS.get(data.type, "chain"),
                inputs=_inputs(data),
                model=getattr(data, "model", None),
            )

    def on_span_end(self, span: Any) -> None:
        """End a run, with what was not known before."""
        data, key = span.span_data, span.span_id
        run = self.reporter.find(key)
        if run is None:
            return
        run.inputs = _inputs(data) or run.inputs
        told = _told(data)
        if run.usage is not None:  # the client has told it, and of what is in a cache, too
            told.pop("usage", None)
        if span.error is None:
            self.reporter.end(key, **told)
        else:
            self.reporter.fail(key, AgentsError(span.error), **told)

    def shutdown(self) -> None:
        """Do nothing: what is open at exit is said by whom it belongs to."""

    def force_flush(self) -> None:
        """Do nothing: everything has been said when it happened."""


class AgentsError(Exception):
    """What agents tells of an error: a message, and ``data``. The exception itself reaches the app, and not us."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message")))
        self.data = error.get("data")


def _inputs(data: Any) -> Any:
    given = getattr(data, "input", None)
    if data.type == "function":
        return arguments_of(given)
    if data.type == "response":
        return None if given is None else responses_inputs({"input": given, **_parameters(data.response)})
    if data.type == "generation":
        parameters = {name: value for name, value in (data.model_config or {}).items() if value is not None}
        return None if given is None else {"messages": list(given), "model": data.model, **without_headers(parameters)}
    if data.type == "handoff":
        return {"from": data.from_agent, "to": data.to_agent}
    if data.type == "agent":
        known = {name: getattr(data, name, None) for name in ("tools", "handoffs", "output_type")}
        return {name: value for name, value in known.items() if value} or None
    return given if given is not None else getattr(data, "data", None)


def _parameters(response: Any) -> dict[str, Any]:
    known = {name: getattr(response, name, None) for name in ("instructions", "model", "temperature", "top_p")}
    return {name: value for name, value in known.items() if value is not None}


def _told(data: Any) -> dict[str, Any]:
    """Return what a span's data holds of output, usage and the model that answered at its end."""
    if data.type == "response" and data.response is not None:
        answer = ResponsesAnswer()
        answer.read(data.response)
        return {"output": answer.output(), "usage": answer.usage, "model": answer.model}
    if data.type == "generation":
        return {
            "output": one_or_all([_message(one) for one in data.output or ()]),
            "usage": _usage(data.usage),
        }
    if data.type == "guardrail":
        return {"output": {"triggered": data.triggered}}
    if data.type == "mcp_tools":
        return {"output": data.result}
    return {"output": getattr(data, "output", None)}


def _message(output: Any) -> Any:
    """Return an answer of a model in neutral form: agents tells of whole responses, or of the messages of chat completions."""
    if not isinstance(output, Mapping):
        return output
    record = json.loads(json.dumps(output, default=str), object_hook=Record)
    if "output" in record:
        answer = ResponsesAnswer()
        answer.read(record)
        return answer.output()
    calls = [{"id": call.id, **_function(call.function)} for call in record.tool_calls or ()]
    return message(record.content, tool_calls=calls, refusal=record.refusal)


def _function(function: Any) -> dict[str, Any]:
    return {"name": function.name, "arguments": arguments_of(function.arguments)}


def _usage(usage: Mapping[str, Any] | None) -> Usage | None:
    """Return what was used; agents says that it was nothing where the provider has not said."""
    if not usage or not (usage.get("input_tokens") or usage.get("output_tokens")):
        return None
    return Usage(usage.get("input_tokens"), usage.get("output_tokens"))


_processor: Final = _Processor()
_forget: list[Any] = []


def install() -> None:
    """Make runs of what agents does from now on, beside what processors there are; twice is fine.

    Raises MissingExtraError when openai-agents is not installed.
    """
    tracing = import_library("agents.tracing", "openai-agents")
    if _processor.installed:
        return
    _processor.installed = True
    _forget.append(_processor.reporter.current_in(lambda: _current_key(tracing)))
    if not _processor.added:  # agents has no way to take one out again
        _processor.added = True
        tracing.add_trace_processor(_processor)


def uninstall() -> None:
    """Start no runs any more; those that are open are followed to their end. agents keeps the processor, which is silent."""
    _processor.installed = False
    while _forget:
        _forget.pop()()


def _current_key(tracing: Any) -> Any:
    span = tracing.get_current_span()
    if span is not None:
        return span.span_id
    trace = tracing.get_current_trace()
    return None if trace is None else trace.trace_id
