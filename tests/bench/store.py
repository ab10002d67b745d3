"""How fast the store writes and answers: ``make bench-store``, or ``make bench-store ARGS="2000000"``.

Runs of about 1 KB, spread over the last 30 days, are said on the bus as an app would say them, and one trace of 50 000. The
bare sqlite3 table with an index of its words beside it says what the machine could do at that moment.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from tracebus import Usage, emit, llm_new_token, scope, subscribe, trace
from tracebus.outputs.store import Reader, Saving, save
from tracebus.outputs.store.histograms import ERROR
from tracebus.testing import deterministic

RUNS_A_TRACE = 5
WIDE = 50_000
DAYS = 30
MODELS = ("gpt-4o-mini", "gpt-5", "claude-3-5-sonnet-latest", "gemini-2.5-pro", "my-own-model")
DAY_NS = 86_400 * 10**9


class Texts:
    """Texts of about so many characters, of words as frequent as words are (Zipf's law)."""

    def __init__(self, seed: int = 7) -> None:
        self.random = random.Random(seed)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self.words = ["".join(self.random.choices(letters, k=self.random.randint(3, 9))) for _ in range(20_000)]
        self._weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(len(self.words))))
        self._long = [self._some(70) for _ in range(20_000)]

    def _some(self, count: int) -> str:
        return " ".join(self.random.choices(self.words, cum_weights=self._weights, k=count))

    def text(self) -> str:
        return self.random.choice(self._long)


def say_trace(texts: Texts, number: int) -> None:
    """Say one trace of five runs: an agent that searches, uses a tool and asks a model twice."""
    question, answer = texts.text(), texts.text()
    with (
        scope(session_id=f"session {number % 5000}", user_id=f"user {number % 500}", tags=["bench"]),
        trace("agent", kind="agent", inputs={"question": question}) as agent,
    ):
        with trace("search", kind="retriever", inputs={"query": question}) as run:
            run.output = [{"content": texts.text(), "score": 0.5}]
        with trace(f"tool {number % 5}", kind="tool", inputs={"text": texts.text()}) as run:
            run.output = texts.text()
        for _ in range(RUNS_A_TRACE - 3):
            messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": question}]
            model = MODELS[number % len(MODELS)]
            with trace("generate", kind="chat_model", model=model, inputs={"messages": messages}) as run:
                for begin in range(0, len(answer), 80):
                    emit(llm_new_token, token=answer[begin : begin + 80])
                run.usage = Usage(200 + number % 100, 100)
        agent.output = answer


def write(saving: Saving, texts: Texts, runs: int) -> tuple[float, float, float]:
    """Say so many runs; return runs a second, of all and of the last tenth, and the processor's microseconds a run."""
    traces = runs // RUNS_A_TRACE
    start = tenth = time.perf_counter()
    used = time.process_time()
    begin = datetime.now(UTC) - timedelta(days=DAYS)
    with deterministic(begin) as clock:
        for number in range(traces):
            clock.advance(DAYS * 86_400 / traces * (0.5 + texts.random.random()) * 0.97)
            if number == traces - traces // 10:
                assert saving.flush(600)
                tenth = time.perf_counter()
            say_trace(texts, number)
            if number % (traces // 20 or 1) == 0:
                passed = time.perf_counter() - start
                print(f"\r{number / traces:4.0%} {number * RUNS_A_TRACE / passed:6.0f} runs/s", end="", file=sys.stderr)
        assert saving.flush(600)
    end = time.perf_counter()
    print("\r", " " * 30, "\r", end="", file=sys.stderr)
    return runs / (end - start), runs // 10 / (end - tenth), (time.process_time() - used) / runs * 1e6


def write_wide(saving: Saving) -> str:
    """Say one trace of 50 000 runs; return its id."""
    with trace("wide") as root:
        for block in range(WIDE // 50 - 1):
            with trace(f"block {block}"):
                for leaf in range(49):
                    with trace("leaf", inputs={"n": leaf}):
                        pass
            if block % 100 == 0:
                saving.flush(60)
    assert saving.flush(60)
    return root.trace_id.hex


def bare(directory: Path, texts: Texts, runs: int) -> float:
    """Return the rows a second of a bare table with an index of words, in batches of 1000."""
    connection = sqlite3.connect(directory / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, trace BLOB, span INTEGER, started INTEGER, body TEXT)")
    connection.execute("CREATE UNIQUE INDEX runs_key ON runs (trace, span)")
    connection.execute("CREATE VIRTUAL TABLE search USING fts5 (body, content = '')")
    start = time.perf_counter()
    for begin in range(0, runs, 1000):
        rows = [(n, n.to_bytes(16), n, n, f"{texts.text()} {texts.text()}") for n in range(begin, begin + 1000)]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", rows)
        connection.executemany("INSERT INTO search (rowid, body) VALUES (?, ?)", [(row[0], row[4]) for row in rows])
        connection.execute("COMMIT")
    end = time.perf_counter()
    connection.close()
    return runs / (end - start)


def milliseconds(ask: Callable[[int], object], times: int = 15) -> float:
    """Return the median of how long a question takes, asked with the numbers from 0 on."""
    taken = []
    for number in range(times):
        start = time.perf_counter()
        ask(number)
        taken.append((time.perf_counter() - start) * 1000)
    return median(taken)


def emission(directory: Path, texts: Texts) -> float:
    """Return what a run costs the thread that emits, in microseconds, more than a subscriber that does nothing."""
    question, answer = texts.text(), texts.text()
    messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": question}]

    def say(times: int) -> float:
        gc.collect()
        start = time.perf_counter()
        for _ in range(times):
            with trace("generate", kind="chat_model", inputs={"messages": messages}) as run:
                run.output = answer
        return (time.perf_counter() - start) / times * 1e6

    differences = []
    for round_ in range(21):
        with subscribe(lambda sender, event: None):
            nothing = say(500)
        # A second of patience, so that what is timed is the emitting thread and not the writer beside it.
        with save(directory / f"emission-{round_ % 2}.db", interval_s=1):
            say(10)
            time.sleep(0.01)
            differences.append(say(500) - nothing)
    return median(differences)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=int, nargs="?", default=200_000, help="how many runs to write (200 000)")
    parser.add_argument("--directory", type=Path, help="where to write, and to leave what was written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        measure(directory, arguments.runs)


def measure(directory: Path, runs: int) -> None:
    texts = Texts()
    path = directory / "traces.db"
    emitting = emission(directory, texts)
    before = bare(directory, texts, min(runs, 100_000))
    with save(path, overflow="block", keep_days=None, keep_bytes=None) as saving:
        overall, last, used = write(saving, texts, runs)
        wide = write_wide(saving)
        stats = saving.stats
    assert stats.dropped == {}
    assert stats.failed == 0
    words = texts.words[60:160]
    with Reader(path) as reader:
        some = [summary.trace_id for summary in reader.traces(limit=500, name="agent")]
        now = time.time_ns()
        rows: list[tuple[Any, ...]] = [
            ("writing, runs/s", overall, "≥ 4 000"),
            ("writing, the last tenth, runs/s", last),
            ("saying and writing, µs of the processors a run", used),
            ("a bare table with its index just before, rows/s", before),
            ("the emitting thread, µs a run", emitting, "≤ 10"),
            ("latest 50 with totals, ms", milliseconds(lambda _: reader.traces(name="agent")), "≤ 5"),
            ("one tree, ms", milliseconds(lambda n: reader.tree(some[n])), "≤ 5"),
            ("two-word search, newest 50, ms", milliseconds(lambda n: reader.search(" ".join(words[2 * n :][:2]))), "≤ 5"),
            ("p95 by model, last day, ms", milliseconds(lambda _: reader.statistics("model", since_ns=now - DAY_NS)), "≤ 50"),
            ("p95 by model, all time, ms", milliseconds(lambda _: reader.statistics("model")), "≤ 50"),
            ("p95 by model, last 25 days, ms", milliseconds(lambda _: reader.statistics("model", since_ns=now - 25 * DAY_NS))),
            ("first page of a trace of 50 000, ms", milliseconds(lambda _: reader.tree(wide)), "≤ 50"),
            ("latest 50 of one session, ms", milliseconds(lambda n: reader.traces(session_id=f"session {n}"))),
            ("latest 50 of one model and tool, ms", milliseconds(lambda n: reader.traces(model=MODELS[n % 5], kind="tool"))),
            ("what is new since a cursor, ms", milliseconds(lambda _: reader.changes(reader.cursor() - 1))),
        ]
        held = reader.info()
        assert held.runs == runs // RUNS_A_TRACE * RUNS_A_TRACE + WIDE - 49
    size = f"{held.size_bytes / held.runs:,.0f} bytes a run, SQLite {sqlite3.sqlite_version}"
    machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, percentiles ± {ERROR:.0%}"
    print(f"{date.today()}, {runs:,} runs, {size}, {machine}\n")
    for name, value, *bar in rows:
        print(f"{name:<50} {value:>10,.2f}   {''.join(bar)}".rstrip())


if __name__ == "__main__":
    main()
