"""The clients of the ``anthropic`` package: messages, whole and streamed, each call one run.

    from tracebus.integrations import anthropic
    anthropic.install()

The sender is ``"anthropic.messages"``, also for the beta messages. What is recorded is said in ``model_calls``, how the
clients are wrapped in ``http_clients``. Here is what a request and its answer hold.

Anthropic counts what it read from and wrote to its cache beside the input tokens; ``Usage.input_tokens`` is all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..runs import Usage
from ..sources import LibrarySource
from .http_clients import Endpoint, Requests
from .model_calls import Record, arguments_of, message
from .patching import Patches

__all__ = ["install", "uninstall"]


def _inputs(body: Mapping[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in body.items() if name not in ("messages", "system")}
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    return {"messages": [*system, *(body.get("messages") or ())], **rest}


class _Counts:
    """The token counts of a message; what comes later in a stream replaces what came before."""

    __slots__ = ("_known",)

    _INPUT, _READ, _WRITTEN = "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"
    _NAMES = (_INPUT, "output_tokens", _READ, _WRITTEN)

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def add(self, usage: Any) -> None:
        for name in self._NAMES:
            value = getattr(usage, name, None)
            if value is not None:
                self._known[name] = value
        thinking = getattr(getattr(usage, "output_tokens_details", None), "thinking_tokens", None)
        if thinking is not None:
            self._known["thinking_tokens"] = thinking

    def usage(self) -> Usage | None:
        known = self._known
        if not known:
            return None
        fresh, read, written = (known.get(name) for name in (self._INPUT, self._READ, self._WRITTEN))
        return Usage(
            None if fresh is None else fresh + (read or 0) + (written or 0),
            known.get("output_tokens"),
            cached_tokens=read,
            reasoning_tokens=known.get("thinking_tokens"),
            cache_write_tokens=written,
        )


class _Block:
    """One block of a message's content, whose text, thoughts or arguments may still be coming in."""

    __slots__ = ("block", "parts")

    def __init__(self, block: Any) -> None:
        self.block = block
        self.parts: list[str] = []

    def text(self, name: str) -> str:
        return (getattr(self.block, name, None) or "") + "".join(self.parts)

    def tool_call(self) -> dict[str, Any]:
        arguments = arguments_of("".join(self.parts)) if self.parts else self.block.input
        return {"id": self.block.id, "name": self.block.name, "arguments": arguments}


class MessagesAnswer:
    """Reads a message or the events of its stream."""

    def __init__(self) -> None:
        self.model: str | None = None
        self._id: str | None = None
        self._counts = _Counts()
        self._stop_reason: str | None = None
        self._blocks: dict[int, _Block] = {}

    @property
    def usage(self) -> Usage | None:
        """What was used so far."""
        return self._counts.usage()

    def add(self, event: Any) -> str | None:
        """Take in an event."""
        kind = event.type
        if kind == "content_block_delta":
            return self._add_delta(event.index, event.delta)
        if kind == "content_block_start":
            self._blocks[event.index] = _Block(event.content_block)
        elif kind == "message_start":
            self.read(event.message)
        elif kind == "message_delta":
            self._stop_reason = event.delta.stop_reason
            self._counts.add(event.usage)
        return None

    def _add_delta(self, index: int, delta: Any) -> str | None:
        part = getattr(delta, _PARTS.get(delta.type, ""), None)
        if not part:
            return None
        block = self._blocks.get(index)
        if block is None:
            block = self._blocks[index] = _Block(Record(type="text"))
        block.parts.append(part)
        return part if delta.type == "text_delta" else None

    def read(self, result: Any) -> None:
        """Take in a message, or the beginning of one."""
        self.model, self._id = result.model, result.id
        self._stop_reason = result.stop_reason
        self._counts.add(result.usage)
        self._blocks = {index: _Block(block) for index, block in enumerate(result.content or ())}

    def output(self) -> Any:
        """Return the message."""
        blocks = [block for _, block in sorted(self._blocks.items())]
        return message(
            "".join(block.text("text") for block in blocks if block.block.type == "text"),
            tool_calls=[block.tool_call() for block in blocks if block.block.type == "tool_use"],
            reasoning="\n\n".join(block.text("thinking") for block in blocks if block.block.type == "thinking"),
        )

    def metadata(self) -> dict[str, Any]:
        """Return the message's id and why it stopped."""
        reasons = [self._stop_reason] if self._stop_reason else []
        return {"response_id": self._id, "finish_reasons": reasons}


_PARTS = {"text_delta": "text", "input_json_delta": "partial_json", "thinking_delta": "thinking"}

_source = LibrarySource("anthropic.messages", "chat_model", "anthropic.messages")
_requests = Requests({"/v1/messages": Endpoint(_source, _inputs, MessagesAnswer)})
_patches = Patches("anthropic", "anthropic", _requests.points("Anthropic", "AsyncAnthropic"))


def install() -> None:
    """Make a run of each message that an Anthropic client asks for from now on, clients that exist included; twice is fine.

    A version of anthropic that is not as expected is left alone, with one warning.

    Raises MissingExtraError when anthropic or wrapt is not installed.
    """
    _patches.install()


def uninstall() -> None:
    """Let the clients be what they were. Streams that are open are followed to their end."""
    _patches.uninstall()
