"""Tasks of Celery continue the trace of who sent them, in workers of their own and in place."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery, chain
from celery.app.trace import build_tracer

from tracebus import current_run, flush, inject, scope, trace, traced
from tracebus.integrations import celery as integration
from tracebus.outputs.store import Reader, save
from tracebus.runs import get_current
from tracebus.testing import Recording

INCOMING = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": "tracebus.user_id=u-1"}


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("tests", broker="memory://", backend="cache+memory://", set_as_current=False)
    integration.install()
    yield app
    integration.uninstall()
    app.close()


def headers_sent(app: Celery) -> dict[str, str]:
    """Send a task; return the headers of its message."""
    with app.connection_for_write() as connection, connection.channel() as channel:
        app.send_task("task", connection=connection)
        message = channel.basic_get("celery", no_ack=True)
        assert message is not None
        return {name: message.headers[name] for name in ("traceparent", "baggage") if name in message.headers}


def test_a_task_is_sent_with_the_run_that_sends_it(app: Celery) -> None:
    with scope(user_id="u-1", tags=["t"]), trace("client"):
        assert headers_sent(app) == inject()
    assert headers_sent(app) == {}


def test_after_uninstall_nothing_is_sent_along(app: Celery) -> None:
    integration.install()
    integration.uninstall()
    integration.uninstall()
    with trace("client"):
        assert headers_sent(app) == {}


def test_a_task_that_is_called_in_place_is_in_the_run_that_calls_it(app: Celery, recorded: Recording) -> None:
    @app.task
    @traced(name="work")
    def work() -> None:
        pass

    app.conf.task_always_eager = True
    with trace("client"):
        work.delay()
        work()
        work.apply(headers=INCOMING)
    assert recorded.tree() == "client chain ok" + 3 * "\n  work chain ok"


def test_a_task_that_fails_leaves_its_trace(app: Celery, recorded: Recording) -> None:
    @app.task(name="failing")
    @traced(name="failing")
    def failing() -> None:
        assert current_run() is not None
        raise ValueError("no")

    for _ in range(2):
        request = {"id": "1", "is_eager": False, "called_directly": False, "delivery_info": {}, **INCOMING}
        build_tracer("failing", app.tasks["failing"], app=app)("1", (), {}, request)
        assert get_current() is None
    assert [run.status for run in recorded.runs] == ["error", "error"]
    assert {run.trace_id.hex for run in recorded.runs} == {"0af7651916cd43dd8448eb211c80319c"}
    assert {run.user_id for run in recorded.runs} == {"u-1"}


TASKS = """
import os
from celery import Celery
from tracebus import traced
from tracebus.integrations import celery
from tracebus.outputs.store import save

here = os.path.dirname(os.path.abspath(__file__))
for name in ("queue", "results"):
    os.makedirs(os.path.join(here, name), exist_ok=True)
app = Celery("tasks", broker="filesystem://", backend="file://" + os.path.join(here, "results"))
app.conf.update(broker_transport_options={
    "data_folder_in": os.path.join(here, "queue"),
    "data_folder_out": os.path.join(here, "queue"),
    "control_folder": os.path.join(here, "control"),
    "polling_interval": 0.05,
})
celery.install()
if os.environ.get("IS_WORKER"):
    save(os.path.join(here, "traces.db"))

@app.task(name="first")
@traced(name="first")
def first(word):
    return word + "!"

@app.task(name="second", bind=True, max_retries=1)
@traced(name="second")
def second(self, word):
    if not self.request.retries:
        raise self.retry(countdown=0)
    return word + "?"
"""


@pytest.mark.once
@pytest.mark.timeout(120)
@pytest.mark.skipif(sys.platform == "win32", reason="prefork needs fork")
def test_tasks_in_prefork_workers_make_one_trace_with_who_sent_them(
    clean_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    command = ["-m", "celery", "-A", "tasks", "worker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "info"]
    with open(tmp_path / "worker.log", "w") as log:
        worker = subprocess.Popen(
            [sys.executable, *command, "--without-mingle", "--without-gossip"],
            cwd=tmp_path,
            env=clean_env | {"IS_WORKER": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    import tasks  # type: ignore[import-not-found]

    saving = save(tmp_path / "traces.db")
    try:
        with scope(session_id="s-1", user_id="u-1", tags=["web"]), trace("client") as run:
            sent = chain(tasks.first.s("word"), tasks.second.s()).apply_async()
        assert sent.get(timeout=60, interval=0.05) == "word!?"
        worker.send_signal(signal.SIGTERM)
        worker.wait(40)
    finally:
        flush()
        saving.close()
        integration.uninstall()
        tasks.app.close()
        sys.modules.pop("tasks", None)
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
    with Reader(tmp_path / "traces.db") as store:
        (latest,) = store.traces()
        rows = [(row.depth, row.run.name, row.run.status) for row in store.tree(latest.trace_id)]
        last = [row.run for row in store.tree(latest.trace_id)][-1]
    assert latest.trace_id == run.trace_id.hex
    assert rows == [(0, "client", "ok"), (1, "first", "ok"), (1, "second", "error"), (2, "second", "ok")]
    assert (last.session_id, last.user_id, tuple(last.tags)) == ("s-1", "u-1", ("web",))
    assert "Traceback" not in (tmp_path / "worker.log").read_text()
