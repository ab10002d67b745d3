"""What tracing costs a chunk of a stream that OpenAI's client reads: .venv/dev/bin/python tests/bench/clients.py

The client reads answers out of memory, untraced, traced while nothing listens, and traced with one subscriber, in turn; the
medians of the differences are printed, in microseconds of processor time a chunk: neighbours on the machine count less.
"""

import json
import sys
import time
from collections.abc import Iterator
from statistics import median

import httpx2
import openai

from tracebus import llm_new_token, subscribe
from tracebus.integrations import openai as integration

CHUNKS = 2_000
ROUNDS = 25


def chunk(index: int) -> bytes:
    delta = {"index": 0, "delta": {"content": f"token {index} "}, "finish_reason": None}
    data = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [delta]}
    return f"data: {json.dumps(data)}\n\n".encode()


BODY = b"".join(map(chunk, range(CHUNKS))) + b"data: [DONE]\n\n"


def answer(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=BODY)


def seconds(client: openai.OpenAI) -> float:
    stream = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
    start = time.process_time()
    count = sum(1 for _ in stream)
    assert count == CHUNKS
    return time.process_time() - start


def rounds(client: openai.OpenAI) -> Iterator[tuple[float, float, float]]:
    heard = []
    for _ in range(ROUNDS):
        integration.uninstall()
        bare = seconds(client)
        integration.install()
        silent = seconds(client)
        subscription = subscribe(lambda sender, event: heard.append(event.index), llm_new_token)
        listened = seconds(client)
        subscription.close()
        assert len(heard) == CHUNKS
        heard.clear()
        yield bare, silent, listened


def main() -> None:
    with openai.OpenAI(api_key="k", http_client=httpx2.Client(transport=httpx2.MockTransport(answer))) as client:
        measured = list(rounds(client))
    a_chunk = 1e6 / CHUNKS
    print(f"openai {openai.__version__}, Python {sys.version.split()[0]}, {ROUNDS} rounds of {CHUNKS} chunks, µs a chunk")
    print(f"untraced                {median(bare for bare, _, _ in measured) * a_chunk:7.2f}")
    print(f"traced, nobody listens {median(silent - bare for bare, silent, _ in measured) * a_chunk:+8.2f}")
    print(f"traced, one subscriber {median(heard - bare for bare, _, heard in measured) * a_chunk:+8.2f}")


if __name__ == "__main__":
    main()
