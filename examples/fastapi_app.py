"""A FastAPI app that streams a model's answer: request, function and model call are one trace, and one user's.

With OPENAI_API_KEY set, OpenAI's service answers; without, one on this machine. To serve it: uvicorn examples.fastapi_app:app
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

try:
    import httpx
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse
    from openai import AsyncOpenAI
except ImportError as error:
    print(f"{error.name} is not installed: pip install fastapi httpx openai")
    sys.exit(0)

from tracebus import inject, llm_end, scope, trace, traced
from tracebus.integrations import openai
from tracebus.propagation import TraceMiddleware

openai.install()

app = FastAPI()
app.add_middleware(TraceMiddleware)


@traced
async def generate(question: str) -> AsyncIterator[str]:
    stream = await app.state.client.chat.completions.create(
        model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"), messages=[{"role": "user", "content": question}], stream=True
    )
    async for chunk in stream:
        if chunk.choices and (token := chunk.choices[0].delta.content):
            yield token


@app.get("/answer")
async def answer(q: str, user: str) -> StreamingResponse:
    with scope(user_id=user):  # the stream is read after this function has returned, and stays this user's
        return StreamingResponse(generate(q), media_type="text/plain")


@llm_end.connect
def report(sender: Any, event: Any) -> None:
    run = event.run
    print(f"{run.name} in {run.parent.name} for {run.user_id}, trace {run.trace_id.hex}: {run.status}, {event.output!r}")


async def main() -> None:
    """Ask the app, in this process."""
    from _offline import service

    question = "Why is the sky blue?"
    reply = {"content": "Because air scatters blue light more than red."}
    with service("OPENAI_API_KEY", {"match": {"userMessage": question}, "response": reply}) as address:
        app.state.client = AsyncOpenAI(base_url=f"{address}/v1", api_key="none needed") if address else AsyncOpenAI()
        transport = httpx.ASGITransport(app)
        async with app.state.client, httpx.AsyncClient(transport=transport, base_url="http://app") as browser:
            with trace("browser", kind="workflow") as run:
                print(f"trace {run.trace_id.hex} begins")
                await browser.get("/answer", params={"q": question, "user": "u-1"}, headers=inject())


if __name__ == "__main__":
    asyncio.run(main())
