"""A search shows where in a run its words stand, wherever that is, and takes for a word what the index takes for one."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marked_words import FOUND

from tracebus import emit, llm_new_token, trace
from tracebus.outputs.store import Found, Reader, Saving, save
from tracebus.outputs.store.filters import search_words
from tracebus.outputs.store.passages import Search, phrases_of
from tracebus.signals import isolated

LONG = "word " * 3000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Saving]:
    with isolated(), save(tmp_path / "traces.db") as saving:
        yield saving


def say(inputs: object = None, output: object = None) -> None:
    with trace("answer", inputs=inputs) as run:
        run.output = output


def search(store: Saving, text: str) -> list[Found]:
    assert store.flush()
    with Reader(store.path) as reader:
        return reader.search(text).items


def where(store: Saving, text: str) -> tuple[str, str]:
    (found,) = search(store, text)
    return found.found_in, found.passage


def hits(text: str, within: str) -> list[str]:
    return [within[hit.begin : hit.end] for hit in Search(phrases_of(text)).hits(within)]


def test_the_passage_is_where_the_words_are_far_behind_what_lists_show(store: Saving) -> None:
    say({"messages": [{"role": "user", "content": f"{LONG}the Needle, {LONG}"}, {"role": "assistant", "content": "Yes?"}]})
    place, passage = where(store, "needle")
    assert place == "input"
    assert passage.startswith("…word word the Needle, word ")
    assert passage.endswith("…")
    assert len(passage) <= 242


def test_the_passage_is_from_what_has_most_of_the_words(store: Saving) -> None:
    say({"prompt": "Where is the needle?"}, "In the haystack is a needle.")
    assert where(store, "needle") == ("output", "In the haystack is a needle.")
    assert where(store, "where needle") == ("input", "Where is the needle?")
    assert where(store, "haystack where") == ("output", "In the haystack is a needle.")  # of two with one word each


def test_the_passage_is_where_the_words_are_near_one_another(store: Saving) -> None:
    say(f"A needle. {LONG} A haystack, and in it the needle. {LONG} Another haystack.")
    _, passage = where(store, "needle haystack")
    assert "A haystack, and in it the needle." in passage


def test_an_error_and_its_causes_are_searched(store: Saving) -> None:
    def fail() -> None:
        try:
            raise KeyError("needle")
        except KeyError as error:
            raise ValueError("no luck") from error

    with pytest.raises(ValueError, match="no luck"), trace("answer", inputs="a needle"):
        fail()
    assert where(store, "needle") == ("error", "ValueError: no luck KeyError: 'needle'")


def test_what_was_streamed_is_output(store: Saving) -> None:
    with trace("answer", kind="llm") as run:
        for token in ("The nee", "dle ", "is here."):
            emit(llm_new_token, token=token)
        run.output = {"finish_reason": "stop"}
    assert where(store, "needle") == ("output", "stop The needle is here.")


@pytest.mark.parametrize(("text", "within", "marked"), [*FOUND, ("elephant", "a mouse", [])])
def test_what_is_found_in_a_text(text: str, within: str, marked: list[str]) -> None:
    assert hits(text, within) == marked


WRITTEN = st.text("aAbäÄé\u0301ß1ж日한 _-.*'\"", max_size=12)


@given(text=WRITTEN.filter(lambda text: any(map(str.isalnum, text))), within=WRITTEN)
def test_what_is_found_is_what_the_index_finds(text: str, within: str) -> None:
    phrases = phrases_of(text)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute('CREATE VIRTUAL TABLE part USING fts5 (text, tokenize = "unicode61 remove_diacritics 2")')
        connection.execute("INSERT INTO part VALUES (?)", (within,))
        for phrase in phrases:
            found = connection.execute("SELECT 1 FROM part WHERE part MATCH ?", (search_words([phrase]),)).fetchone()
            assert bool(Search([phrase]).hits(within)) == (found is not None), phrase
