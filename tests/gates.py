"""A subscriber that is as slow as a test wants it."""

import threading
from typing import Any


class Gate:
    """A sync subscriber that stays in its first event until it is opened."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.heard: list[Any] = []

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.heard]

    def __call__(self, sender: Any, event: Any) -> None:
        self.entered.set()
        self.opened.wait(30)
        self.heard.append(event)
