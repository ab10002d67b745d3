"""What the tests of LangChain's bridge have in common: it is installed around each, and has let go of every run afterwards."""

from collections.abc import Iterator

import pytest

from tracebus.integrations.langchain import install, lives, uninstall

__all__ = ["anyio_backend", "installed"]


@pytest.fixture(scope="module", params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """LangChain and LangGraph know asyncio only."""
    return request.param


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    install()
    yield
    uninstall()
    assert not lives._lives
    assert len(lives.reporter) == 0
