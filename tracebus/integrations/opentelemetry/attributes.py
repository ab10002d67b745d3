"""What is in the attributes of a GenAI span, by the conventions of OpenTelemetry, OpenInference and OpenLLMetry.

Those of OpenTelemetry are v1.41.1, what came before it and what has been renamed since. All names are in the tables here;
what runs are made of them is in ``processor``.

Sources: https://github.com/open-telemetry/semantic-conventions/tree/v1.41.1/docs/gen-ai,
https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md and the package
opentelemetry-semantic-conventions-ai.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from ...runs import Kind, Usage
from ..model_calls import arguments_of

__all__ = [
    "first_token_of",
    "inputs_of",
    "kind_of",
    "metadata_of",
    "model_of",
    "name_of",
    "output_of",
    "session_of",
    "usage_of",
    "user_of",
]

Attributes: TypeAlias = Mapping[str, Any]

_KINDS: Final[dict[str, dict[str, Kind]]] = {
    "openinference.span.kind": {
        "LLM": "chat_model",
        "EMBEDDING": "embedding",
        "RETRIEVER": "retriever",
        "RERANKER": "reranker",
        "TOOL": "tool",
        "AGENT": "agent",
        "GUARDRAIL": "guardrail",
        "EVALUATOR": "evaluator",
        "CHAIN": "chain",
        "PROMPT": "chain",
    },
    "gen_ai.operation.name": {
        "chat": "chat_model",
        "generate_content": "chat_model",
        "text_completion": "llm",
        "embeddings": "embedding",
        "retrieval": "retriever",
        "execute_tool": "tool",
        "invoke_agent": "agent",
        "create_agent": "agent",
        "invoke_workflow": "workflow",
    },
    "llm.request.type": {"chat": "chat_model", "completion": "llm", "embedding": "embedding", "rerank": "reranker"},
    "traceloop.span.kind": {"workflow": "workflow", "agent": "agent", "tool": "tool", "task": "chain"},
}
"""The attributes that say what a span is, the most telling first. What they say beside these words is a step of a chain."""

_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "agent": ("gen_ai.agent.name", "agent.name", "traceloop.entity.name"),
    "tool": ("gen_ai.tool.name", "tool.name", "traceloop.entity.name"),
    "workflow": ("gen_ai.workflow.name", "traceloop.entity.name"),
    "chain": ("traceloop.entity.name",),
}
_MODELS: Final = (
    "gen_ai.response.model",
    "gen_ai.request.model",
    "llm.model_name",
    "embedding.model_name",
    "reranker.model_name",
)
_SESSIONS: Final = ("gen_ai.conversation.id", "session.id", "traceloop.association.properties.session_id")
_USERS: Final = ("user.id", "enduser.id", "traceloop.association.properties.user_id")

_FIRST_TOKEN: Final = ("gen_ai.response.time_to_first_chunk", "gen_ai.client.operation.time_to_first_chunk")

_INPUT_TOKENS: Final = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
_OUTPUT_TOKENS: Final = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion")
_TOTAL_TOKENS: Final = ("gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total")
_CACHED_TOKENS: Final = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "llm.token_count.prompt_details.cache_read",
)
_CACHE_WRITE_TOKENS: Final = (
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "llm.token_count.prompt_details.cache_write",
)
_REASONING_TOKENS: Final = (
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "llm.token_count.completion_details.reasoning",
)

_COUNTS: Final = {
    "input_tokens": _INPUT_TOKENS,
    "output_tokens": _OUTPUT_TOKENS,
    "total_tokens": _TOTAL_TOKENS,
    "cached_tokens": _CACHED_TOKENS,
    "reasoning_tokens": _REASONING_TOKENS,
    "cache_write_tokens": _CACHE_WRITE_TOKENS,
}

_INPUT_MESSAGES: Final = ("gen_ai.input.messages", "gen_ai.prompt")
_ALL_MESSAGES: Final = ("pydantic_ai.all_messages",)
"""What an agent was asked, followed by all that came of it."""
_OUTPUT_MESSAGES: Final = ("gen_ai.output.messages", "gen_ai.completion")
_SYSTEM: Final = "gen_ai.system_instructions"
_FLAT_MESSAGES: Final = {"in": ("llm.input_messages", "gen_ai.prompt"), "out": ("llm.output_messages", "gen_ai.completion")}

_INPUTS: Final = ("gen_ai.tool.call.arguments", "gen_ai.retrieval.query.text", "input.value", "traceloop.entity.input")
_OUTPUTS: Final = (
    "gen_ai.tool.call.result",
    "gen_ai.retrieval.documents",
    "output.value",
    "traceloop.entity.output",
    "final_result",
)

_PARAMETERS: Final = "gen_ai.request."
_METADATA: Final = {
    "gen_ai.provider.name": "provider",
    "gen_ai.system": "provider",
    "llm.provider": "provider",
    "llm.system": "provider",
    "gen_ai.response.id": "response_id",
    "gen_ai.response.finish_reasons": "finish_reasons",
    "gen_ai.tool.call.id": "tool_call_id",
    "server.address": "server_address",
    "server.port": "server_port",
}


_WITH_MESSAGES: Final = ("chat_model", "llm", "agent")


def kind_of(attributes: Attributes) -> Kind | None:
    """Return the kind of run that a span is; None for what is no step of an LLM app."""
    for name, kinds in _KINDS.items():
        word = attributes.get(name)
        if isinstance(word, str):
            return kinds.get(word) or kinds.get(word.upper()) or kinds.get(word.lower()) or "chain"
    return None


def name_of(attributes: Attributes, kind: Kind, span_name: str) -> str:
    """Return what agents, tools and workflows are called; other runs are called as their spans."""
    return _first(attributes, _NAMES.get(kind, ())) or span_name


def model_of(attributes: Attributes) -> str | None:
    """Return the model, as it calls itself if that is known."""
    model = _first(attributes, _MODELS)
    return model if isinstance(model, str) else None


def session_of(attributes: Attributes) -> str | None:
    """Return the conversation."""
    return _text(_first(attributes, _SESSIONS))


def user_of(attributes: Attributes) -> str | None:
    """Return the user."""
    return _text(_first(attributes, _USERS))


def usage_of(attributes: Attributes) -> Usage | None:
    """Return the tokens used, as far as they are told."""
    counts = {count: _count(_first(attributes, names)) for count, names in _COUNTS.items()}
    usage = Usage(**counts)
    return usage if usage.as_dict() else None


def first_token_of(attributes: Attributes) -> float | None:
    """Return the seconds to the first piece of a stream."""
    told = _first(attributes, _FIRST_TOKEN)
    return float(told) if isinstance(told, (int, float)) and not isinstance(told, bool) else None


def inputs_of(attributes: Attributes, kind: Kind) -> Any:
    """Return what the call was given; None when that is not told."""
    if kind in _WITH_MESSAGES:
        messages = _messages(attributes, _INPUT_MESSAGES, _FLAT_MESSAGES["in"]) or _asked(attributes)
        if messages:
            return {"messages": [*_system(attributes), *messages], **_parameters(attributes)}
    value = _decoded(_first(attributes, _INPUTS))
    if kind == "retriever" and value is not None:
        return {"query": value}
    return value if isinstance(value, Mapping) or value is None else {"input": value}


def _asked(attributes: Attributes) -> list[dict[str, Any]]:
    messages = _messages(attributes, _ALL_MESSAGES, ()) or []
    return list(itertools.takewhile(lambda message: message["role"] != "assistant", messages))


def output_of(attributes: Attributes, kind: Kind) -> Any:
    """Return what the call returned; None when that is not told."""
    if kind in _WITH_MESSAGES:
        messages = _messages(attributes, _OUTPUT_MESSAGES, _FLAT_MESSAGES["out"])
        if messages:
            answers = [_answer(message) for message in messages]
            return answers[0] if len(answers) == 1 else answers
    documents = _unflattened(attributes, "retrieval.documents.")
    if documents:
        return [document.get("document", document) for document in documents]
    return _decoded(_first(attributes, _OUTPUTS))


def metadata_of(attributes: Attributes) -> dict[str, Any]:
    """Return what is worth knowing beside."""
    found: dict[str, Any] = {}
    for name, ours in _METADATA.items():
        if name in attributes:
            found.setdefault(ours, _plain(attributes[name]))
    return found


# -- messages ----------------------------------------------------------------------------------------------------------


def _messages(attributes: Attributes, names: tuple[str, ...], flat: tuple[str, ...]) -> list[dict[str, Any]] | None:
    """Return the messages in neutral form, from a JSON text or from attributes for each of their fields."""
    told = _decoded(_first(attributes, names))
    if isinstance(told, list):
        return [message for one in told for message in _neutral(one)]
    if told is not None:
        return [{"role": "user" if flat is _FLAT_MESSAGES["in"] else "assistant", "content": told}]
    for prefix in flat:
        unflattened = _unflattened(attributes, f"{prefix}.")
        if unflattened:
            return [message for one in unflattened for message in _neutral(one.get("message", one))]
    return None


def _system(attributes: Attributes) -> list[dict[str, Any]]:
    told = _decoded(attributes.get(_SYSTEM))
    if told is None:
        return []
    return _neutral({"role": "system", "parts": told} if isinstance(told, list) else {"role": "system", "content": told})


def _neutral(message: Any) -> list[dict[str, Any]]:
    """Return a message as dicts with ``role`` and ``content``: one, and one more for each answer of a tool that is in it."""
    if not isinstance(message, Mapping):
        return [{"role": "user", "content": message}]
    role = message.get("role") or "user"
    parts = message.get("parts")
    if not isinstance(parts, list):
        return [_whole(role, message)]
    texts: list[str] = []
    neutral: dict[str, Any] = {"role": role, "content": None}
    answers: list[dict[str, Any]] = []
    for part in parts:
        _take_part(part if isinstance(part, Mapping) else {"content": part}, texts, neutral, answers)
    neutral["content"] = "".join(texts) or None
    is_empty = answers and len(neutral) == 2 and not texts
    return answers if is_empty else [neutral, *answers]


def _take_part(part: Mapping[str, Any], texts: list[str], neutral: dict[str, Any], answers: list[dict[str, Any]]) -> None:
    kind = part.get("type", "text")
    if kind == "text":
        texts.append(str(part.get("content", "")))
    elif kind in ("reasoning", "thinking"):
        neutral["reasoning"] = neutral.get("reasoning", "") + str(part.get("content", ""))
    elif kind == "tool_call":
        call = {"id": part.get("id"), "name": part.get("name"), "arguments": arguments_of(part.get("arguments"))}
        neutral.setdefault("tool_calls", []).append(call)
    elif kind == "tool_call_response":
        result = part.get("response", part.get("result"))
        answers.append({"role": "tool", "tool_call_id": part.get("id"), "content": result})
    else:
        neutral.setdefault("attachments", []).append(dict(part))


def _whole(role: str, message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if content is None and isinstance(message.get("contents"), list):
        content = [part.get("message_content", part) for part in message["contents"] if isinstance(part, Mapping)]
    neutral = {"role": role, "content": content}
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        neutral["tool_calls"] = [_call(call.get("tool_call", call)) for call in calls if isinstance(call, Mapping)]
    if message.get("tool_call_id"):
        neutral["tool_call_id"] = message["tool_call_id"]
    return neutral


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    said = function if isinstance(function, Mapping) else call
    return {"id": call.get("id"), "name": said.get("name"), "arguments": arguments_of(said.get("arguments"))}


def _answer(message: dict[str, Any]) -> Any:
    """Return the text of an answer, or the message where there is more than text."""
    return message["content"] if message.keys() <= {"role", "content"} else message


def _parameters(attributes: Attributes) -> dict[str, Any]:
    found = {
        name.removeprefix(_PARAMETERS): _plain(value) for name, value in attributes.items() if name.startswith(_PARAMETERS)
    }
    told = _decoded(attributes.get("llm.invocation_parameters"))
    return {**told, **found} if isinstance(told, Mapping) else found


# -- values ------------------------------------------------------------------------------------------------------------

_INDEX: Final = re.compile(r"\d{1,4}")


def _unflattened(attributes: Attributes, prefix: str) -> list[dict[str, Any]]:
    """Return the list that was flattened into ``prefix<i>.<path>``, in the order of the indices."""
    root: dict[str, Any] = {}
    for name, value in attributes.items():
        if name.startswith(prefix):
            _put(root, name.removeprefix(prefix).split("."), value)
    found = _with_lists(root)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _put(root: dict[str, Any], path: list[str], value: Any) -> None:
    for step in path[:-1]:
        below = root.setdefault(step, {})
        if not isinstance(below, dict):
            return
        root = below
    root[path[-1]] = _plain(value)


def _with_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {name: _with_lists(one) for name, one in value.items()}
    if inner and all(_INDEX.fullmatch(name) for name in inner):
        return [inner[name] for name in sorted(inner, key=int)]
    return inner


def _first(attributes: Attributes, names: Iterable[str]) -> Any:
    return next((attributes[name] for name in names if attributes.get(name) is not None), None)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _decoded(value: Any) -> Any:
    """Return what a JSON text holds when that is an object or a list; any other value as it is."""
    if not isinstance(value, str) or value[:1] not in ("{", "["):
        return _plain(value)
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
