"""A scope says whose request it is: everything inside inherits session, user, tags and handlers, and nobody else's."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tracebus import AsyncCallbackHandler, chain_end, scope, traced


@traced(kind="llm", tags=["cached"])
async def generate(prompt: str) -> AsyncIterator[str]:
    for word in f"You said {prompt}.".split():
        await asyncio.sleep(0.01)  # the requests take turns here
        yield f"{word} "


@traced
async def answer(question: str) -> str:
    return "".join([token async for token in generate(question)])


class Transcript(AsyncCallbackHandler):
    """What one request heard."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.tokens.append(token)


async def request(user: str, question: str) -> Transcript:
    transcript = Transcript()
    # Handlers given here hear this request and all runs nested in it, and nothing of the one beside it.
    with scope(callbacks=[transcript], user_id=user, session_id=f"session of {user}", tags=["web"]):
        await answer(question)
    return transcript


@chain_end.connect
def who(sender: Any, event: Any) -> None:
    print(f"{event.run.name} for {event.run.user_id} in the {event.run.session_id}, tags {event.run.tags}")


async def main() -> None:
    ann, bob = await asyncio.gather(request("ann", "tea"), request("bob", "coffee"))
    print("ann heard:", "".join(ann.tokens))
    print("bob heard:", "".join(bob.tokens))

    # The same object wraps a callable for one request.
    carl = Transcript()
    await scope(callbacks=[carl], user_id="carl")(answer)("water")
    print("carl heard:", "".join(carl.tokens))


asyncio.run(main())
