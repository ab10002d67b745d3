"""Servers with workers, real ones: what clients asked for and what was recorded are the same, also when a worker is killed."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.once,
    pytest.mark.timeout(240),  # servers start and stop several interpreters
    pytest.mark.skipif(sys.platform == "win32", reason="gunicorn and prefork need fork"),
]

ANSWER = """
import os, signal
from tracebus import traced

@traced
def answer(request):
    if request.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"request": request, "pid": os.getpid()}
"""

WSGI = """
import json
from answer import answer

def app(environ, start_response):
    body = json.dumps(answer(environ["PATH_INFO"].strip("/"))).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
"""

ASGI = """
import json
from answer import answer

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise ValueError("no lifespan here")
    body = json.dumps(answer(scope["path"].strip("/"))).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""

CELERY = """
import os
from celery import Celery
from answer import answer

here = os.path.dirname(os.path.abspath(__file__))
for name in ("queue", "results"):
    os.makedirs(os.path.join(here, name), exist_ok=True)
app = Celery("tasks", broker="filesystem://", backend="file://" + os.path.join(here, "results"))
app.conf.update(
    broker_transport_options={
        "data_folder_in": os.path.join(here, "queue"),
        "data_folder_out": os.path.join(here, "queue"),
        "control_folder": os.path.join(here, "control"),
        "polling_interval": 0.05,
    },
    worker_prefetch_multiplier=1,
    worker_lost_wait=0.5,
)
app.task(answer, name="answer")
"""

CELERY_CLIENT = """
import json, sys
from tasks import app
sent = {request: app.send_task("answer", (request,)) for request in sys.argv[1:]}
print(json.dumps({
    request: result.get(timeout=60, interval=0.05, propagate=False)["pid"] if not request.startswith("kill")
    else type(result.get(timeout=60, interval=0.05, propagate=False)).__name__
    for request, result in sent.items()
}))
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with an app for each kind of server."""
    for name, source in {"answer": ANSWER, "wsgi": WSGI, "asgi": ASGI, "tasks": CELERY, "client": CELERY_CLIENT}.items():
        (tmp_path / f"{name}.py").write_text(source)
    return tmp_path


class Server:
    """A server under `tracebus run`: what it says on stderr, and its log lines in a file."""

    def __init__(self, process: subprocess.Popen[str], lines: Path) -> None:
        self._process = process
        self._lines = lines
        self._said: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.said: list[str] = []

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._said.put(line)

    def wait_for(self, pattern: str, timeout_s: float = 60) -> re.Match[str]:
        """Wait until the server says `pattern`, and at most so long for each line."""
        while True:
            try:
                self.said.append(self._said.get(timeout=timeout_s))
            except queue.Empty:
                raise AssertionError(f"never said {pattern}:\n{''.join(self.said)}") from None
            if match := re.search(pattern, self.said[-1]):
                return match

    def stop(self) -> None:
        """End it as an operator would, and wait for it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(40)

    def clean_up(self) -> None:
        """End what a failing test leaves behind."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._reader.join()

    def recorded(self) -> tuple[Counter[str], Counter[str]]:
        """How often each request has started, and ended."""
        events = [json.loads(line) for line in self._lines.read_text("utf-8").splitlines()]
        started = Counter(event["inputs"]["request"] for event in events if event["event"] == "chain_start")
        ended = Counter(event["output"]["request"] for event in events if event["event"] == "chain_end")
        return started, ended


@pytest.fixture
def serve(clean_env: dict[str, str], directory: Path) -> Callable[..., Any]:
    """`with serve("-m", "gunicorn", …) as server:` under `tracebus run`, in the directory with the apps."""

    @contextmanager
    def serve(*command: str) -> Iterator[Server]:
        lines = directory / "lines.log"
        process = subprocess.Popen(
            [sys.executable, "-m", "tracebus", "run", "--log", "json", "--log-to", str(lines), *command],
            env=clean_env | {"PYTHONUNBUFFERED": "1"},
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )
        server = Server(process, lines)
        try:
            yield server
        finally:
            server.clean_up()

    return serve


def connect(port: int) -> HTTPConnection:
    """Return a connection; a server says that it is there a moment before it listens."""
    connection = HTTPConnection("127.0.0.1", port, timeout=40)
    for _ in range(1000):
        try:
            connection.connect()
            break
        except ConnectionRefusedError:
            time.sleep(0.01)
    return connection


def ask(port: int, request: str) -> int | None:
    """Return the process that has answered, None where the connection broke."""
    with closing(connect(port)) as connection:
        try:
            connection.request("GET", f"/{request}")
            answer = json.loads(connection.getresponse().read())
        except (OSError, HTTPException):
            return None
        assert answer["request"] == request
        return answer["pid"]


def ask_all(port: int, requests: list[str]) -> dict[str, int | None]:
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(requests, pool.map(lambda request: ask(port, request), requests), strict=True))


def reconcile(server: Server, answers: dict[str, int | None]) -> None:
    """Each answer is of a run that started once and ended once; nothing was recorded that was not asked."""
    started, ended = server.recorded()
    answered = {request for request, pid in answers.items() if pid is not None}
    assert set(started) <= set(answers)
    assert set(started.values()) <= {1}
    assert set(ended.values()) <= {1}
    assert set(ended) == answered
    assert answered <= set(started)


@pytest.mark.parametrize("options", [(), ("--preload",)])
def test_gunicorn_with_a_worker_killed_in_the_middle(options: tuple[str, ...], serve: Callable[..., Any]) -> None:
    with serve("-m", "gunicorn", "--workers", "2", "--bind", "127.0.0.1:0", *options, "wsgi:app") as server:
        port = int(server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        server.wait_for("Booting worker")
        requests = [f"request-{number}" for number in range(100)]
        answers = ask_all(port, [*requests[:50], "kill-1", *requests[50:]])
        server.stop()
        assert answers["kill-1"] is None
        assert server.recorded()[0]["kill-1"] == 1  # it started, and nothing could say how it ended
        assert sum(pid is not None for pid in answers.values()) >= 95
        reconcile(server, answers)


def test_uvicorn_with_workers(serve: Callable[..., Any]) -> None:
    with serve("-m", "uvicorn", "--workers", "2", "--port", "0", "asgi:app") as server:
        port = int(server.wait_for(r"running on http://127\.0\.0\.1:(\d+)")[1])
        for _ in range(2):
            server.wait_for("Started server process")
        answers = ask_all(port, [f"request-{number}" for number in range(100)])
        server.stop()
        assert None not in answers.values()
        reconcile(server, answers)


def change_until_noticed(file: Path, server: Server) -> None:
    """Change a file until uvicorn reloads: what changes before it has looked for the first time is how it finds it."""
    now = time.time()
    for later_s in range(10, 70):
        os.utime(file, (now + later_s, now + later_s))
        with suppress(AssertionError):
            server.wait_for("Reloading", timeout_s=1)
            return
    raise AssertionError(f"never reloaded:\n{''.join(server.said)}")


def test_uvicorn_that_reloads(serve: Callable[..., Any], directory: Path) -> None:
    with serve("-m", "uvicorn", "--reload", "--port", "0", "asgi:app") as server:
        port = int(server.wait_for(r"running on http://127\.0\.0\.1:(\d+)")[1])
        server.wait_for("Started server process")
        answers = {"before": ask(port, "before")}
        change_until_noticed(directory / "asgi.py", server)
        server.wait_for("Started server process")
        answers["after"] = ask(port, "after")
        server.stop()
        assert None not in answers.values()
        assert answers["before"] != answers["after"]
        reconcile(server, answers)


def test_celery_prefork_with_a_worker_killed_in_the_middle(
    serve: Callable[..., Any], directory: Path, clean_env: dict[str, str]
) -> None:
    command = ("-m", "celery", "-A", "tasks", "worker", "--pool", "prefork", "--concurrency", "2", "--without-mingle")
    with serve(*command, "--without-gossip", "--loglevel", "info") as server:
        server.wait_for(r"ready\.")
        requests = [f"request-{number}" for number in range(20)]
        client = [sys.executable, "client.py", *requests[:10], "kill-1", *requests[10:]]
        done = subprocess.run(client, cwd=directory, env=clean_env, capture_output=True, encoding="utf-8", timeout=100)
        assert done.returncode == 0, done.stderr
        answers = json.loads(done.stdout)
        server.stop()
        assert answers.pop("kill-1") == "WorkerLostError"
        reconcile(server, answers | {"kill-1": None})
        assert len(set(answers.values())) >= 2
