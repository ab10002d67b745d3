"""What the tests of the viewer share; what the page does in a browser is in test_page*."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from looking import ARGUMENTS, CHROMIUM, PATIENCE_MS, Look, Opener, looking
from playwright.sync_api import Browser, expect, sync_playwright
from served import asking, fill, running

from tracebus.outputs.store import Saving, save
from tracebus.signals import isolated
from tracebus.viewer.serving import Server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces.db"


@pytest.fixture
def store(path: Path) -> Path:
    """A store of five traces."""
    fill(path)
    return path


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """`serve(store, token=…)`: a server that runs until the test ends."""
    with ExitStack() as stack:
        yield lambda store, **options: stack.enter_context(running(Server(store, **{"port": 0, **options})))


@pytest.fixture
def ask(store: Path, serve: Callable[..., Server]) -> Iterator[httpx.Client]:
    """A client of a server over the store of five traces."""
    with asking(serve(store)) as client:
        yield client


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a module. Not longer: while Playwright runs, no event loop can in this thread."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium here: apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_viewer(browser: Browser, serve: Callable[..., Server]) -> Iterator[Opener]:
    """`open_viewer(path)`: a page of a viewer that serves this store."""
    with ExitStack() as stack:

        def open_one(path: Path, **options: Any) -> Look:
            return stack.enter_context(looking(browser, serve(path).address, **options))

        yield open_one


@pytest.fixture
def saving(path: Path) -> Iterator[Saving]:
    """A store that is being written."""
    with isolated(), save(path, keep_days=None) as saving:
        yield saving


@pytest.fixture
def look(saving: Saving, open_viewer: Opener) -> Look:
    """A page of that store."""
    return open_viewer(saving.path)
