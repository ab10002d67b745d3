"""The start: trace two functions, and see what happens inside."""

from collections.abc import Iterator

from tracebus import log_to_stdout, traced


@traced(kind="llm")
def generate(prompt: str) -> Iterator[str]:
    for word in "Because light is scattered by the air.".split():
        yield f"{word} "  # each str is a token


@traced
def answer(question: str) -> str:
    return "".join(generate(f"Q: {question}\nA:"))


log_to_stdout()
answer("Why is the sky blue?")
