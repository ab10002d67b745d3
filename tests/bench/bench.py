"""tracebus beside its peers, one table: ``make bench``, or ``make bench ARGS="--quick -k token"``.

Each row times two things directly after one another, round by round, and takes the ratio of each round before the
median of them all, because machines drift. What is timed is in ``works``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import json
import logging
import math
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeAlias

import otlp
import works
from works import Missing, Work

import tracebus

Setup: TypeAlias = Callable[[], AbstractContextManager[Work]]

PACKAGES = ("opentelemetry-sdk", "langchain-core", "structlog", "anyio", "blinker", "msgspec")


# -- how it is measured ------------------------------------------------------------------------------------------------


@dataclass
class Stopwatch:
    """Times works. ``batch_s`` is how long one batch of a work lasts, in seconds, and each round times one batch."""

    runner: asyncio.Runner
    rounds: int
    batch_s: float
    many: int
    """How many times to do what is done many times: 10⁶, or 10⁵ to be quick."""
    _times: dict[Setup, int] = field(default_factory=dict)

    def seconds(self, setup: Setup) -> float:
        """Return the seconds that one piece of the work takes, the mean of one batch."""
        with setup() as work:
            times = self._times.get(setup) or self._calibrate(setup, work)
            self.run(work, max(1, times // 20))
            return self.run(work, times) / (times * work.pieces)

    def run(self, work: Work, times: int) -> float:
        """Do the work so many times and return the seconds; its subscribers must have heard everything."""
        before = work.heard()
        elapsed = work.timed(times)
        seconds: float = elapsed if isinstance(elapsed, float) else self.runner.run(elapsed)
        assert work.heard() - before == times * work.events, "a subscriber did not hear what it was to hear"
        return seconds

    def _calibrate(self, setup: Setup, work: Work) -> int:
        times, elapsed = 1, 0.0
        while True:
            start = time.perf_counter()
            self.run(work, times)
            elapsed = time.perf_counter() - start
            if elapsed >= self.batch_s / 4:
                break
            times *= 2
        self._times[setup] = max(1, round(times * self.batch_s / elapsed))
        return self._times[setup]

    def side_by_side(self, ours: Callable[[], float], theirs: Callable[[], float]) -> Reading:
        """Take both in each round, each first in every other round."""
        pairs = []
        for round_ in range(self.rounds):
            if round_ % 2:
                their, our = theirs(), ours()
            else:
                our, their = ours(), theirs()
            pairs.append((our, their))
        return Reading(
            median(our for our, _ in pairs),
            median(their for _, their in pairs),
            median(our / their for our, their in pairs),
        )


@dataclass(frozen=True)
class Reading:
    """What a row shows: two values in seconds, or one in bytes, and the median of the ratios of each round."""

    ours: float
    peer: float | None = None
    ratio: float | None = None


Measure: TypeAlias = Callable[[Stopwatch], Reading]


def against(ours: Setup, theirs: Setup) -> Measure:
    """Time one work beside the other."""
    return lambda watch: watch.side_by_side(partial(watch.seconds, ours), partial(watch.seconds, theirs))


def beyond_the_snapshot(ours: Setup) -> Measure:
    """Time what a background subscriber costs whoever emits, less the snapshot, beside two nested calls."""

    def measure(watch: Stopwatch) -> Reading:
        def beyond() -> float:
            return watch.seconds(ours) - watch.seconds(works.token_snapshot)

        return watch.side_by_side(beyond, partial(watch.seconds, works.otel_nested))

    return measure


def past_a_stuck_subscriber(watch: Stopwatch) -> Reading:
    """Take the 99.9th percentile of single emissions, half of them past a full queue."""
    batches = (sorted(works.emissions_past_a_stuck_subscriber(20_000)) for _ in range(max(3, watch.rounds // 3)))
    return Reading(median(taken[len(taken) * 999 // 1000] for taken in batches))


def importing(watch: Stopwatch) -> Reading:
    """Time imports inside fresh processes, from compiled files as an installed package has them."""
    with tempfile.TemporaryDirectory() as compiled:
        ours, theirs = (partial(_import_seconds, what, compiled) for what in ("tracebus", "blinker, anyio"))
        ours(), theirs()  # compiles
        return watch.side_by_side(ours, theirs)


def starting(watch: Stopwatch) -> Reading:
    """Time whole processes: ``tracebus run``, with nothing to trace, beside one that only imports tracebus."""
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        script = str(Path(sys.executable).with_name("tracebus"))

        def seconds(*command: str) -> float:
            start = time.perf_counter()
            subprocess.run(command, check=True, env=environment)
            return time.perf_counter() - start

        ours = partial(seconds, script, "run", "-c", "pass")
        theirs = partial(seconds, sys.executable, "-c", "import tracebus")
        ours(), theirs()  # compiles
        return watch.side_by_side(ours, theirs)


_IMPORT = """
import sys, time
sys.path.insert(0, {path!r})
start = time.perf_counter()
import {what}
end = time.perf_counter()
print(end - start, *[name for name in ("structlog", "asyncio", "msgspec", "logging") if name in sys.modules])
"""


def _import(what: str, compiled: str) -> list[str]:
    program = _IMPORT.format(path=str(Path(tracebus.__file__).parents[1]), what=what)
    command = [sys.executable, "-I", "-X", f"pycache_prefix={compiled}", "-c", program]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def _import_seconds(what: str, compiled: str) -> float:
    return float(_import(what, compiled)[0])


def loaded_by_import() -> list[str]:
    """Return which of the larger libraries ``import tracebus`` brings with it."""
    with tempfile.TemporaryDirectory() as compiled:
        return _import("tracebus", compiled)[1:]


def growing(watch: Stopwatch) -> Reading:
    """Take by how many bytes a process grows with many runs: a fresh one, which has no room left by other rows."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        return Reading(fresh.submit(_growth, watch.many).result())


def _growth(many: int) -> float:
    with stopwatch(quick=True) as watch:
        _make_runs(watch, many // 10)
        before = _resident_bytes()
        _make_runs(watch, many)
        return max(0, _resident_bytes() - before)


def _make_runs(watch: Stopwatch, runs: int) -> None:
    """Make runs of functions, coroutines and streams."""
    kinds: list[tuple[Setup, int]] = [
        (works.nested, runs // 4),
        (works.nested_async, runs // 5),
        (partial(works.stream_of_tokens, 3), runs // 10),
    ]
    for setup, times in kinds:
        with setup() as work:
            watch.run(work, times)


def _resident_bytes() -> int:
    gc.collect()
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:
        raise Missing from None
    return pages * os.sysconf("SC_PAGE_SIZE")


def exporting(watch: Stopwatch) -> Reading:
    """Time runs until a receiver has acknowledged them: 50 000, or a tenth to be quick."""
    return Reading(*otlp.side_by_side(watch.many // 20, max(3, watch.rounds // 3)))


def exporting_emission(watch: Stopwatch) -> Reading:
    """Take what a run costs the thread that emits when it is exported, more than a subscriber that does nothing."""
    return Reading(otlp.emission_s(watch.rounds))


def awaiting(awaits: works.Awaits, ours: Callable[..., Any], theirs: Callable[..., Any]) -> Measure:
    """Time both with an async subscriber that awaits something."""
    return against(partial(ours, awaits), partial(theirs, awaits))


chain_awaiting = awaiting(works.nothing, works.nested_async, works.langchain_nested_async)
token_awaiting = awaiting(works.nothing, works.token_emitted_async, works.langchain_token_async)
token_suspending = awaiting(works.a_turn, works.token_emitted_async, works.langchain_token_async)
hundred_across = partial(works.token_across, 100)
hundred_in_background = partial(works.token_in_background, 100)


# -- the rows ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """The most that the ratio to the peer, or the value itself, may be."""

    limit: float
    shown: str
    of: Literal["ratio", "value"] = "ratio"

    def verdict(self, reading: Reading) -> str:
        """Say whether it is reached."""
        measured = reading.ratio if self.of == "ratio" else reading.ours
        return "ok" if measured is not None and measured <= self.limit else "over"


def one_in(count: int) -> Bar:
    """Return the bar of a fraction of the peer's time."""
    return Bar(1 / count, f"1/{count}")


def as_long(factor: float) -> Bar:
    """Return the bar of a multiple of the peer's time."""
    return Bar(factor, f"{factor:.1f}")


def microseconds(count: int) -> Bar:
    """Return the bar of a time."""
    return Bar(count / 1e6, f"{count} µs", "value")


def microseconds_in(peer: int, count: int) -> Bar:
    """Return the bar of a time on a machine where the peer takes so many microseconds, as a fraction of the peer's time."""
    return Bar(count / peer, f"1/{peer / count:.1f}")


@dataclass(frozen=True)
class Row:
    """One line of the table. Without a bar it is there for comparison only."""

    work: str
    peer: str
    bar: Bar | None
    measure: Measure
    unit: Literal["s", "bytes"] = "s"


OTEL, LANGCHAIN, FIRST = "opentelemetry-sdk", "langchain-core", "chain→llm, sync"
HANDLER = "its no-op handler"

ROWS = [
    Row(FIRST, OTEL, one_in(6), against(works.nested, works.otel_nested)),
    Row(FIRST, LANGCHAIN, one_in(40), against(works.nested, works.langchain_nested)),
    Row("chain→llm, async", OTEL, one_in(4), against(works.nested_async, works.otel_nested_async)),
    Row("chain→llm, async", LANGCHAIN, one_in(50), against(works.nested_async, works.langchain_nested_async)),
    Row("chain→llm, async, subscriber awaits", LANGCHAIN, None, chain_awaiting),
    Row("chain→llm, nothing subscribed", OTEL, one_in(50), against(works.nested_unheard, works.otel_nested)),
    Row("chain→llm, ten subscribers", "one subscriber", as_long(4), against(works.nested_for_ten, works.nested)),
    Row("LangChain's own, bridged, sync", HANDLER, Bar(1.25, "1.25"), against(works.langchain_traced, works.langchain_nested)),
    Row(
        "LangChain's own, bridged, async",
        HANDLER,
        Bar(1.25, "1.25"),
        against(works.langchain_traced_async, works.langchain_nested_async),
    ),
    Row("token, async: aemit()", LANGCHAIN, one_in(6), against(works.token_emitted_async, works.langchain_token_async)),
    Row("token, async: say_token()", LANGCHAIN, None, against(works.token_said_async, works.langchain_token_async)),
    Row("token, async, subscriber awaits", LANGCHAIN, None, token_awaiting),
    Row("token, async, subscriber suspends", LANGCHAIN, None, token_suspending),
    Row("token, sync: emit()", LANGCHAIN, as_long(1), against(works.token_emitted, works.langchain_token)),
    Row("token, sync: say_token()", LANGCHAIN, None, against(works.token_said, works.langchain_token)),
    Row("token, sync to async", LANGCHAIN, one_in(10), against(works.token_across, works.langchain_token_across)),
    Row("token, sync to async, 100 at once", LANGCHAIN, None, against(hundred_across, works.langchain_token_across)),
    Row("generator's step", FIRST, one_in(4), against(works.stream_of_items, works.nested)),
    Row("generator's step, a token said", FIRST, None, against(works.stream_of_tokens, works.nested)),
    Row("async generator's step", FIRST, None, against(works.stream_of_async_items, works.nested)),
    Row("token, background, beyond snapshot", OTEL, microseconds_in(28, 5), beyond_the_snapshot(hundred_in_background)),
    Row("token, background, thread asleep", OTEL, None, beyond_the_snapshot(works.token_in_background)),
    Row("token, background stuck, p99.9", "", microseconds(1000), past_a_stuck_subscriber),
    Row("JSON log line", "structlog", as_long(1.5), against(works.log_lines, works.structlog_lines)),
    Row("OTLP, said until acknowledged", "opentelemetry-sdk's batches", as_long(1), exporting),
    Row("OTLP, the emitting thread, a run", "", microseconds(10), exporting_emission),
    Row("import tracebus", "blinker, anyio", as_long(1.3), importing),
    Row("tracebus run -c pass", "python -c 'import tracebus'", as_long(1.5), starting),
    Row("growth by many runs", "", Bar(2**20, "1 MiB", "value"), growing, "bytes"),
]


# -- the table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A row as measured; ``reading`` is None where what it measures is not there."""

    row: Row
    reading: Reading | None

    @property
    def verdict(self) -> str:
        """Return ok, over or missing; nothing where there is no bar."""
        if self.reading is None:
            return "missing"
        return "" if self.row.bar is None else self.row.bar.verdict(self.reading)

    def cells(self) -> list[str]:
        """Return the line's columns as text."""
        reading, show = self.reading or Reading(math.nan), _shown[self.row.unit]
        peer = f"{show(reading.peer):>9}  {self.row.peer}" if reading.peer is not None else ""
        bar = "" if self.row.bar is None else self.row.bar.shown
        ours = "" if self.reading is None else show(reading.ours)
        return [self.row.work, ours, peer, _ratio(reading.ratio), bar, self.verdict]

    def as_dict(self) -> dict[str, Any]:
        """Return what there is to know about the line, in seconds or bytes."""
        reading = self.reading or Reading(math.nan)
        return {
            "work": self.row.work,
            "unit": self.row.unit,
            "tracebus": None if self.reading is None else reading.ours,
            "peer": reading.peer,
            "peer_name": self.row.peer,
            "ratio": reading.ratio,
            "bar": None if self.row.bar is None else self.row.bar.limit,
            "bar_of": None if self.row.bar is None else self.row.bar.of,
            "verdict": self.verdict,
        }


def _shown_seconds(seconds: float) -> str:
    value, unit = (seconds * 1e6, "µs") if seconds < 0.01 else (seconds * 1e3, "ms")
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f} {unit}"


def _shown_bytes(size: float) -> str:
    return f"{size / 1024:.0f} KiB"


_shown: dict[str, Callable[[float], str]] = {"s": _shown_seconds, "bytes": _shown_bytes}


def _ratio(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.2f}" if ratio > 0.9 or ratio <= 0 else f"1/{1 / ratio:.1f}"


def _layout(cells: list[str]) -> str:
    work, ours, peer, ratio, bar, verdict = cells
    return f"{work:<36}{ours:>9}  {peer:<30}{ratio:>7}{bar:>7}  {verdict}".rstrip()


def header() -> str:
    """Return what the numbers depend on."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    python = f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}"
    return f"tracebus {tracebus.__version__}, {python}, {date.today()}\n{versions}\n"


def footer(lines: list[Line]) -> str:
    """Say how to read the table, and what is to be known beside it."""
    over = sum(line.verdict == "over" for line in lines)
    said = [
        "",
        "Times are medians, a ratio is the median of those of each round. Each row has one subscriber, which counts;",
        "inputs and output are captured. Many runs are 10⁶, or 10⁵ with --quick.",
        f"Of structlog, asyncio, msgspec and logging, `import tracebus` brings: {', '.join(loaded_by_import()) or 'none'}.",
        f"over: {over} of {sum(bool(line.verdict) for line in lines)} cost more than the bar allows; "
        "run again on an idle machine before believing it.",
    ]
    if any(line.verdict == "missing" for line in lines):
        said.append("missing: what the row measures is not here.")
    return "\n".join(said)


def measured(rows: list[Row], watch: Stopwatch) -> Iterator[Line]:
    """Measure the rows one after another."""
    for row in rows:
        try:
            yield Line(row, row.measure(watch))
        except Missing:
            yield Line(row, None)


@contextmanager
def stopwatch(quick: bool) -> Iterator[Stopwatch]:
    """Make a stopwatch with a loop of its own."""
    with asyncio.Runner() as runner:
        yield Stopwatch(runner, 3, 0.005, 10**5) if quick else Stopwatch(runner, 25, 0.02, 10**6)


def main() -> int:
    """Print the table; return the exit code."""
    options = argparse.ArgumentParser(description="Time tracebus beside its peers.")
    options.add_argument("--quick", action="store_true", help="few short rounds: shows that it runs, not how fast")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the lines there too, in seconds and bytes")
    options.add_argument("--strict", action="store_true", help="exit with 1 when a row is over its bar")
    options.add_argument("-k", default="", metavar="TEXT", dest="pattern", help="only rows with this in work or peer")
    given = options.parse_args()
    logging.getLogger("tracebus").addHandler(logging.NullHandler())  # what it drops on purpose is no line of the table

    print(header())
    print(_layout(["work", "tracebus", "     peer", "ratio", "bar", ""]))
    rows = [row for row in ROWS if given.pattern.lower() in f"{row.work} {row.peer}".lower()]
    lines: list[Line] = []
    with stopwatch(given.quick) as watch:
        for line in measured(rows, watch):
            work, *others = line.cells()
            print(_layout(["" if lines and lines[-1].row.work == work else work, *others]), flush=True)
            lines.append(line)
    print(footer(lines))
    if given.json:
        given.json.write_text(json.dumps([line.as_dict() for line in lines], indent=1, ensure_ascii=False) + "\n")
    return int(given.strict and any(line.verdict == "over" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
