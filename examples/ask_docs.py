"""Ask this project's README a question: the steps that lead to the answer are runs, and you watch them happen.

    python examples/ask_docs.py "How do I subscribe to tokens?"

With OPENAI_API_KEY set (and OPENAI_BASE_URL, OPENAI_MODEL), that model answers. Without, a model that is built in says
the sentences that match the question best, so that this runs offline.
"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

try:
    import bm25s
except ImportError:
    sys.exit('this needs bm25s to search: pip install "tracebus[examples]"')

from tracebus import Event, Run, Usage, current_run, log_to_stdout, scope, traced

USE_OPENAI = bool(os.environ.get("OPENAI_API_KEY"))
README = Path(__file__).parent.parent / "README.md"
MODEL = os.environ.get("OPENAI_MODEL", "gpt-4o-mini") if USE_OPENAI else "extractive"
INSTRUCTIONS = "Answer in a few sentences, from these sections of the documentation only:"


def read_sections() -> dict[str, str]:
    """Return the README's text by heading, without its code."""
    prose = re.sub(r"^```.*?^```$|<!--.*?-->", "", README.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    parts = (part.partition("\n") for part in re.split(r"^#+ ", prose, flags=re.MULTILINE))
    return {heading: text.strip() for heading, _, text in parts if text.strip()}


def best_matches(question: str, texts: list[str], count: int) -> list[str]:
    """Return the texts that match the question best; fewer where fewer have a word in common with it."""
    if not texts:
        return []
    index = bm25s.BM25()
    index.index(_words(texts), show_progress=False)
    found, scores = index.retrieve(_words([question]), texts, k=min(count, len(texts)), show_progress=False)
    return [text for text, score in zip(found[0], scores[0], strict=True) if score > 0]


def _words(texts: list[str]) -> Any:
    return bm25s.tokenize(texts, stopwords="english_plus", stemmer=_singular, show_progress=False)


def _singular(words: Iterable[str]) -> list[str]:
    return [word.rstrip("s") for word in words]


# -- the app: a chain of a tool, a retriever and a model ---------------------------------------------------------------


@traced(kind="tool")
def open_section(heading: str) -> str:
    try:
        return read_sections()[heading]
    except KeyError:
        raise LookupError("no such section") from None


@traced(kind="retriever")
def search(query: str) -> list[str]:
    return best_matches(query, [f"{heading}\n\n{text}" for heading, text in read_sections().items()], 3)


@traced(kind="chat_model")
async def generate(messages: list[dict[str, str]], model: str) -> AsyncIterator[str]:
    run = current_run()  # None when nothing listens
    stream: Callable[..., AsyncIterator[str | Usage]] = stream_openai if USE_OPENAI else stream_sentences
    async for piece in stream(messages, model):
        if isinstance(piece, str):
            yield piece  # each is an llm_new_token
        elif run is not None:
            run.model, run.usage = model, piece


@traced
async def answer(question: str) -> AsyncIterator[str]:
    try:
        documents = [open_section(question)]
    except LookupError:  # the tool's run has failed, the chain goes on: most questions are no heading
        documents = search(question)
    system = "\n\n".join([INSTRUCTIONS, *documents])
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    async for token in generate(messages, MODEL):
        yield token


# -- two models --------------------------------------------------------------------------------------------------------


async def stream_openai(messages: list[dict[str, str]], model: str) -> AsyncIterator[str | Usage]:
    from openai import AsyncOpenAI  # the other model does without

    asked: dict[str, Any] = {"model": model, "messages": messages, "stream_options": {"include_usage": True}}
    async for chunk in await AsyncOpenAI().chat.completions.create(stream=True, **asked):
        if chunk.choices and (token := chunk.choices[0].delta.content):
            yield token
        if chunk.usage:
            yield Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)


async def stream_sentences(messages: list[dict[str, str]], model: str) -> AsyncIterator[str | Usage]:
    context, question = (message["content"] for message in messages)
    parts = re.split(r"(?<=[.?!])\s+|\n\n", context.removeprefix(INSTRUCTIONS))
    sentences = [part for part in parts if part.endswith(".") and len(part) > 40 and "|" not in part]
    said = ["The documentation says nothing about that."]
    for best in best_matches(question, sentences, 1):
        start = sentences.index(best)
        said = sentences[start : start + 2]
    words = " ".join(said).split()
    for word in words:
        yield f"{word} "
        await asyncio.sleep(0.02)
    yield Usage(input_tokens=len(context.split()) + len(question.split()), output_tokens=len(words))


# -- one request -------------------------------------------------------------------------------------------------------


class Summary:
    """Remembers the runs of one request. A handler is any callable, or any object with on_* methods."""

    def __init__(self) -> None:
        self.runs: dict[Run, None] = {}

    def __call__(self, sender: object, /, *, event: Event) -> None:
        if event.run is not None:
            self.runs[event.run] = None

    def __str__(self) -> str:
        lines = [("run", "kind", "time", "first token", "tokens", "status")]
        for run in self.runs:
            name = "  " * self._depth(run) + run.name
            first = "" if run.first_token_s is None else f"{run.first_token_s * 1000:.0f} ms"
            tokens = "" if run.usage is None else f"{run.usage.input_tokens} → {run.usage.output_tokens}"
            lines.append((name, run.kind, f"{(run.duration_s or 0) * 1000:.0f} ms", first, tokens, run.status))
        return "\n".join(f"{a:<18}{b:<12}{c:>8}{d:>14}{e:>13}   {f}" for a, b, c, d, e, f in lines)

    def _depth(self, run: Run) -> int:
        return 0 if run.parent is None else 1 + self._depth(run.parent)


async def main(question: str) -> None:
    log_to_stdout(tokens=True)
    summary = Summary()
    try:
        with scope(callbacks=[summary], session_id="demo", user_id="you"):
            async for _ in answer(question):
                pass  # a web app would send it on
    except Exception as error:
        sys.exit(f"no answer: {error}")
    finally:
        print(f"\n{summary}")


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "How do I subscribe to tokens?"))
