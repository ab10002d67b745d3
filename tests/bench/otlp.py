"""Runs out over OTLP beside OpenTelemetry's SDK: ``make bench-otlp``, or rows of ``make bench``.

Both say the same traces, an agent that searches, uses a tool and asks a model twice, with the same attributes, and send them
to the same receiver, which reads and says yes. It is a process of its own, so that its work is nobody's here, as are the
receivers of the second table, each with a fault of its own: what an emission takes while runs go to them.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

from tracebus import Usage, scope, subscribe, trace
from tracebus.outputs.otlp import Exporting, export

RUNS_A_TRACE = 5
CONTENT = 500  # characters of one text

FAULTS = {
    "refused": ["refused"],
    "silent": ["silent"],
    "429, Retry-After: 1": ["429", "1"],
    "500": ["500"],
    "413": ["413"],
    "a byte a second": ["a byte a second"],
}
"""The rows of the second table, and what the receivers of the tests call these faults."""
FAULTY = Path(__file__).parents[1] / "otlp_faults.py"

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


# -- the receiver ------------------------------------------------------------------------------------------------------


def receive(ready: Any) -> None:
    """Read requests and say yes, until the process is ended."""
    server = socket.create_server(("127.0.0.1", 0))
    ready.put(server.getsockname()[1])
    while True:
        connection, _ = server.accept()
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    file = connection.makefile("rb")
    while line := file.readline():
        length = 0
        while line not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            line = file.readline()
        file.read(length)
        connection.sendall(OK)


@contextmanager
def receiver() -> Iterator[str]:
    """Start a receiver and yield its address."""
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    process = context.Process(target=receive, args=(ready,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ready.get(timeout=30)}"
    finally:
        process.terminate()
        process.join()


@contextmanager
def faulty_receiver(fault: str) -> Iterator[str]:
    """Start a receiver with a fault, and yield its address."""
    command = [sys.executable, str(FAULTY), *FAULTS[fault]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


# -- what is said ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """The texts of one trace."""

    question: str
    found: str
    looked_up: str
    answer: str
    number: int

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": f"{self.found} {self.question}"}]


def texts(traces: int) -> list[Said]:
    """Make the texts beforehand: that is the app's work, not the exporter's."""
    source = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(source.choices(letters, k=source.randint(3, 9))) for _ in range(5000)]
    some = [" ".join(source.choices(words, k=CONTENT // 7)) for _ in range(2000)]
    return [Said(*source.choices(some, k=4), number) for number in range(traces)]


def say(said: Said) -> None:
    """Say one trace on the bus."""
    with (
        scope(session_id=f"session {said.number % 500}", user_id=f"user {said.number % 50}", tags=["bench"]),
        trace("agent", kind="agent", inputs={"question": said.question}) as agent,
    ):
        with trace("search", kind="retriever", inputs={"query": said.question}) as run:
            run.output = [{"content": said.found, "score": 0.5}]
        with trace("look up", kind="tool", inputs={"text": said.found}) as run:
            run.output = said.looked_up
        for _ in range(2):
            with trace("generate", kind="chat_model", model="gpt-4o-mini", inputs={"messages": said.messages}) as run:
                run.output = said.answer
                run.usage = Usage(200, 100)
        agent.output = said.answer


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _messages(messages: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [{"role": one["role"], "parts": [{"type": "text", "content": one["content"]}]} for one in messages]


def say_with_sdk(tracer: Any, said: Said) -> None:
    """Say the same with the SDK, with the attributes that tracebus gives these runs."""
    about = {
        "gen_ai.conversation.id": f"session {said.number % 500}",
        "session.id": f"session {said.number % 500}",
        "user.id": f"user {said.number % 50}",
        "tracebus.tags": ["bench"],
        "tracebus.run.status": "ok",
    }

    def named(name: str, kind: str, operation: str) -> dict[str, Any]:
        return {**about, "tracebus.run.name": name, "tracebus.run.kind": kind, "gen_ai.operation.name": operation}

    with tracer.start_as_current_span("invoke_agent agent") as agent:
        agent.set_attributes({**named("agent", "agent", "invoke_agent"), "gen_ai.agent.name": "agent"})
        agent.set_attribute("tracebus.input", said.question)
        with tracer.start_as_current_span("retrieval search", kind=SpanKind.CLIENT) as span:
            span.set_attributes(named("search", "retriever", "retrieval"))
            span.set_attribute("gen_ai.retrieval.query.text", said.question)
            span.set_attribute("gen_ai.retrieval.documents", _json([{"content": said.found, "score": 0.5}]))
        with tracer.start_as_current_span("execute_tool look up") as span:
            span.set_attributes({**named("look up", "tool", "execute_tool"), "gen_ai.tool.name": "look up"})
            span.set_attribute("gen_ai.tool.type", "function")
            span.set_attribute("gen_ai.tool.call.arguments", _json({"text": said.found}))
            span.set_attribute("gen_ai.tool.call.result", said.looked_up)
        for _ in range(2):
            with tracer.start_as_current_span("chat gpt-4o-mini", kind=SpanKind.CLIENT) as span:
                span.set_attributes(named("generate", "chat_model", "chat"))
                span.set_attribute("gen_ai.provider.name", "openai")
                span.set_attribute("gen_ai.request.model", "gpt-4o-mini")
                span.set_attribute("gen_ai.input.messages", _json(_messages(said.messages)))
                answer = [{"role": "assistant", "parts": [{"type": "text", "content": said.answer}], "finish_reason": "stop"}]
                span.set_attribute("gen_ai.output.messages", _json(answer))
                span.set_attribute("gen_ai.response.model", "gpt-4o-mini")
                span.set_attribute("gen_ai.usage.input_tokens", 200)
                span.set_attribute("gen_ai.usage.output_tokens", 100)
        agent.set_attribute("tracebus.output", said.answer)


# -- what is measured --------------------------------------------------------------------------------------------------


def ours_s(address: str, said: list[Said]) -> float:
    """Return the seconds until all is acknowledged, through tracebus."""
    gc.collect()
    with export(address, metrics=False, overflow="block") as exporting:
        start = time.perf_counter()
        for one in said:
            say(one)
        assert exporting.flush(600)
        passed = time.perf_counter() - start
    assert exporting.sent == len(said) * RUNS_A_TRACE, exporting.stats
    return passed


def sdk_s(address: str, said: list[Said]) -> float:
    """Return the seconds until all is acknowledged, through the SDK's batch processor, with a queue that drops nothing."""
    gc.collect()
    provider = TracerProvider(shutdown_on_exit=False)
    size = max(2048, len(said) * RUNS_A_TRACE)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{address}/v1/traces"), max_queue_size=size))
    tracer = provider.get_tracer("bench")
    start = time.perf_counter()
    for one in said:
        say_with_sdk(tracer, one)
    assert provider.force_flush(600_000)
    passed = time.perf_counter() - start
    provider.shutdown()
    return passed


def side_by_side(runs: int, rounds: int) -> tuple[float, float, float]:
    """Return the medians of seconds a run, ours and the SDK's, and of how many times as long ours takes."""
    said = texts(runs // RUNS_A_TRACE)
    pairs = []
    with receiver() as address:
        ours_s(address, said[:200]), sdk_s(address, said[:200])
        for round_ in range(rounds):
            first, second = (ours_s, sdk_s) if round_ % 2 else (sdk_s, ours_s)
            taken = {first: first(address, said), second: second(address, said)}
            pairs.append((taken[ours_s] / runs, taken[sdk_s] / runs))
    ratio = median(ours / theirs for ours, theirs in pairs)
    return median(ours for ours, _ in pairs), median(theirs for _, theirs in pairs), ratio


def emission_s(rounds: int = 21, runs: int = 500) -> float:
    """Return what a run costs the thread that emits, in seconds, more than a subscriber that does nothing."""
    said = texts(1)[0]

    def one() -> float:
        gc.collect()
        start = time.perf_counter()
        for _ in range(runs):
            with trace("generate", kind="chat_model", inputs={"messages": said.messages}) as run:
                run.output = said.answer
        return (time.perf_counter() - start) / runs

    differences = []
    with receiver() as address:
        for _ in range(rounds):
            with subscribe(lambda sender, event: None):
                nothing = one()
            # A second of patience, so that what is timed is the emitting thread and not the writer beside it.
            with export(address, metrics=False, interval_s=1, queue_size=10 * runs) as exporting:
                with trace("first"):
                    pass
                exporting.flush()
                differences.append(one() - nothing)
    return median(differences)


def emissions_s(runs: int) -> list[float]:
    """Return how long each of some runs takes the app, with pauses in which a writer can be at work."""
    said = texts(1)[0]
    taken: list[float] = []
    for _ in range(runs):
        start = time.perf_counter()
        with trace("generate", kind="chat_model", inputs={"messages": said.messages}) as run:
            run.output = said.answer
        taken.append(time.perf_counter() - start)
        time.sleep(0.0005)
    return taken


def beside_writer_s(runs: int = 20_000) -> list[float]:
    """Return how long each run took the app, sorted, while the writer was at work beside it."""
    with receiver() as address, export(address, metrics=False, interval_s=0.05, overflow="block") as exporting:
        taken = emissions_s(runs)
        assert exporting.flush(60)
    return sorted(taken)


def in_outage_s(fault: str, rounds: int = 3, runs: int = 1000) -> tuple[float, float]:
    """Return the p99 of an emission without an exporter, and with one whose receiver has a fault.

    The queue is so short that runs have to give way in it, too.
    """
    without, inside = [], []
    with faulty_receiver(fault) as address:
        for _ in range(rounds):
            without += emissions_s(runs)
            exporting = export(address, interval_s=0.05, queue_size=runs // 4)
            inside += emissions_s(runs)
            assert exporting.sent == 0, "this receiver takes nothing"
            leave(exporting)
    return p99(without), p99(inside)


def leave(exporting: Exporting) -> None:
    """End what nobody answers, so that it is not at work beside what is measured next."""
    lane = exporting._subscription.lane
    exporting._subscription.close()
    lane.give_up("measured")
    lane.join(1)


def p99(taken: list[float]) -> float:
    return sorted(taken)[len(taken) * 99 // 100]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=int, nargs="?", default=50_000, help="how many runs to send (50 000)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    ours, theirs, ratio = side_by_side(arguments.runs, arguments.rounds)
    emitted = emission_s()
    each = beside_writer_s()
    print(f"{date.today()}, {arguments.runs:,} runs, {os.cpu_count()} cores, Python {sys.version.split()[0]}\n")
    rows: list[tuple[str, float, str]] = [
        ("said and acknowledged, µs a run", ours * 1e6, ""),
        ("the same with opentelemetry-sdk, µs a run", theirs * 1e6, ""),
        ("times as fast as opentelemetry-sdk", 1 / ratio, "≥ 1"),
        ("the emitting thread, µs a run beyond the bus", emitted * 1e6, "≤ 10"),
        ("one emission beside the writer, p50, µs", each[len(each) // 2] * 1e6, ""),
        ("one emission beside the writer, p99, µs", p99(each) * 1e6, "≤ 1 000"),
    ]
    for name, value, bar in rows:
        print(f"{name:<50} {value:>10,.2f}   {bar}".rstrip())
    print_outages()


def print_outages() -> None:
    """Measure and print what an emission takes while the receiver fails, beside what it takes where nothing is exported."""
    logging.getLogger("tracebus").setLevel(logging.ERROR)  # which would warn of every one of them
    print(f"\n{'p99 of one emission, µs':<26} {'no exporter':>12} {'exporting':>12} {'more':>10}   bar")
    for fault in FAULTS:
        without, inside = in_outage_s(fault)
        print(f"{fault:<26} {without * 1e6:>12,.1f} {inside * 1e6:>12,.1f} {(inside - without) * 1e6:>10,.1f}   ≤ 1 000")


if __name__ == "__main__":
    main()
