"""Every call of an OpenAI client is a run, with its tokens as they come: one line installs it, the app stays as it is.

With OPENAI_API_KEY set, OpenAI's service answers; without, one on this machine.
"""

import asyncio
import os
import sys
from typing import Any

try:
    from openai import AsyncOpenAI
except ImportError:
    sys.exit('this needs openai: pip install "tracebus[examples]"')

from _offline import service

from tracebus import LLMNewToken, llm_end, llm_new_token, traced
from tracebus.integrations import openai

openai.install()

QUESTION = "Why is the sky blue?"
ANSWER = {
    "match": {"userMessage": QUESTION},
    "response": {
        "content": "Because air scatters blue light more than red.",
        "usage": {"prompt_tokens": 13, "completion_tokens": 9},
    },
}


@llm_new_token.connect
def show(sender: Any, event: LLMNewToken) -> None:
    print(event.token, end="|", flush=True)


@llm_end.connect_via("openai.chat")
def summarize(sender: Any, event: Any) -> None:
    run = event.run
    print(f"\n{run.model} in {run.parent.name}, {run.status}: first token after {run.first_token_s:.3f} s, {event.usage}")


@traced
async def answer(client: AsyncOpenAI, question: str) -> str:
    stream = await client.chat.completions.create(
        model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"),
        messages=[{"role": "user", "content": question}],
        stream=True,
        stream_options={"include_usage": True},  # the last chunk says what was used
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


async def main() -> None:
    with service("OPENAI_API_KEY", ANSWER) as address:
        async with AsyncOpenAI(base_url=f"{address}/v1", api_key="none needed") if address else AsyncOpenAI() as client:
            print(await answer(client, QUESTION))


asyncio.run(main())
