"""A bar for work that takes long, on standard error, where somebody looks at it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

__all__ = ["Tell", "progress"]


Tell: TypeAlias = Callable[[int, int | None], None]
"""Is told how much is done, and of how much; None while nobody knows."""


@contextmanager
def progress(what: str, *, shares_screen: bool = False) -> Iterator[Tell]:
    """Show how far something has come, as the function that is yielded is told.

    ``shares_screen`` says that the work itself writes on standard output: there is no bar where that is a terminal, too.
    """
    hidden = not sys.stderr.isatty() or (shares_screen and sys.stdout.isatty())
    console = Console(stderr=True, color_system=None if os.environ.get("NO_COLOR") else "auto", highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(30), TaskProgressColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
