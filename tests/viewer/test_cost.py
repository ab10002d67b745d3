"""What ten open pages cost the app whose runs they show: no event, no wait, no processor time, no growing file."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from served import open_pages, until

from tracebus import flush, trace
from tracebus.outputs.store import Reader, save
from tracebus.signals import isolated
from tracebus.viewer.serving import Server

PAGES = 10
ROUNDS = 9
TRACES_A_ROUND = 1500
"""About a second of talk, in which the pages look at the store a few times."""
APP = """
import sys, time
from tracebus import emit, llm_new_token, trace
from tracebus.outputs.store import save

with save(sys.argv[1]) as saving:
    for asked in sys.stdin:
        begun = time.process_time_ns()
        for _ in range(int(asked)):
            with trace("answer", inputs={"question": "x" * 200}):
                with trace("generate", kind="llm", inputs={"prompt": "y" * 1000}) as run:
                    for _ in range(20):
                        emit(llm_new_token, token="word ")
                    run.output = "z" * 1000
        assert saving.flush(60) and not saving.stats.dropped
        print(time.process_time_ns() - begun, flush=True)
"""

pytestmark = [pytest.mark.alone, pytest.mark.once]


@pytest.mark.timeout(180)
def test_ten_open_pages_cost_the_app_no_processor_time(
    path: Path, serve: Callable[..., Server], clean_env: dict[str, str], record_property: Callable[[str, object], None]
) -> None:
    command = [sys.executable, "-c", APP, str(path)]
    with subprocess.Popen(command, env=clean_env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as app:

        def talk() -> int:
            app.stdin.write(f"{TRACES_A_ROUND}\n")
            app.stdin.flush()
            return int(app.stdout.readline())

        talk()  # what is loaded and compiled at first
        server = serve(path)
        ratios: list[float] = []
        for _ in range(ROUNDS):
            alone = talk()
            with open_pages(server, PAGES) as heard:
                watched = talk()
                until(lambda heard=heard: all(heard))
            ratios.append(watched / alone)
        app.stdin.close()
    ratio = median(ratios)
    print(f"processor time with ten pages open: {ratio:.3f} of that without, {[round(one, 3) for one in ratios]}")
    record_property("ratio", ratio)
    assert ratio < 1.25


@pytest.mark.timeout(120)
def test_ten_pages_hold_up_no_writer_and_let_the_log_start_anew(path: Path, serve: Callable[..., Server]) -> None:
    largest = 0
    with isolated(), save(path) as saving:
        with trace("first"):
            pass
        assert flush(30)
        with open_pages(serve(path), PAGES) as heard:
            for number in range(150):
                with trace(f"burst {number % 7}"):
                    for _ in range(40):
                        with trace("work", inputs={"text": "x" * 2000}) as run:
                            run.output = "y" * 2000
                assert flush(30)
                largest = max(largest, path.with_name("traces.db-wal").stat().st_size)
            with Reader(path) as reader:
                assert reader.info().runs == 150 * 41 + 1
            until(lambda: all(heard))
        assert not saving.stats.dropped
    assert largest <= 16 * 1024 * 1024
