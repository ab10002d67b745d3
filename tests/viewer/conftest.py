"""What the tests of the viewer share; what the page does in a browser is in test_page*."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from served import asking, fill, running

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
