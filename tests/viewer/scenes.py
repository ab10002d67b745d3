"""A believable store to look at: an assistant that answers from documents, and an agent that books tables, over some days.

Times come from a clock that stands still, so that hours of talk are written in a moment.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tracebus import Usage, emit, llm_new_token, retry, scope, trace
from tracebus.outputs.store import save
from tracebus.signals import isolated
from tracebus.testing import Clock, deterministic

SYSTEM = "You answer questions about tracebus from the documents only. Say so when they do not hold the answer."
DOCUMENTS = [
    (
        "README.md#subscribing",
        0.871,
        "To subscribe to tokens, connect a function to the signal `llm_new_token`. It is called as "
        "`receiver(sender, event=event)`: the sender is the traced function, and `event.token` is what the model streamed.",
    ),
    ("README.md#signals", 0.734, "What happens in a run is said on these signals, which are blinker signals, found by name."),
    ("examples/signals.py", 0.655, "@llm_new_token.connect\ndef show(sender, event):\n    print(event.token)"),
]
ANSWER = (
    "Connect a function to `llm_new_token`. It hears **every token** as it arrives:\n\n"
    "```python\n@llm_new_token.connect\ndef show(sender, event):\n    print(event.token, end='')\n```\n\n"
    "1. `sender` is the traced function.\n2. `event.token` is the text that the model streamed.\n\n"
    "With `sender=` a receiver hears the runs of one function only."
)
QUESTIONS = [
    ("How do I subscribe to tokens?", ANSWER),
    ("Which signals does a retriever have?", "`retriever_start`, `retriever_end` and `retriever_error`."),
    ("Does it work under trio?", "Yes. Everything is built on anyio, and the whole suite runs on asyncio and on trio."),
    (
        "What happens when a subscriber fails?",
        "It is caught, counted and said on `subscriber_failed`; the app goes on.",
    ),
    ("Can I keep every run?", "Yes: `save()` keeps every run of the process in one SQLite file."),
]


def speak(clock: Clock, text: str, first_s: float, pace_s: float, dice: random.Random) -> None:
    """Stream a text at a pace, with a pause here and there."""
    clock.advance(first_s)
    for index, word in enumerate(text.split(" ")):
        if index:
            clock.advance(pace_s * dice.uniform(0.4, 1.6))
        if index and index % 17 == 0:
            clock.advance(dice.uniform(0.25, 0.55))
        emit(llm_new_token, token=word if not index else f" {word}")


def ask(clock: Clock, question: str, reply: str, dice: random.Random, model: str = "gpt-4o-mini") -> None:
    """One question to the assistant: search, then a streamed answer."""
    with trace("answer", inputs={"question": question}) as run:
        clock.advance(0.004)
        with trace("search", kind="retriever", inputs={"query": question}) as found:
            with trace("embed", kind="embedding", inputs={"text": question}) as embedding:
                embedding.metadata["dimensions"] = 1536
                clock.advance(dice.uniform(0.03, 0.09))
            clock.advance(dice.uniform(0.008, 0.03))
            found.output = [
                {"content": text, "score": score, "metadata": {"source": source, "lines": 40 + 7 * place}}
                for place, (source, score, text) in enumerate(DOCUMENTS)
            ]
        context = "\n\n".join(text for _, _, text in DOCUMENTS)
        messages = [
            {"role": "system", "content": f"{SYSTEM}\n\n{context}"},
            {"role": "user", "content": question},
        ]
        with trace("generate", kind="chat_model", inputs={"messages": messages, "temperature": 0.2}) as said:
            said.model = model
            speak(clock, reply, dice.uniform(0.18, 0.5), dice.uniform(0.012, 0.04), dice)
            said.output = reply
            said.usage = Usage(812 + len(question) * 5, len(reply) // 4, cached_tokens=512)
        with trace("grounded", kind="guardrail", inputs={"answer": reply, "documents": len(DOCUMENTS)}) as guard:
            clock.advance(0.02)
            guard.output = {"grounded": True, "score": 0.93}
        run.output = reply


def no_table(clock: Clock) -> None:
    """Fail as a service does that is asked too often."""
    with trace("find_table", kind="tool", inputs={"restaurant": "Kornhauskeller", "guests": 2, "at": "19:30"}):
        for attempt in (1, 2):
            clock.advance(0.4 * attempt)
            emit(retry, attempt=attempt, wait_s=0.4 * attempt, error=TimeoutError("no answer within 400 ms"))
        clock.advance(0.5)
        try:
            raise TimeoutError("no answer within 400 ms")
        except TimeoutError as error:
            raise ConnectionError("the booking service cannot be reached: 3 tries, the last after 1.2 s") from error


def book(clock: Clock, dice: random.Random, *, fails: bool) -> None:
    """An agent that calls tools; the last one may fail."""
    call = {"id": "call_7", "name": "weather", "arguments": '{"city": "Bern", "day": "today"}'}
    find = {"id": "call_8", "name": "find_table", "arguments": '{"restaurant": "Kornhauskeller", "guests": 2, "at": "19:30"}'}
    asked = [
        {"role": "system", "content": "You book tables. Prefer outside seats when it is dry."},
        {"role": "user", "content": "Book a table for two tonight, outside if it stays dry."},
    ]
    with trace("book_table", kind="agent", inputs={"request": asked[1]["content"]}) as agent:
        with trace("plan", kind="chat_model", inputs={"messages": asked}) as plan:
            plan.model = "claude-sonnet-4-5"
            clock.advance(dice.uniform(0.8, 1.4))
            plan.usage = Usage(640, 88, reasoning_tokens=52)
            plan.output = {
                "role": "assistant",
                "content": "Let me look at the weather first.",
                "reasoning": "They want to sit outside only if it stays dry, so the forecast decides which table to ask for.",
                "tool_calls": [call],
            }
        with trace("weather", kind="tool", inputs={"city": "Bern", "day": "today"}) as weather:
            clock.advance(dice.uniform(0.1, 0.25))
            weather.output = {"temperature": 21, "rain": 0.1, "until": "23:00"}
        heard = [
            *asked,
            plan.output,
            {"role": "tool", "tool_call_id": "call_7", "content": '{"temperature": 21, "rain": 0.1, "until": "23:00"}'},
        ]
        with trace("decide", kind="chat_model", inputs={"messages": heard}) as decide:
            decide.model = "claude-sonnet-4-5"
            clock.advance(dice.uniform(0.9, 1.6))
            decide.usage = Usage(910, 64)
            decide.output = {"role": "assistant", "content": "It stays dry. I ask for a table outside.", "tool_calls": [find]}
        if fails:
            no_table(clock)
        with trace("find_table", kind="tool", inputs={"restaurant": "Kornhauskeller", "guests": 2, "at": "19:30"}) as tool:
            clock.advance(dice.uniform(0.3, 0.9))
            tool.output = {"table": 14, "outside": True, "held_until": "19:45"}
        agent.output = "Table 14 outside at Kornhauskeller is yours at 19:30."


def translate(clock: Clock, dice: random.Random) -> None:
    """A call whose input holds a secret and a value that is too long."""
    prompt = "Translate for the customer. Use the key sk-live-4f9d8e7c6b5a43210fedcba987654321 if you must.\n" + "lorem " * 40
    with trace("translate", kind="llm", inputs={"prompt": prompt, "samples": list(range(40_000))}) as run:
        run.model = "mistral-large-of-our-own"
        speak(clock, "Die Tische sind heute leider alle vergeben.", 0.3, 0.03, dice)
        run.usage = Usage(96, 11)


def research(clock: Clock, dice: random.Random) -> None:
    """A question that takes many steps: a plan, searches, a page that does not answer, a draft, and the answer."""
    question = "How do NATS and Redis Streams differ for fan-out?"
    topics = ("NATS JetStream consumers", "Redis Streams consumer groups", "fan-out latency benchmarks")
    with trace("research", kind="agent", inputs={"question": question}) as agent:
        with trace("plan", kind="chat_model", inputs={"messages": [{"role": "user", "content": question}]}) as plan:
            plan.model = "gpt-4o"
            speak(clock, "1. Look up both. 2. Find measurements. 3. Compare.", 0.31, 0.03, dice)
            plan.usage = Usage(388, 42)
            plan.output = "1. Look up both. 2. Find measurements. 3. Compare."
        with trace("gather"):
            for number, topic in enumerate(topics):
                with trace("search", kind="retriever", inputs={"query": topic}) as found:
                    clock.advance(dice.uniform(0.09, 0.2))
                    found.output = [{"content": f"On {topic} …", "score": 0.9 - number / 10, "metadata": {"source": "docs"}}]
                with trace("read_page", kind="tool", inputs={"about": topic}) as page:
                    clock.advance(dice.uniform(0.15, 0.4))
                    page.output = f"{topic}: 4 paragraphs"
            try:
                with trace("read_page", kind="tool", inputs={"url": "https://bench.example/fan-out"}):
                    clock.advance(0.6)
                    emit(retry, attempt=1, wait_s=0.2, error=TimeoutError("no answer within 600 ms"))
                    clock.advance(0.2)
                    raise ConnectionError("bench.example does not answer")
            except ConnectionError:
                pass
            with trace("rank", kind="reranker", inputs={"documents": 7}) as ranked:
                clock.advance(0.12)
                ranked.output = {"kept": 4}
        asked = [
            {"role": "system", "content": "Compare with care. Say what was measured and what was not."},
            {"role": "user", "content": question},
            {
                "role": "assistant",
                "content": "Let me see what is known of their latency.",
                "reasoning": "Both keep messages; what differs for fan-out is who keeps the place of a reader.",
                "tool_calls": [{"id": "c1", "name": "search", "arguments": {"query": topics[2], "limit": 3}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": '{"found": 3, "best": "a talk, with its slides"}'},
        ]
        told = (
            "For **fan-out** the two differ in who remembers how far a reader is:\n\n"
            "- NATS JetStream keeps a cursor for each consumer, so that a thousand readers cost the writer nothing more.\n"
            "- Redis Streams keeps one for each *group*; readers of their own each ask with `XREAD`.\n\n"
            "One source did not answer, so nothing is said of how fast they are."
        )
        with trace("write", kind="chat_model", inputs={"messages": asked, "temperature": 0.3}) as write:
            write.model = "gpt-4o"
            speak(clock, told, 0.44, 0.028, dice)
            write.usage = Usage(2190, 131, cached_tokens=1024)
            write.output = told
        with trace("check", kind="evaluator", inputs={"answer": told}) as check:
            with trace("judge", kind="chat_model", inputs={"messages": [{"role": "user", "content": "Is it fair?"}]}) as judge:
                judge.model = "gpt-4o-mini"
                clock.advance(0.52)
                judge.usage = Usage(301, 9)
                judge.output = {"role": "assistant", "content": "Yes, it is fair."}
            check.output = {"score": 0.94}
        agent.output = told


@contextmanager
def past(days: float) -> Iterator[Clock]:
    """Let the clock stand some days ago."""
    with deterministic(datetime.now(UTC) - timedelta(days=days)) as clock:
        yield clock


def fill(path: Path, days: float = 6.0) -> None:
    """Write the store: talk over some days until now, and what is the latest in it is the best to look at."""
    dice = random.Random(7)
    with isolated(), save(path, project="assistant") as saving, past(days) as clock:
        step = days * 86_400 / 90
        for turn in range(89):
            model = dice.choice(["gpt-4o-mini", "gpt-4o-mini", "gpt-4o"])
            session = f"s-{min(turn // 4, 21) + turn // 86}"
            user = ("ada", "grace", "alan")[int(session[2:]) % 3]
            with scope(session_id=session, user_id=user, tags=[dice.choice(["web", "app"])]):
                if turn % 6 == 5:
                    booking(clock, dice, fails=turn % 12 == 5)
                elif turn % 23 == 7:
                    translate(clock, dice)
                else:
                    ask(clock, *dice.choice(QUESTIONS), dice, model=model)
            clock.advance(dice.uniform(0.3, 1.5) * step if turn < 84 else dice.uniform(20, 200))
            if turn == 84:
                clock.advance((time.time_ns() - clock.wall_ns()) / 1e9 - 700)
        with scope(session_id="s-22", user_id="grace", tags=["web"]):
            ask(clock, *QUESTIONS[0], dice)
            clock.advance(50)
            booking(clock, dice, fails=True)
            clock.advance(70)
            research(clock, dice)
        assert saving.flush(30)


def booking(clock: Clock, dice: random.Random, *, fails: bool) -> None:
    """Book, and let no failure out."""
    try:
        book(clock, dice, fails=fails)
    except ConnectionError:
        pass
