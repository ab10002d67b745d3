"""A web app that streams an answer: its runs continue the trace of the request, to the end of the stream."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

try:
    import httpx
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route
except ImportError as error:
    print(f"{error.name} is not installed: pip install starlette httpx")
    sys.exit(0)

from tracebus import inject, llm_end, scope, trace, traced
from tracebus.propagation import TraceMiddleware


@traced(kind="llm")
async def generate(prompt: str) -> AsyncIterator[str]:
    for word in f"An answer to {prompt}".split():
        await asyncio.sleep(0.01)
        yield f"{word} "


async def answer(request: Request) -> StreamingResponse:
    # The stream is read after this function has returned: it keeps the scope of the call that made it.
    with scope(user_id="u-1", tags=["web"]):
        return StreamingResponse(generate(request.query_params["q"]), media_type="text/plain")


app = Starlette(routes=[Route("/answer", answer)])
app.add_middleware(TraceMiddleware)


@llm_end.connect
def report(sender: Any, event: Any) -> None:
    run = event.run
    print(f"{run.name} for {run.user_id} {run.status}: {event.output!r}")
    print(f"    in trace {run.trace_id.hex}, under span {run.remote_parent.span_id:016x}")


async def main() -> None:
    """Ask the app, in this process and without a network."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        with trace("browser", kind="workflow", tags=["client"]) as run:
            print(f"browser is span {run.span_id:016x} of trace {run.trace_id.hex}")
            await client.get("/answer", params={"q": "everything"}, headers=inject())


asyncio.run(main())
