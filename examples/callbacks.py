"""Handlers: one object for many hooks, sync or async. Given at construction it hears one callable, at request all.

One handler prints each token, the other takes its time at the start and at the end; a chat model streams a joke to both,
on asyncio and on trio.
"""

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import anyio

from tracebus import AsyncCallbackHandler, BaseCallbackHandler, scope, traced

JOKES = {
    "tell me a joke": "Why did the developer go broke? Because he used up all his cache.",
    "给我讲个笑话": "程序员为什么总是分不清万圣节和圣诞节？因为 Oct 31 等于 Dec 25。",  # noqa: RUF001
}


class PrintTokens(BaseCallbackHandler):
    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        print(f"sync handler    token {token!r}")


class TakeTime(AsyncCallbackHandler):
    """The model waits for its handlers. The event loop does not: other tasks go on."""

    async def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], **kwargs: Any) -> None:
        print(f"async handler   {serialized['name']} starts: {prompts}")
        await anyio.sleep(0.3)

    async def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        await anyio.sleep(0.3)
        print(f"async handler   it said {response!r}")


class Chat:
    """A chat model that knows one joke in each language."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens

    @traced(kind="chat_model", name="Chat", callbacks=[PrintTokens(), TakeTime()])
    async def stream(self, messages: list[dict[str, str]]) -> AsyncIterator[str]:
        joke = JOKES[messages[-1]["content"]]
        pieces = joke.split(" ") if joke.isascii() else [joke[i : i + 2] for i in range(0, len(joke), 2)]
        for piece in pieces[: self.max_tokens]:
            await anyio.sleep(0)
            yield f"{piece} " if joke.isascii() else piece


async def at_construction(prompt: str) -> None:
    async for _ in Chat(max_tokens=25).stream([{"role": "user", "content": prompt}]):
        pass


# -- at request --------------------------------------------------------------------------------------------------------


@traced(kind="tool")
async def rate(joke: str) -> int:
    return joke.count("o") % 6


@traced
async def tell(prompt: str) -> int:
    messages = [{"role": "user", "content": prompt}]
    joke = "".join([token async for token in Chat(max_tokens=6).stream(messages)])
    return await rate(joke)


class Follow(BaseCallbackHandler):
    """What a request does, with the last digits of the ids of its runs."""

    def on_chain_start(self, serialized: dict[str, Any], inputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        print(f"request handler chain {serialized['name']} is run {str(run_id)[-4:]}, asked {inputs}")

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[dict[str, Any]]], *, parent_run_id: UUID | None, **kwargs: Any
    ) -> None:
        print(f"request handler model {serialized['name']} inside {str(parent_run_id)[-4:]}")

    def on_tool_start(self, serialized: dict[str, Any], input_str: str, *, parent_run_id: UUID | None, **kwargs: Any) -> None:
        print(f"request handler tool {serialized['name']} inside {str(parent_run_id)[-4:]}: {input_str!r}")

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        print(f"request handler run {str(run_id)[-4:]} returned {outputs!r}")


async def at_request() -> None:
    with scope(callbacks=[Follow()]):  # hears the chain and all that is nested in it, beside what Chat has of its own
        await tell("tell me a joke")
    await tell("tell me a joke")  # Follow hears nothing of this one


async def main() -> None:
    for prompt in JOKES:
        await at_construction(prompt)
    await at_request()


print("── asyncio")
asyncio.run(main())

print("── trio")
if importlib.util.find_spec("trio"):
    anyio.run(main, backend="trio")
else:
    print('not installed: pip install "anyio[trio]"')
