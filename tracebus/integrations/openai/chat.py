"""Chat completions: what a request and its answer hold, whole and in chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...runs import Usage
from ..model_calls import arguments_of, message, one_or_all

__all__ = ["ChatAnswer", "chat_inputs", "chat_usage"]


def chat_inputs(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is recorded of a request: the messages first, then the parameters."""
    return {"messages": body.get("messages"), **body}


def chat_usage(usage: Any) -> Usage | None:
    """Return the tokens that a chat completion used; completions and embeddings use the same names."""
    if usage is None:
        return None
    inputs, outputs = getattr(usage, "prompt_tokens_details", None), getattr(usage, "completion_tokens_details", None)
    return Usage(
        usage.prompt_tokens,
        getattr(usage, "completion_tokens", None),
        usage.total_tokens,
        cached_tokens=getattr(inputs, "cached_tokens", None),
        reasoning_tokens=getattr(outputs, "reasoning_tokens", None),
    )


class _Choice:
    """One of the answers, as far as it is known."""

    __slots__ = ("finish_reason", "refusal", "text", "tools")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.tools: dict[int, _ToolCall] = {}
        self.finish_reason: str | None = None

    def message(self) -> Any:
        calls = [call.as_dict() for _, call in sorted(self.tools.items())]
        return message("".join(self.text), tool_calls=calls, refusal="".join(self.refusal))


class _ToolCall:
    """A call that the model asks for, whose arguments come in pieces."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id: str | None = None
        self.name = ""
        self.arguments: list[str] = []

    def add(self, call: Any) -> None:
        """Take in a call, or a piece of one."""
        function = getattr(call, "function", None) or getattr(call, "custom", None)
        self.id = call.id or self.id
        self.name += getattr(function, "name", None) or ""
        self.arguments.append(getattr(function, "arguments", None) or getattr(function, "input", None) or "")

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, "arguments": arguments_of("".join(self.arguments))}


class ChatAnswer:
    """Reads a chat completion or its chunks."""

    def __init__(self) -> None:
        self.model: str | None = None
        self.usage: Usage | None = None
        self._id: str | None = None
        self._choices: dict[int, _Choice] = {}

    def add(self, chunk: Any) -> str | None:
        """Take in a chunk; the last one may hold nothing but the usage."""
        if self._id is None:
            self.model, self._id = chunk.model, chunk.id
        if chunk.usage is not None:
            self.usage = chat_usage(chunk.usage)
        token: str | None = None
        for choice in chunk.choices:
            token = self._add(choice.index, choice.delta, choice.finish_reason) or token
        return token

    def read(self, result: Any) -> None:
        """Take in a chat completion."""
        self.model, self._id = result.model, result.id
        self.usage = chat_usage(result.usage)
        self._choices = {}
        for choice in result.choices or ():
            self._add(choice.index, choice.message, choice.finish_reason)

    def _add(self, index: int, part: Any, finish_reason: str | None) -> str | None:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice()
        if finish_reason is not None:
            choice.finish_reason = finish_reason
        text: str | None = part.content
        if text:
            choice.text.append(text)
        if part.tool_calls:
            self._add_calls(choice, part.tool_calls)
        refusal = getattr(part, "refusal", None)  # not all who speak this format know it
        if refusal:
            choice.refusal.append(refusal)
        return text

    def _add_calls(self, choice: _Choice, calls: Any) -> None:
        for place, call in enumerate(calls):
            index = getattr(call, "index", None)  # chunks say which call they are a piece of
            choice.tools.setdefault(place if index is None else index, _ToolCall()).add(call)

    def output(self) -> Any:
        """Return the message, or the list of all where several were asked for."""
        return one_or_all([choice.message() for _, choice in sorted(self._choices.items())])

    def metadata(self) -> dict[str, Any]:
        """Return the answer's id and why each choice ended."""
        reasons = [choice.finish_reason for _, choice in sorted(self._choices.items()) if choice.finish_reason]
        return {"response_id": self._id, "finish_reasons": reasons}
