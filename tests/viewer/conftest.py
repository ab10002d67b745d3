"""A store, and Debian's Chromium that looks at the viewer which serves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from looking import ARGUMENTS, CHROMIUM, PATIENCE_MS, Look, Opener, looking, serving
from playwright.sync_api import Browser, expect, sync_playwright

from tracebus.outputs.store import Saving, save
from tracebus.signals import isolated


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
def open_viewer(browser: Browser) -> Iterator[Opener]:
    """`open_viewer(path)`: a page of a viewer that serves this store."""
    with ExitStack() as stack:

        def open_one(path: Path, **options: Any) -> Look:
            return stack.enter_context(looking(browser, stack.enter_context(serving(path)), **options))

        yield open_one


@pytest.fixture
def saving(tmp_path: Path) -> Iterator[Saving]:
    """A store that is being written."""
    with isolated(), save(tmp_path / "data" / "traces.db") as saving:
        yield saving


@pytest.fixture
def look(saving: Saving, open_viewer: Opener) -> Look:
    """A page of that store."""
    return open_viewer(saving.path)
