"""What a type checker sees of the public names. Read by mypy and pyright in `make types`, never run."""

from collections.abc import AsyncGenerator, Generator
from typing import assert_type

from tracebus import Run, current_run, trace, traced


@traced
def add(a: int, b: int = 0) -> int:
    return a + b


@traced(kind="tool")
async def look_up(word: str) -> list[str]:
    return [word]


@traced(kind="llm")
def words(text: str) -> Generator[str, None, int]:
    yield text
    return 1


@traced(kind="llm")
async def tokens(text: str) -> AsyncGenerator[str, None]:
    yield text


def a_traced_function_keeps_its_types() -> None:
    assert_type(add(1, b=2), int)
    assert_type(words("a"), Generator[str, None, int])
    assert_type(tokens("a"), AsyncGenerator[str, None])
    add("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def a_traced_coroutine_function_keeps_its_types() -> None:
    assert_type(await look_up("a"), list[str])


def a_block_gives_a_run() -> None:
    with trace("search", kind="retriever") as run:
        assert_type(run, Run)
    assert_type(current_run(), Run | None)
