"""Wrapping a library's functions: what is there, what has moved, and what is missing."""

import logging
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tracebus.errors import MissingExtraError
from tracebus.integrations import patching
from tracebus.integrations.patching import Patches, Point


class Client:
    def ask(self, question: str) -> str:
        return f"{question}!"


class Other(Client):
    pass


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    module = ModuleType("some_library")
    module.Client, module.Other = Client, Other  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_library", module)
    monkeypatch.setattr(patching.importlib.metadata, "version", lambda name: "9.9")
    before = dict(vars(Client))
    yield module
    assert dict(vars(Client)) == before


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def patches(library: ModuleType, calls: list[str]) -> Iterator[Patches]:
    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        calls.append(args[0])
        return wrapped(*args, **kwargs)

    points = [Point(f"{name}.ask", wrapper, ("question",)) for name in ("Client", "Other")]
    patches = Patches("some_library", "some-extra", points)
    yield patches
    patches.uninstall()


def test_a_function_is_wrapped_once_and_unwrapped(patches: Patches, calls: list[str]) -> None:
    original = Client.ask
    patches.install()
    patches.install()
    assert Client().ask("a") == "a!"
    assert Other().ask("b") == "b!"
    patches.uninstall()
    patches.uninstall()
    assert Client.ask is original
    Client().ask("c")
    assert calls == ["a", "b"]


def test_it_can_be_wrapped_again(patches: Patches, calls: list[str]) -> None:
    patches.install()
    patches.uninstall()
    patches.install()
    Client().ask("a")
    assert calls == ["a"]


def test_what_somebody_has_wrapped_on_top_stays_and_our_part_does_nothing(
    patches: Patches, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    patches.install()
    ours = Client.ask
    with monkeypatch.context() as on_top:
        on_top.setattr(Client, "ask", lambda self, question: ours(self, question))
        patches.uninstall()
        assert Client().ask("a") == "a!"
        assert calls == []
        patches.install()
        Client().ask("b")
        assert calls == ["b"]
        patches.uninstall()
    Client.ask = ours.__wrapped__  # type: ignore[attr-defined, method-assign]


@pytest.mark.parametrize(
    "point", [Point("Client.gone", print), Point("Gone.ask", print), Point("Client.ask", print, ("prompt",))]
)
def test_a_function_that_has_moved_is_one_warning_with_the_version(
    point: Point, library: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    patches = Patches("some_library", "some-extra", [Point("Other.ask", print), point])
    patches.install()
    patches.install()
    assert Client().ask("a") == "a!"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "some_library 9.9" in record.getMessage()
    assert point.path in record.getMessage()


def test_what_is_not_needed_may_be_missing(library: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    patches = Patches("some_library", "some-extra", [Point("Client.gone", print, needed=False)])
    patches.install()
    patches.uninstall()
    assert caplog.records == []


def test_a_missing_library_says_what_to_install() -> None:
    with pytest.raises(MissingExtraError, match="pip install no_such_library"):
        Patches("no_such_library", "some-extra", []).install()


def test_missing_wrapt_says_which_extra_brings_it(library: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wrapt", None)
    with pytest.raises(MissingExtraError, match=r'pip install "tracebus\[some-extra\]"'):
        Patches("some_library", "some-extra", []).install()
