"""The clients of the ``openai`` package: chat completions, responses, completions and embeddings, each call one run.

    from tracebus.integrations import openai
    openai.install()

Senders are ``"openai.chat"``, ``"openai.responses"``, ``"openai.completions"`` and ``"openai.embeddings"``. What is recorded
is said in ``model_calls``, how the clients are wrapped in ``http_clients``; what a request and its answer hold, is in
``chat``, ``responses`` and ``texts``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...sources import LibrarySource
from ..http_clients import Endpoint, Requests
from ..model_calls import Answer
from ..patching import Patches
from .chat import ChatAnswer, chat_inputs
from .responses import ResponsesAnswer, responses_inputs
from .texts import CompletionsAnswer, EmbeddingsAnswer, completions_inputs

__all__ = ["install", "uninstall"]


def _endpoint(sender: str, kind: str, inputs: Callable[[Mapping[str, Any]], dict[str, Any]], answer: type[Answer]) -> Endpoint:
    return Endpoint(LibrarySource(sender, kind, sender), inputs, answer)


_requests = Requests(
    {
        "/chat/completions": _endpoint("openai.chat", "chat_model", chat_inputs, ChatAnswer),
        "/responses": _endpoint("openai.responses", "chat_model", responses_inputs, ResponsesAnswer),
        "/completions": _endpoint("openai.completions", "llm", completions_inputs, CompletionsAnswer),
        "/embeddings": _endpoint("openai.embeddings", "embedding", dict, EmbeddingsAnswer),
    }
)
_patches = Patches("openai", "openai", _requests.points("OpenAI", "AsyncOpenAI"))


def install() -> None:
    """Make a run of each call of an OpenAI client from now on, of clients that exist, too; twice is fine.

    Azure's clients are among them. A version of openai that is not as expected is left alone, with one warning.

    Raises MissingExtraError when openai or wrapt is not installed.
    """
    _patches.install()


def uninstall() -> None:
    """Let the clients be what they were. Streams that are open are followed to their end."""
    _patches.uninstall()
