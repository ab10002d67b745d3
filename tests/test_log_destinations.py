"""Lines go to what a standard stream is at the moment, or into a file, whatever becomes of descriptors and directories."""

import gc
import io
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tracebus import trace
from tracebus.errors import ArgumentError
from tracebus.outputs.logs import log_to, log_to_stdout
from tracebus.signals import isolated


@pytest.fixture(autouse=True)
def _nobody_else_listens() -> Iterator[None]:
    with isolated():
        yield


def names(text: str) -> list[str]:
    """The runs that the lines are about."""
    return [json.loads(line)["name"] for line in text.splitlines()]


def say(name: str) -> None:
    with trace(name):
        pass


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_standard_stream_is_what_it_is_when_the_line_is_written(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with log_to(name, "json"):
        for stream in (io.StringIO(), io.StringIO()):
            monkeypatch.setattr(sys, name, stream)
            say("run")
            assert names(stream.getvalue()) == ["run", "run"]


def test_a_standard_stream_that_is_gone_swallows_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    with log_to("stderr") as subscription:
        say("run")
        assert subscription.stats.failed == 0


def test_a_stream_can_be_given() -> None:
    stream = io.StringIO()
    with log_to(stream):
        say("run")
    assert names(stream.getvalue()) == ["run", "run"]


@pytest.mark.parametrize("kind", [str, Path])
def test_lines_are_appended_to_a_file(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "lines.log"
    for name in "ab":
        with log_to(kind(path)):
            say(name)
    assert names(path.read_text("utf-8")) == ["a", "a", "b", "b"]


def test_a_file_is_the_same_one_in_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with log_to("lines.log"):
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        say("run")
    assert len(names((tmp_path / "lines.log").read_text("utf-8"))) == 2


@pytest.mark.parametrize("places", [("stderr", "stderr"), ("stdout", None), (Path("lines.log"), "lines.log")])
def test_the_same_place_again_replaces_what_was_there(
    places: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = log_to(places[0])
    second = log_to_stdout() if places[1] is None else log_to(places[1])
    assert (first.closed, second.closed) == (True, False)


def test_different_places_each_get_the_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log_to("stdout", "json")
    log_to("stderr", "json")
    log_to(tmp_path / "lines.log")
    say("run")
    captured = capsys.readouterr()
    assert captured.out == captured.err == (tmp_path / "lines.log").read_text("utf-8") != ""


def test_a_file_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no.lines\.log"):
        log_to(tmp_path / "no" / "lines.log")


@pytest.mark.parametrize("destination", [None, 3, b"lines.log", object()])
def test_what_is_no_destination_is_named_with_what_is(destination: Any) -> None:
    with pytest.raises(ArgumentError, match=r'give "stdout", "stderr", a path, or a text stream'):
        log_to(destination)


def descriptor_of(path: Path) -> int:
    for number in range(3, 1000):
        try:
            if os.path.samestat(os.fstat(number), path.stat()):
                return number
        except OSError:
            pass
    raise AssertionError(f"{path} is not open")


def test_a_descriptor_that_the_app_closed_and_uses_for_something_else_is_left_alone(tmp_path: Path) -> None:
    lines, other = tmp_path / "lines.log", tmp_path / "a_socket_say"
    with log_to(lines):
        say("before")
        number = descriptor_of(lines)
        opened = os.open(other, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, number)  # what becomes a daemon closes them all, and then the number is another file's
        os.close(opened)
        say("after")
    gc.collect()
    assert names(lines.read_text("utf-8")) == ["before", "before", "after", "after"]
    assert os.fstat(number).st_size == 0
    os.close(number)


def test_the_descriptor_is_closed_with_the_subscription(tmp_path: Path) -> None:
    lines = tmp_path / "lines.log"
    log_to(lines).close()
    gc.collect()
    with pytest.raises(AssertionError, match="is not open"):
        descriptor_of(lines)


def append(path: Path, name: str) -> None:
    with log_to(path):
        for _ in range(200):
            say(name)


@pytest.mark.once
def test_several_processes_append_whole_lines(tmp_path: Path) -> None:
    lines = tmp_path / "lines.log"
    children = [multiprocessing.get_context("spawn").Process(target=append, args=(lines, name)) for name in "abc"]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert sorted(names(lines.read_text("utf-8"))) == ["a"] * 400 + ["b"] * 400 + ["c"] * 400
