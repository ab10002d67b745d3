"""A stream's run lasts as long as the stream, and says how it ended: used up, closed early, failed, cancelled."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

from tracebus import llm_end, llm_error, subscribe, traced


@traced(kind="llm")
def count(prompt: str) -> Iterator[str]:
    for number in range(1, 6):
        yield f"{number} "
        if prompt == "fail" and number == 2:
            raise RuntimeError("the connection was lost")


@traced(kind="llm")
async def count_slowly(prompt: str) -> AsyncIterator[str]:
    for number in range(1, 6):
        yield f"{number} "
        await asyncio.sleep(0.05)


def report(sender: Any, event: Any) -> None:
    run = event.run
    print(f"{run.name:<13}{run.status:<14}{event.signal_name:<11}{event.output!r}")


subscribe(report, llm_end, llm_error)


async def main() -> None:
    list(count("to the end"))

    for token in count("break"):
        if token == "3 ":
            break  # the generator is closed, and with it the run: partial output, no error

    with suppress(RuntimeError):
        list(count("fail"))

    async for _ in count_slowly("to the end"):
        pass

    with suppress(TimeoutError):
        async with asyncio.timeout(0.12):
            async for _ in count_slowly("too slow"):
                pass


asyncio.run(main())
