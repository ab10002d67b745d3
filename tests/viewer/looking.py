"""What the browser tests share: a page of the viewer that notes what it does."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Dialog, Locator, Page, expect

from tracebus.outputs.store import Reader, Saving

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 20_000
"""How long something may take to appear before a test gives up, on a machine that is busy."""


@dataclass
class Look:
    """A page of the viewer, and what it did that a page must not do."""

    page: Page
    address: str
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def at(self, path: str) -> Page:
        """Open a page, and wait until its view is there."""
        self.page.goto(self.address + path)
        expect(self.page.locator("main.view")).to_be_visible()
        return self.page

    def watch(self) -> None:
        """Note requests, dialogs, uncaught errors, and what the content security policy refused."""
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", self._dismiss)
        self.page.on("pageerror", lambda error: self.failures.append(str(error)))
        self.page.on("console", self._hear)

    def _dismiss(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def _hear(self, message: ConsoleMessage) -> None:
        if re.search("Content.Security.Policy|Refused|could not be drawn", message.text):
            self.failures.append(message.text)

    def check(self) -> None:
        """Fail if the page asked another host, opened a dialog or went wrong."""
        own = urlsplit(self.address).netloc
        foreign = [url for url in self.requests if urlsplit(url).netloc != own and not url.startswith(("data:", "blob:"))]
        wrong = foreign + self.dialogs + self.failures
        assert not wrong, wrong


@contextmanager
def looking(browser: Browser, address: str, **options: Any) -> Iterator[Look]:
    """Open a new page; at the end, check what it did."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 720}, **options})
    look = Look(context.new_page(), address)
    look.watch()
    try:
        yield look
        look.check()
    finally:
        context.close()


Opener = Callable[..., Look]


def rows(page: Page) -> Locator:
    """The rows in sight of the list or the tree, without that of the headings and those that are still to come."""
    return page.locator("[role=rowgroup] [role=row]:not(.to-come)")


def latest(saving: Saving) -> str:
    """Write what was said so far; return the path of the latest trace."""
    assert saving.flush()
    with Reader(saving.path) as reader:
        return f"/traces/{reader.resolve('@last')}"
