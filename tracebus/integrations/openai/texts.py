"""What is no chat: completions, which continue a text, and embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...runs import Usage
from ..model_calls import one_or_all
from .chat import chat_usage

__all__ = ["CompletionsAnswer", "EmbeddingsAnswer", "completions_inputs"]


def completions_inputs(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is recorded of a request: the prompt first, then the parameters."""
    return {"prompt": body.get("prompt"), **body}


class CompletionsAnswer:
    """Reads a completion or its chunks, which look the same."""

    def __init__(self) -> None:
        self.model: str | None = None
        self.usage: Usage | None = None
        self._id: str | None = None
        self._texts: dict[int, list[str]] = {}
        self._reasons: dict[int, str] = {}

    def add(self, chunk: Any) -> str | None:
        """Take in a chunk."""
        self.model, self._id = chunk.model, chunk.id
        if chunk.usage is not None:
            self.usage = chat_usage(chunk.usage)
        token: str | None = None
        for choice in chunk.choices or ():
            token = choice.text or token
            self._texts.setdefault(choice.index, []).append(choice.text or "")
            if choice.finish_reason:
                self._reasons[choice.index] = choice.finish_reason
        return token

    def read(self, result: Any) -> None:
        """Take in a completion."""
        self._texts, self._reasons = {}, {}
        self.add(result)

    def output(self) -> Any:
        """Return the text, or the list of all where several were asked for."""
        return one_or_all(["".join(parts) for _, parts in sorted(self._texts.items())])

    def metadata(self) -> dict[str, Any]:
        """Return the answer's id and why each text ended."""
        return {"response_id": self._id, "finish_reasons": [reason for _, reason in sorted(self._reasons.items())]}


class EmbeddingsAnswer:
    """Reads how many vectors there are and how long they are; thousands of numbers say nothing to who reads a trace."""

    def __init__(self) -> None:
        self.model: str | None = None
        self.usage: Usage | None = None
        self._vectors: list[Any] = []

    def add(self, chunk: Any) -> str | None:
        """Embeddings have no stream."""

    def read(self, result: Any) -> None:
        """Take in the vectors."""
        self.model, self.usage = result.model, chat_usage(result.usage)
        self._vectors = [item["embedding"] if isinstance(item, dict) else item.embedding for item in result.data or ()]

    def output(self) -> Any:
        """Return ``count`` and ``dimensions``; those are unknown where the app has asked for vectors in base64."""
        lengths = {len(vector) for vector in self._vectors if not isinstance(vector, str)}
        return {"count": len(self._vectors), "dimensions": lengths.pop() if len(lengths) == 1 else None}

    def metadata(self) -> dict[str, Any]:
        """Return nothing."""
        return {}
