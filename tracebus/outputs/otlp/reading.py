"""What a run's record says, field by field, in words of our own; which attributes those are is in ``semconv``.

Values are masked here, once: what a span holds is made of what is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from ...events import main_input
from ...payload import INT64, JSON, short_text, without_secrets
from ...redaction import Redactor
from ...runs import COUNTS, Usage
from ..notes import Noted, Said
from .messages import answers_of, as_list, first_of, messages_of, text_parts
from .records import NO_CONTENT, SETTINGS, RunRecord
from .semconv import (
    MODELS,
    NO_PROVIDER,
    OPENINFERENCE_KINDS,
    OPENINFERENCE_PROVIDERS,
    OPENINFERENCE_SYSTEMS,
    OPERATIONS,
    PROVIDERS,
)

__all__ = ["Fields", "Masker", "error_of", "read_run"]

Fields: TypeAlias = dict[str, Any]

_decode: Final = msgspec.json.Decoder().decode


class Masker:
    """Takes the secrets out of what was noted. A text that comes again at once, as an answer in its chain, is masked once."""

    def __init__(self, redactor: Redactor | None) -> None:
        self._redactor = redactor
        self._last: tuple[str | None, JSON] = (None, None)

    def value(self, said: Said) -> Any:
        """Return a value without its secrets, in strict-JSON types."""
        if said is None or isinstance(said, bytes):
            return None if said is None else self.plain(_decode(said))
        known, masked = self._last
        if said is not known:
            masked = self.plain(said)
            self._last = said, masked
        return masked

    def plain(self, value: Any) -> Any:
        """Return bounded JSON types without their secrets."""
        return without_secrets(value, self._redactor)

    def text(self, value: object) -> str:
        """Return a short text without its secrets."""
        return short_text(value if isinstance(value, str) else str(value), self._redactor)


class _Run(NamedTuple):
    """What the readers of the kinds look at."""

    record: RunRecord
    inputs: Mapping[str, Any]
    known: Mapping[str, Any]
    """The metadata, in which integrations say what only some libraries know."""
    asked: str | None
    """The model that was asked for, as far as it was known at the start."""
    answered: str | None


def read_run(record: RunRecord, masker: Masker) -> Fields:
    """Return what is known of a run. Fields that are None, or empty, are not known."""
    facts, beside = record.facts, record.beside
    kind = facts.named.kind
    metadata = masker.value(beside.metadata)
    known: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}
    inputs, output = masker.value(record.inputs), masker.value(record.output)
    fields: Fields = {
        "name": masker.text(facts.named.name),
        "kind": kind,
        "status": record.status,
        "operation": OPERATIONS.get(kind),
        "openinference_kind": OPENINFERENCE_KINDS.get(kind, "CHAIN"),
        "session": None if facts.session_id is None else masker.text(facts.session_id),
        "user": None if facts.user_id is None else masker.text(facts.user_id),
        "tags": [masker.text(tag) for tag in beside.tags],
        "metadata": metadata,
        "input": _only(inputs),
        "output": output,
        "chunks": record.tokens or None,
    }
    if record.usage is not None:
        _read_usage(record.usage, fields)
    asked, answered = (None if model is None else masker.text(model) for model in (record.asked_model, beside.model))
    _BY_KIND.get(kind, _read_step)(_Run(record, inputs if isinstance(inputs, dict) else {}, known, asked, answered), fields)
    return fields


def _only(inputs: Any) -> Any:
    """Return the only input that is a text, as the run is about it, or all of them."""
    if isinstance(inputs, dict) and len(inputs) == 1:
        (only,) = inputs.values()
        if isinstance(only, str):
            return only
    return inputs


def _read_usage(usage: Usage, fields: Fields) -> None:
    for name in COUNTS:
        fields[name] = _number(getattr(usage, name), int)


def error_of(noted: Noted, masker: Masker) -> tuple[str, str, str]:
    """Return the type of an error, its message, and its frames and causes as a text like Python's."""
    kind, message = _told(masker.plain(_decode(noted.said)))
    lines = ["Traceback (most recent call last):"] if noted.frames else []
    lines += [f'  File "{file}", line {line}, in {function}' for file, function, line in noted.frames]
    lines.append(f"{kind}: {message}")
    for cause in noted.causes:
        lines.append("caused by {}: {}".format(*_told(masker.plain(_decode(cause)))))
    return kind, message, masker.plain("\n".join(lines))


def _told(error: Any) -> tuple[str, str]:
    if isinstance(error, dict):
        return str(error.get("type") or "Exception"), str(error.get("message") or "")
    return "Exception", str(error)


# -- by kind -----------------------------------------------------------------------------------------------------------


def _read_step(run: _Run, fields: Fields) -> None:
    """Read what no other field says of a run that has no content of its own kind."""
    fields["step_input"], fields["step_output"] = fields["input"], fields["output"]


def _read_model(run: _Run, fields: Fields) -> None:
    """Read what a chat model and a text model have in common."""
    _read_request(run, fields)
    fields["model"] = fields["response_model"] or fields["request_model"]
    fields["response_id"] = _text(run.known.get("response_id"))
    fields["finish_reasons"] = reasons = [one for one in as_list(run.known.get("finish_reasons")) if isinstance(one, str)]
    fields["finish_reason"] = reasons[0] if reasons else None
    fields["stream"] = True if run.record.first_token_ns is not None else _number(run.inputs.get("stream"), bool)
    if run.record.first_token_ns is not None:
        fields["time_to_first_chunk"] = run.record.first_token_ns / 1e9
    fields["system_instructions"] = text_parts("text", run.inputs.get("instructions"))
    tools = run.inputs.get("tools")
    fields["tool_definitions"] = tools if isinstance(tools, list) else None
    fields["output_type"] = _output_type(run.inputs)
    fields["output_messages"] = answers_of(fields["output"], reasons, run.record.status)


def _read_chat(run: _Run, fields: Fields) -> None:
    _read_model(run, fields)
    messages, rest = _main(run, fields, ("messages",))
    fields["input_messages"] = messages_of(messages)
    fields["settings"] = _settings(rest)


def _read_text_model(run: _Run, fields: Fields) -> None:
    _read_model(run, fields)
    prompts, rest = _main(run, fields, ("prompts", "prompt"))
    fields["input_messages"] = messages_of(prompts)
    fields["settings"] = _settings(rest)
    fields["prompts"] = [one for one in as_list(prompts) if isinstance(one, str)]
    fields["completions"] = [one for one in as_list(fields["output"]) if isinstance(one, str)]


def _read_embedding(run: _Run, fields: Fields) -> None:
    _read_request(run, fields)
    embedded, rest = _main(run, fields, ("input", "texts", "text"))
    fields["step_input"] = fields["input"]
    if isinstance(fields["output"], list):  # the vectors, which nobody reads
        fields["output"] = None
    fields["embedding_model"] = fields["response_model"] or fields["request_model"]
    fields["embedded"] = [one for one in as_list(embedded) if isinstance(one, str)]
    fields["embedding_settings"] = _settings(rest)
    fields["encoding_formats"] = [one for one in (run.inputs.get("encoding_format"),) if isinstance(one, str)]


def _read_retriever(run: _Run, fields: Fields) -> None:
    fields["provider"] = _known_provider(run, None)
    _read_server(run, fields)
    fields["request_model"] = run.asked
    fields["data_source"] = _text(run.known.get("data_source_id"))
    fields["query"] = _main(run, fields, ("query",))[0]
    fields["documents"] = [_document(one) for one in as_list(fields["output"])]


def _read_reranker(run: _Run, fields: Fields) -> None:
    _read_step(run, fields)
    fields["reranker_query"] = run.inputs.get("query")
    fields["reranker_model"] = run.answered or run.asked
    fields["reranker_top_k"] = _number(first_of(run.inputs, "top_k", "top_n"), int)
    fields["reranker_input"] = [_document(one) for one in as_list(run.inputs.get("documents"))]
    fields["reranker_output"] = [_document(one) for one in as_list(fields["output"])]


def _read_tool(run: _Run, fields: Fields) -> None:
    fields["tool_name"] = fields["name"]
    fields["tool_type"] = "function"
    fields["tool_call_id"] = _text(run.known.get("tool_call_id"))
    fields["tool_description"] = _text(run.known.get("description"))
    fields["tool_arguments"] = run.inputs or fields["input"]
    fields["tool_result"] = fields["output"]


def _read_agent(run: _Run, fields: Fields) -> None:
    _read_step(run, fields)
    fields["agent_name"] = fields["name"]
    for name in ("id", "description", "version"):
        fields[f"agent_{name}"] = _text(run.known.get(f"agent_{name}"))
    model = run.answered or run.asked
    fields["request_model"] = model
    fields["provider"] = _known_provider(run, model)


def _read_workflow(run: _Run, fields: Fields) -> None:
    _read_step(run, fields)
    fields["workflow_name"] = fields["name"]


_BY_KIND: Final[dict[str, Callable[[_Run, Fields], None]]] = {
    "chat_model": _read_chat,
    "llm": _read_text_model,
    "embedding": _read_embedding,
    "retriever": _read_retriever,
    "reranker": _read_reranker,
    "tool": _read_tool,
    "agent": _read_agent,
    "workflow": _read_workflow,
}


def _main(run: _Run, fields: Fields, names: tuple[str, ...]) -> tuple[Any, Mapping[str, Any]]:
    """Return the input that a run is about, and the others."""
    if not run.inputs:
        return fields["input"], {}
    if run.inputs.keys() <= _ABOUT_NOTHING:
        fields["input"] = None
        return None, run.inputs
    return main_input(run.inputs, names)


# -- what a request asks for -------------------------------------------------------------------------------------------

_ABOUT_NOTHING: Final = NO_CONTENT | {"model"}
"""The inputs that are settings, and none that a run could be about: what there is where content is left out."""

_NO_SETTINGS: Final = frozenset({"tools", "instructions", "input", "prompt", "messages"})


def _read_request(run: _Run, fields: Fields) -> None:
    model = run.asked or _text(run.inputs.get("model")) or run.answered
    fields["request_model"], fields["response_model"] = model, run.answered
    fields["provider"] = provider = _known_provider(run, model) or NO_PROVIDER
    fields["openinference_provider"] = OPENINFERENCE_PROVIDERS.get(provider)
    fields["openinference_system"] = OPENINFERENCE_SYSTEMS.get(provider)
    _read_server(run, fields)
    for spelling in run.inputs.keys() & SETTINGS.keys():
        name, kind = SETTINGS[spelling]
        fields[name] = _number(run.inputs[spelling], kind)
    if fields.get("choice_count") == 1:  # which the convention leaves out
        fields["choice_count"] = None
    stop = as_list(first_of(run.inputs, "stop", "stop_sequences"))
    fields["stop_sequences"] = [one for one in stop if isinstance(one, str)]


def _read_server(run: _Run, fields: Fields) -> None:
    """Read what the metadata say of where the call went; a port says nothing without an address."""
    fields["server_address"] = address = _text(run.known.get("server_address"))
    fields["server_port"] = _number(run.known.get("server_port"), int) if address else None


def _settings(rest: Mapping[str, Any]) -> dict[str, Any] | None:
    return {name: value for name, value in rest.items() if name not in _NO_SETTINGS} or None


def _known_provider(run: _Run, model: str | None) -> str | None:
    """Return whose the model is: what a library says, else what the name of the run or of the model begins with."""
    sender = getattr(run.record.facts.named, "sender", None)
    told = (run.known.get("ls_provider"), run.known.get("provider"), sender, run.record.facts.named.name)
    return _provider(tuple(one for one in told if isinstance(one, str)), model or "")


@lru_cache(maxsize=1024)
def _provider(told: tuple[str, ...], model: str) -> str | None:
    maker, _, name = model.rpartition("/")
    for one in (*told, maker):
        if found := PROVIDERS.get(one.partition(".")[0].lower()):
            return found
    name = name.lower()
    return next((provider for start, provider in MODELS.items() if name.startswith(start)), None)


def _output_type(inputs: Mapping[str, Any]) -> str | None:
    wanted = inputs.get("response_format")
    if isinstance(wanted, dict) and isinstance(kind := wanted.get("type"), str):
        return "json" if kind.startswith("json") else kind
    modalities = inputs.get("modalities")
    return "speech" if isinstance(modalities, list) and "audio" in modalities else None


def _document(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        return {"content": given}
    held = given.get("document")
    fields = {**given, **held} if isinstance(held, dict) else given
    metadata = first_of(fields, "metadata", "meta")
    score = first_of(fields, "score", "relevance_score", "similarity")
    return {
        "id": first_of(fields, "id", "document_id", "doc_id"),
        "content": first_of(fields, "content", "page_content", "text", "document"),
        "score": _number(score, float),
        "metadata": metadata,
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any, kind: type) -> Any:
    """Return a number of this kind, None for anything else: an app may put anything anywhere."""
    if value is None or isinstance(value, bool) or kind is bool:
        return value if kind is bool and isinstance(value, bool) else None
    number = kind(value) if isinstance(value, int | float) else None
    return None if isinstance(number, int) and number not in INT64 else number
