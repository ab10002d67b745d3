"""The responses API: what a request and its answer hold, whole and in events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ...runs import Usage
from ..model_calls import Record, arguments_of, message
from .chat import chat_usage

__all__ = ["ResponsesAnswer", "responses_inputs"]


def responses_inputs(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is recorded of a request: ``instructions`` and ``input`` as messages first, then the parameters."""
    rest = {name: value for name, value in body.items() if name not in ("input", "instructions")}
    return {"messages": list(_messages(body.get("instructions"), body.get("input"))), **rest}


def _messages(instructions: Any, given: Any) -> Iterator[dict[str, Any]]:
    if instructions is not None:
        yield {"role": "system", "content": instructions}
    if isinstance(given, str):
        yield {"role": "user", "content": given}
        return
    for item in given or ():
        yield _message(item)


def _message(item: Any) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        return {"role": "user", "content": item}
    if "role" in item:
        return dict(item)
    kind = str(item.get("type"))
    if kind in _CALLS:
        call = {"id": item.get("call_id"), "name": item.get("name"), "arguments": arguments_of(item.get(_CALLS[kind]))}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if kind.endswith("_call_output"):  # a function's, a custom tool's, a shell's and more
        return {"role": "tool", "content": item.get("output"), "tool_call_id": item.get("call_id") or item.get("id")}
    return {"role": "assistant", "content": [item]}


_CALLS: Final = {"function_call": "arguments", "custom_tool_call": "input"}
"""The items that are calls of the app's own tools, and under which name they have what they call them with."""


def _usage(usage: Any) -> Usage | None:
    if usage is None:
        return None
    if hasattr(usage, "prompt_tokens"):  # litellm counts everything as a chat
        return chat_usage(usage)
    return Usage(
        usage.input_tokens,
        usage.output_tokens,
        usage.total_tokens,
        cached_tokens=getattr(usage.input_tokens_details, "cached_tokens", None),
        reasoning_tokens=getattr(usage.output_tokens_details, "reasoning_tokens", None),
    )


class ResponsesAnswer:
    """Reads a response, or the events of a stream, the last of which holds the whole response.

    Until then, and for a stream that does not get there, it is put together from the pieces.
    """

    def __init__(self) -> None:
        self.model: str | None = None
        self.usage: Usage | None = None
        self._id: str | None = None
        self._reason: str | None = None
        self._items: dict[int, Any] = {}

    def add(self, event: Any) -> str | None:
        """Take in an event."""
        read = self._READERS.get(event.type)
        return None if read is None else read(self, event)

    def read(self, result: Any) -> None:
        """Take in a response, finished or not."""
        self.model, self._id = result.model, result.id
        self.usage = _usage(result.usage)
        if result.output:
            self._items = dict(enumerate(result.output))
        self._reason = self._reason_of(result)

    def _reason_of(self, result: Any) -> str | None:
        """Return why a response ended, None while it has not; of a complete one this API does not say it: as chats would."""
        if result.status == "completed":
            return "tool_calls" if any(item.type in _CALLS for item in self._items.values()) else "stop"
        reason = getattr(getattr(result, "incomplete_details", None), "reason", None)
        return reason or (None if result.status in ("in_progress", "queued") else result.status)

    def _add_response(self, event: Any) -> None:
        self.read(event.response)

    def _add_item(self, event: Any) -> None:
        self._items[event.output_index] = event.item

    def _add_text(self, event: Any) -> str | None:
        self._part_of(event, "message").text.append(event.delta)
        text: str | None = event.delta
        return text

    def _add_arguments(self, event: Any) -> None:
        self._part_of(event, "function_call").text.append(event.delta)

    def _part_of(self, event: Any, kind: str) -> _Part:
        item = self._items.get(event.output_index)
        if not isinstance(item, _Part):
            item = self._items[event.output_index] = _Part(kind, item)
        return item

    _READERS: Mapping[str, Callable[[Any, Any], str | None]] = {
        "response.created": _add_response,
        "response.completed": _add_response,
        "response.incomplete": _add_response,
        "response.failed": _add_response,
        "response.output_item.added": _add_item,
        "response.output_item.done": _add_item,
        "response.output_text.delta": _add_text,
        "response.function_call_arguments.delta": _add_arguments,
    }

    def output(self) -> Any:
        """Return the message."""
        said: dict[str, list[Any]] = {"text": [], "tool_calls": [], "reasoning": [], "refusal": []}
        for _, item in sorted(self._items.items()):
            for name, value in _contents(item):
                said[name].append(value)
        return message(
            "".join(said["text"]),
            tool_calls=said["tool_calls"],
            reasoning="\n\n".join(said["reasoning"]),
            refusal="".join(said["refusal"]),
        )

    def metadata(self) -> dict[str, Any]:
        """Return the response's id and why it ended."""
        return {"response_id": self._id, "finish_reasons": [self._reason] if self._reason else []}


class _Part:
    """An item of the output whose text, or arguments, are still coming in."""

    __slots__ = ("item", "text", "type")

    def __init__(self, kind: str, item: Any) -> None:
        self.type = kind
        self.item = item
        self.text: list[str] = []

    def whole(self) -> Any:
        """Return what there is of it."""
        text = "".join(self.text)
        if self.type == "message":
            return Record(type="message", content=[Record(type="output_text", text=text)])
        item = self.item
        return Record(type=self.type, call_id=item.call_id if item else None, name=item.name if item else "", arguments=text)


def _contents(item: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(item, _Part):
        item = item.whole()
    if item.type == "message":
        for part in item.content:
            yield ("refusal", part.refusal) if part.type == "refusal" else ("text", part.text)
    elif item.type in _CALLS:
        arguments = getattr(item, _CALLS[item.type])
        yield "tool_calls", {"id": item.call_id, "name": item.name, "arguments": arguments_of(arguments)}
    elif item.type == "reasoning":
        for summary in item.summary or ():
            yield "reasoning", summary.text
