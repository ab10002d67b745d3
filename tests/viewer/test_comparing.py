"""Two traces, or two texts, side by side."""

import random
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracebus import trace
from tracebus.outputs.store import Reader, save
from tracebus.signals import isolated
from tracebus.viewer.comparing import Comparison, compare_runs, compare_traces
from tracebus.viewer.differences import as_text, differences

# -- traces ------------------------------------------------------------------------------------------------------------

Tree = tuple[str, list[Any]]


def run_all(tree: Tree, **fields: Any) -> None:
    name, below = tree
    with trace(name, **fields):
        for child in below:
            run_all(child)


@pytest.fixture
def compared(path: Path) -> Callable[[Tree, Tree], Comparison]:
    def compare(left: Tree, right: Tree) -> Comparison:
        with isolated(), save(path) as saving:
            run_all(left)
            run_all(right)
            assert saving.flush()
        with Reader(path) as reader:
            second, first = reader.traces(limit=2)
            return compare_traces(reader, first.trace_id, second.trace_id)

    return compare


def names(comparison: Comparison) -> list[tuple[int, str | None, str | None]]:
    return [(row.depth, row.left and row.left.name, row.right and row.right.name) for row in comparison.rows]


def leaves(text: str) -> list[Tree]:
    return [(name, []) for name in text.split()]


def test_runs_belong_together_by_name_and_position(compared: Callable[..., Comparison]) -> None:
    found = compared(("answer", leaves("search llm tool llm")), ("answer", leaves("search llm llm llm check")))
    assert names(found) == [
        (0, "answer", "answer"),
        (1, "search", "search"),
        (1, "llm", "llm"),
        (1, "tool", None),
        (1, "llm", "llm"),
        (1, None, "llm"),
        (1, None, "check"),
    ]


def test_what_only_the_right_has_stands_where_it_is_there(compared: Callable[..., Comparison]) -> None:
    found = compared(("answer", leaves("a b c")), ("answer", leaves("new a c newer b")))
    pairs = [(left, right) for _, left, right in names(found)[1:]]
    assert pairs == [(None, "new"), ("a", "a"), (None, "newer"), ("b", "b"), ("c", "c")]


def test_all_below_a_run_that_has_no_partner_has_none(compared: Callable[..., Comparison]) -> None:
    found = compared(("answer", [("agent", leaves("tool llm"))]), ("answer", []))
    assert names(found)[1:] == [(1, "agent", None), (2, "tool", None), (2, "llm", None)]


def test_the_only_roots_belong_together_whatever_their_names(compared: Callable[..., Comparison]) -> None:
    found = compared(("answer", leaves("llm")), ("answer_v2", leaves("llm")))
    assert names(found) == [(0, "answer", "answer_v2"), (1, "llm", "llm")]


def test_a_deep_trace_is_compared_like_any_other(compared: Callable[..., Comparison]) -> None:
    tree: Tree = ("bottom", [])
    for level in range(300):
        tree = (f"level {level}", [tree])
    found = compared(tree, tree)
    assert len(found.rows) == 301
    assert found.rows[-1].depth == 300
    assert all(row.same for row in found.rows)


def test_runs_are_the_same_when_what_went_in_and_came_out_is(path: Path) -> None:
    long = "x" * 5000
    with isolated(), save(path) as saving:
        for last in ("a", "a", "b"):
            with trace("answer") as root:
                with trace("llm", inputs={"prompt": long + last}) as run:
                    run.output = "yes"
                root.output = "yes"
        assert saving.flush()
    with Reader(path) as reader:
        third, second, first = (one.trace_id for one in reader.traces())
        alike = compare_traces(reader, first, second)
        other = compare_traces(reader, first, third)
    assert [row.same for row in alike.rows] == [True, True]
    assert [row.same for row in other.rows] == [True, False]  # the line that lists show is the same


def test_a_failure_is_compared_with_a_success(path: Path) -> None:
    with isolated(), save(path) as saving:
        with trace("rate") as run:
            run.output = "1.1"
        with pytest.raises(ValueError, match="no such"), trace("rate"):
            raise ValueError("no such currency")
        assert saving.flush()
    with Reader(path) as reader:
        second, first = (one.trace_id for one in reader.traces())
        assert not compare_traces(reader, first, second).rows[0].same
        told = compare_runs(reader.run(first), reader.run(second))
    assert (told.output, told.error) == ([("-", "1.1")], [("+", "ValueError: no such currency")])


# -- texts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "told"),
    [
        ("", "", []),
        ("same", "same", [("=", "same")]),
        ("", "new", [("+", "new")]),
        ("old", "", [("-", "old")]),
        ("the quick fox", "the slow fox", [("=", "the "), ("-", "quick"), ("+", "slow"), ("=", " fox")]),
        ("one two three", "one 2 3", [("=", "one "), ("-", "two three"), ("+", "2 3")]),
        ("a, b", "a; b", [("=", "a"), ("-", ","), ("+", ";"), ("=", " b")]),
        ("Grüße 日本", "Grüße 日本語", [("=", "Grüße "), ("-", "日本"), ("+", "日本語")]),
        ("a\nb\n", "a\nc\nb\n", [("=", "a\n"), ("+", "c\n"), ("=", "b\n")]),
    ],
)
def test_what_differs_is_told_word_by_word(left: str, right: str, told: list[tuple[str, str]]) -> None:
    assert differences(left, right) == told


@given(st.text("ab \n.é", max_size=80), st.text("ab \n.é", max_size=80))
def test_the_differences_have_all_of_both_texts(left: str, right: str) -> None:
    found = differences(left, right)
    assert "".join(text for sign, text in found if sign != "+") == left
    assert "".join(text for sign, text in found if sign != "-") == right
    assert all(text for _, text in found)
    assert all(one[0] != other[0] for one, other in pairwise(found))


def words(number: int, of: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices([f"w{word}" for word in range(of)], k=number))


LONG = {
    "one change in many words": (words(20_000, 3000, 1), words(20_000, 3000, 1).replace("w17 ", "w18 ", 1)),
    "nothing alike": (words(20_000, 3000, 1), words(20_000, 3000, 2)),
    "one line of one letter": ("a" * 65_536, "a" * 65_535),
    "two letters": ("ab " * 20_000, "ba " * 20_000),
    "lines": (
        "\n".join(words(6, 100, seed) for seed in range(4000)),
        "\n".join(words(6, 100, seed) for seed in range(9, 4009)),
    ),
    "a hundred words again and again": (
        " ".join(f"w{number % 101}" for number in range(20_000)),
        " ".join(f"w{number * 7 % 101}" for number in range(20_000)),
    ),
    "lines that come again": ("a\nb\n" * 20_000, "b\nb\na\n" * 10_000),
}


@pytest.mark.once
@pytest.mark.alone
@pytest.mark.parametrize("case", LONG)
def test_long_texts_are_compared_in_bounded_time(case: str) -> None:
    left, right = LONG[case]
    begun_s = time.monotonic()
    found = differences(left, right)
    assert time.monotonic() - begun_s < 20  # minutes, if it were not bounded
    assert "".join(text for sign, text in found if sign != "+") == left
    assert "".join(text for sign, text in found if sign != "-") == right


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("text\nas it is", "text\nas it is"),
        (3, "3"),
        (["a", 1, None], "- a\n- 1\n- null"),
        ({"city": "Zürich", "days": []}, "city: Zürich\ndays: []"),
        (
            {"messages": [{"role": "user", "content": "one\ntwo"}]},
            "messages:\n  -\n    role: user\n    content:\n      one\n      two",
        ),
    ],
)
def test_a_value_reads_as_lines(value: Any, text: str) -> None:
    assert as_text(value) == text
