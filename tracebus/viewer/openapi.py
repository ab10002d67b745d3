"""The description of ``api`` that programs read, made of the same table that its routes are made of."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any, Final

import msgspec

from ..outputs.store import Changes
from .addresses import ANYTHING
from .api import ANSWERS, Answer
from .questions import Since

__all__ = ["description"]

REF: Final = "#/components/schemas/{name}"
PROBLEMS: Final = {
    "400": "The question makes no sense.",
    "404": "What is asked for is not in the store.",
    "409": "The store cannot be read: it is damaged, or of a newer tracebus.",
}


class Problem(msgspec.Struct, frozen=True):
    """What happened, and what to do."""

    error: str


def description() -> dict[str, Any]:
    """Return the API as OpenAPI 3.1 describes it (https://spec.openapis.org/oas/v3.1.0)."""
    kinds = [answer.kind for answer in ANSWERS]
    schemas, components = msgspec.json.schema_components([Problem, Changes, *kinds], ref_template=REF)
    problem, changes, *answers = schemas
    paths: dict[str, Any] = {}
    for answer, schema in zip(ANSWERS, answers, strict=True):
        operation = _operation(answer, _content("application/json", schema), problem)
        paths.setdefault(_path(answer), {})[answer.method.lower()] = operation
    events = Answer("GET", "/api/events", Since, _events, Changes, None)
    paths["/api/events"] = {"get": _operation(events, _content("text/event-stream", changes), problem)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "tracebus", "version": version("tracebus")},
        "paths": paths,
        "components": {"schemas": components},
    }


def _events() -> None:
    """What changes, as server-sent events named ``changes``; the id of each is the cursor to go on from."""


def _path(answer: Answer) -> str:
    return answer.path.replace(f":{ANYTHING}}}", "}")


def _operation(answer: Answer, content: dict[str, Any], problem: dict[str, Any]) -> dict[str, Any]:
    failures = {
        status: {"description": text, "content": _content("application/json", problem)} for status, text in PROBLEMS.items()
    }
    return {
        "operationId": answer.function.__name__.strip("_"),
        "summary": answer.function.__doc__,
        "parameters": [*_in_path(answer), *_in_query(answer)],
        "responses": {"200": {"description": "The answer.", "content": content}, **failures},
    }


def _content(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {kind: {"schema": schema}}


def _in_path(answer: Answer) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)\}", _path(answer))
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _in_query(answer: Answer) -> list[dict[str, Any]]:
    fields = msgspec.json.schema(answer.question)["$defs"][answer.question.__name__]
    required = fields.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": schema}
        for name, schema in fields["properties"].items()
    ]
