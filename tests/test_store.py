"""The store: what is kept of runs, and what a reader tells of them. Faults are in test_store_faults."""

import itertools
import json
import math
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import genai_prices
import pytest

from tracebus import (
    Usage,
    aflush,
    agent_action,
    current_run,
    custom_event,
    emit,
    flush,
    llm_new_token,
    retry,
    scope,
    text,
    trace,
    traced,
)
from tracebus.errors import ArgumentError
from tracebus.outputs.store import (
    Filter,
    NotFoundError,
    Reader,
    Saving,
    StoreError,
    areplay,
    default_path,
    delete,
    export_lines,
    import_lines,
    prune,
    replay,
    save,
)
from tracebus.outputs.store.prices import cost_of
from tracebus.propagation import extract
from tracebus.redaction import MASK, Redactor
from tracebus.signals import isolated
from tracebus.testing import deterministic, record

pytestmark = pytest.mark.usefixtures("nobody_else_listens")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "traces.db"


@pytest.fixture
def store(path: Path) -> Iterator[Saving]:
    with isolated(), save(path, keep_days=None) as saving:  # clocks are set back in some tests
        yield saving


@pytest.fixture
def read(store: Saving) -> Iterator[Callable[[], Reader]]:
    """Return a reader of what was said so far."""
    readers = []

    def read_now() -> Reader:
        assert flush()
        readers.append(Reader(store.path))
        return readers[-1]

    yield read_now
    for reader in readers:
        reader.close()


@traced(kind="llm")
def generate(prompt):
    yield from ("Forty", "-two", ".")
    run = current_run()
    run.model, run.usage = "gpt-4o-mini", Usage(1000, 10)


@traced
def answer(question):
    with trace("search", kind="retriever", inputs={"query": question}) as run:
        run.output = [{"content": "a"}, {"content": "b"}]
    return "".join(generate(f"Q: {question}"))


def fail(message="no such currency"):
    with pytest.raises(ValueError, match=message), trace("rate", kind="tool", inputs={"code": "XX"}):
        raise ValueError(message)


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_a_trace_is_kept_with_its_totals(read):
    answer("What is six times seven?")
    (summary,) = read().traces()
    assert (summary.name, summary.kind, summary.status, summary.runs, summary.errors) == ("answer", "chain", "ok", 3, 0)
    assert (summary.input, summary.output) == ("What is six times seven?", "Forty-two.")
    assert (summary.tokens.input, summary.tokens.output, summary.tokens.total, summary.streamed) == (1000, 10, 1010, 3)
    assert summary.cost == pytest.approx((1000 * 0.15 + 10 * 0.6) / 1e6)
    assert not summary.cost_is_partial
    assert summary.model == "gpt-4o-mini"
    assert summary.first_token_ns > 0


def test_a_tree_has_each_run_before_those_below_it(read):
    answer("What?")
    rows = read().tree("@last")
    assert [(row.depth, row.run.name, row.has_children) for row in rows] == [
        (0, "answer", True),
        (1, "search", False),
        (1, "generate", False),
    ]
    assert rows.items[1].run.output == "2 documents"


def test_a_run_keeps_its_bodies_and_its_ids(read):
    with record() as rec:
        answer("What?")
    said = rec.run("generate")
    detail = read().run(said.trace_id.hex, str(said.id))
    assert detail.run.run_id == str(said.id)
    assert detail.run.span_id == f"{said.span_id:016x}"
    assert detail.body.inputs == {"prompt": "Q: What?"}
    assert detail.body.output == "Forty-two."
    assert detail.run.duration_ns == round(said.duration_s * 1e9)


def test_tokens_keep_their_texts_and_their_gaps(read):
    with deterministic() as clock, trace("generate", kind="llm"):
        for pause, token in ((0.25, "For"), (0.5, "ty"), (0.0, "-two")):
            clock.advance(pause)
            emit(llm_new_token, token=token)
    detail = read().run("@last")
    assert [(step.at_ns, step.text) for step in detail.steps] == [
        (250_000_000, "For"),
        (750_000_000, "ty"),
        (750_000_000, "-two"),
    ]
    assert detail.run.first_token_ns == 250_000_000


def test_tokens_of_a_run_with_another_output_keep_their_text(read):
    with trace("generate", kind="llm") as run:
        emit(llm_new_token, token="Forty")
        emit(llm_new_token, token="-two")
        run.output = {"role": "assistant", "content": "Forty-two"}
    detail = read().run("@last")
    assert detail.body.streamed == "Forty-two"
    assert [step.text for step in detail.steps] == ["Forty", "-two"]
    assert detail.body.output == {"role": "assistant", "content": "Forty-two"}


def test_a_secret_that_is_spread_over_tokens_is_masked(read):
    with trace("generate", kind="llm"):
        for token in ("the key is ", "sk-", "abcdefgh", "ijklmnop", " and", " so on"):
            emit(llm_new_token, token=token)
    detail = read().run("@last")
    assert detail.body.output == f"the key is sk-{MASK} and so on"
    assert "".join(step.text for step in detail.steps) == detail.body.output
    assert detail.steps[-1].text == " so on"


def test_a_run_is_visible_while_it_is_open_with_its_tokens_so_far(read):
    tokens = generate("How many?")
    next(tokens)
    next(tokens)
    reader = read()
    (run,) = reader.open_runs()
    assert (run.name, run.status, run.streamed, run.input) == ("generate", "open", 2, "How many?")
    assert reader.run(run.trace_id).body.streamed == "Forty-two"
    assert reader.traces().items[0].status == "open"
    list(tokens)
    detail = read().run(run.trace_id)
    assert (detail.run.status, detail.body.output) == ("ok", "Forty-two.")
    assert [step.text for step in detail.steps] == ["Forty", "-two", "."]
    assert read().traces().items[0].open_runs == 0


def test_an_error_is_kept_with_its_frames_and_its_cause(read):
    def go_wrong():
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise RuntimeError("went wrong") from error

    with pytest.raises(RuntimeError):
        traced(go_wrong)()
    detail = read().run("@last")
    assert (detail.run.status, detail.run.error) == ("error", "RuntimeError: went wrong KeyError: 'inner'")
    assert (detail.body.error.type, detail.body.error.message) == ("RuntimeError", "went wrong")
    assert detail.body.error.frames[-1]["file"] == __file__
    assert [cause["type"] for cause in detail.body.error.causes] == ["KeyError"]


def test_what_is_said_on_a_run_is_kept(read):
    with trace("agent", kind="agent"):
        emit(agent_action, tool="search", tool_input={"q": "x"}, log="because")
        emit(retry, attempt=2, wait_s=0.5, error=ValueError("busy"))
        emit(custom_event, name="mine", data={"password": "hunter22"})
    events = read().run("@last").events
    assert [event.hook for event in events] == ["agent_action", "retry", "custom_event"]
    assert events[0].data == {"tool": "search", "tool_input": {"q": "x"}, "log": "because"}
    assert events[1].data["error"]["message"] == "busy"
    assert events[2].data["data"] == {"password": MASK}


def test_a_list_that_grows_is_kept_as_it_was_at_each_call(read):
    messages = []
    ask = traced(kind="chat_model", name="ask")(lambda messages: "yes")
    with record() as rec, trace("agent"):
        for turn in range(20):
            messages.append({"role": "user", "content": f"turn {turn}"})
            messages.append({"role": "assistant", "content": ask(messages)})
    reader = read()
    stored = [
        reader.run("@last", row.run.span_id).body.inputs["messages"] for row in reader.tree("@last") if row.run.name == "ask"
    ]
    assert [len(one) for one in stored] == list(range(1, 40, 2))
    assert stored == [run.inputs["messages"] for run in rec.runs if run.name == "ask"]


def test_metadata_tags_session_and_user_are_kept(read):
    with scope(session_id="s-1", user_id="u-1", tags=["web"], metadata={"team": "a"}):
        answer("What?")
    detail = read().run("@last")
    assert (detail.run.session_id, detail.run.user_id, detail.run.tags) == ("s-1", "u-1", ["web"])
    assert detail.body.metadata == {"team": "a"}


def test_capture_leaves_content_out_and_keeps_the_rest(path):
    with isolated(), save(path, capture="none"):
        answer("secret question")
    with Reader(path) as reader:
        rows = reader.tree("@last").items
        assert [row.run.name for row in rows] == ["answer", "search", "generate"]
        bodies = [reader.run("@last", row.run.span_id).body for row in rows]
    assert [(body.inputs, body.output, body.streamed) for body in bodies] == [(None, None, None)] * 3
    assert rows[2].run.tokens.total == 1010


def test_a_rule_of_the_users_sees_what_is_kept(path):
    rule = Redactor(lambda path, value: "[name]" if value == "Ada" else value)
    with isolated(), save(path, redactor=rule), trace("greet", inputs={"who": "Ada"}):
        pass
    with Reader(path) as reader:
        assert reader.run("@last").body.inputs == {"who": "[name]"}


def test_what_was_masked_and_cut_is_counted(read):
    with trace("call", inputs={"api_key": "sk-abcdefghijklmnop", "text": "x" * 100_000}):
        pass
    reader = read()
    (summary,) = reader.traces()
    assert (summary.masked, summary.cut) == (1, 1)
    assert reader.run("@last").body.inputs["text"].endswith("…[100000 characters]")


def test_a_trace_from_elsewhere_keeps_its_id_and_its_parent(read):
    with extract({"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}):
        answer("What?")
    reader = read()
    (summary,) = reader.traces()
    assert (summary.trace_id, summary.name) == ("ab" * 16, "answer")
    assert reader.run("ab" * 16).run.parent_id == "cd" * 8
    assert [row.depth for row in reader.tree("abab")] == [0, 1, 1]


def test_the_file_is_for_its_owner_alone(store, read):
    answer("What?")
    read()
    files = sorted(store.path.parent.iterdir())
    assert {file.name for file in files} >= {"traces.db", "traces.db-wal"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_the_path_is_what_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("TRACEBUS_DB", str(tmp_path / "mine.db"))
    assert default_path() == tmp_path / "mine.db"
    with isolated(), save(), trace("a"):
        pass
    with Reader() as reader:
        assert reader.path == tmp_path / "mine.db"


def test_a_store_that_is_closed_hears_nothing_more(path):
    with isolated():
        with save(path) as saving:
            answer("one")
        with record():
            answer("two")
        assert saving.closed
        saving.close()
    with Reader(path) as reader:
        assert [summary.input for summary in reader.traces()] == ["one"]


def test_two_stores_keep_the_same_runs(path, tmp_path):
    with isolated(), save(path), save(tmp_path / "other.db"):
        answer("What?")
    with Reader(path) as one, Reader(tmp_path / "other.db") as other:
        assert one.traces() == other.traces()


def test_every_event_is_accounted_for(store):
    for number in range(500):
        answer(f"question {number}")
    assert flush()
    stats = store.stats
    assert stats.matched == stats.delivered == 500 * 9
    assert (stats.failed, stats.dropped, stats.pending) == (0, {}, 0)


async def test_what_is_said_in_async_code_is_kept(path):
    @traced(kind="llm")
    async def stream(prompt):
        yield "a"
        yield "b"

    with isolated(), save(path):
        assert [token async for token in stream("x")] == ["a", "b"]
        assert await aflush()
        with Reader(path) as reader:
            assert reader.run("@last").body.output == "ab"


@pytest.mark.parametrize(
    "wrong",
    [
        {"project": ""},
        {"capture": "some"},
        {"redactor": print},
        {"keep_days": 0},
        {"keep_bytes": -1},
        {"overflow": "explode"},
        {"queue_size": 0},
        {"interval_s": 0},
    ],
)
def test_save_names_a_wrong_argument(wrong, path):
    with pytest.raises(ArgumentError, match=next(iter(wrong)).split("_")[0]):
        save(path, **wrong)


# -- cost --------------------------------------------------------------------------------------------------------------


def call_model(model="gpt-4o-mini", usage=None, name="call"):
    with trace(name, kind="llm", model=model) as run:
        run.usage = usage or Usage(1000, 100)


def test_totals_come_from_leaves_only(read):
    with trace("agent", kind="agent", model="gpt-4o-mini") as agent:
        call_model()
        call_model()
        agent.usage = Usage(2000, 200)
    (summary,) = read().traces()
    assert (summary.tokens.input, summary.tokens.output) == (2000, 200)
    assert summary.cost == pytest.approx(2 * (1000 * 0.15 + 100 * 0.6) / 1e6)


def test_a_child_that_ends_after_its_parent_takes_the_parents_usage_off(read):
    parent = trace("agent", kind="agent", model="gpt-4o-mini")
    with parent as agent:
        child = generate("x")
        next(child)
        agent.usage = Usage(7, 7)
    assert read().traces().items[0].tokens.total == 14
    list(child)
    reader = read()
    assert reader.traces().items[0].tokens.total == 1010
    assert sum(one.total_tokens for one in reader.statistics("name")) == 1010


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_totals_come_from_leaves_only_whichever_is_stored_first(order, path, tmp_path):
    with isolated(), save(path), trace("agent", kind="agent", model="gpt-4o-mini") as agent:
        with trace("team", kind="agent", model="gpt-4o-mini") as team:
            call_model(usage=Usage(7, 3))
            team.usage = Usage(7, 3)
        agent.usage = Usage(7, 3)
    lines = list(export_lines(path))
    other = tmp_path / "other.db"
    for number in order:  # as three processes that write one trace
        import_lines([lines[number]], other)
    with Reader(other) as reader:
        assert reader.traces().items[0].tokens.total == 10
        assert {one.name: one.total_tokens for one in reader.statistics("name")} == {"agent": 0, "team": 0, "call": 10}


def test_what_has_no_price_is_unknown_and_said_to_be_missing(read):
    with trace("agent"):
        call_model("my-own-model")
        call_model("gpt-4o-mini")
    reader = read()
    (summary,) = reader.traces()
    assert summary.cost == pytest.approx((1000 * 0.15 + 100 * 0.6) / 1e6)
    assert summary.cost_is_partial
    assert {one.model: one.cost is None for one in reader.statistics("model")} == {
        None: True,
        "my-own-model": True,
        "gpt-4o-mini": False,
    }


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5", "claude-3-5-haiku-latest", "gemini-2.5-pro", "openai/gpt-4o-mini"])
def test_a_price_is_that_of_the_price_list(model):
    now, usage = time.time_ns(), Usage(300_000, 5_000, cached_tokens=1_000)
    provider, _, name = model.rpartition("/")
    listed = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=300_000, cache_read_tokens=1_000, output_tokens=5_000),
        name,
        provider_id=provider or None,
    )
    assert cost_of(model, usage, now) == pytest.approx(float(listed.total_price))


def test_the_price_list_says_how_old_it_is(read):
    answer("What?")
    prices = read().price_list()
    assert prices.source.startswith("genai-prices ")
    assert date.fromisoformat(prices.checked) <= date.today()


def test_a_count_that_no_table_holds_loses_only_itself(read):
    call_model(usage=Usage(2**70, 5, total_tokens="many"))
    call_model(usage=Usage(3, 4))
    later, first = (trace.tokens for trace in read().traces())
    assert (first.input, first.output, first.total) == (0, 5, 0)
    assert (later.input, later.output, later.total) == (3, 4, 7)


def test_a_run_without_tokens_costs_nothing_that_is_known(read):
    call_model(usage=Usage(total_tokens=10))
    assert read().traces().items[0].cost is None


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (Usage(1000, 0, cached_tokens=800), 200 * 3 + 800 * 0.3),
        (Usage(200, 0, cached_tokens=800), 200 * 3 + 800 * 0.3),  # counted beside, as Anthropic's API does
        (Usage(1000, 0, cached_tokens=300, cache_write_tokens=500), 200 * 3 + 300 * 0.3 + 500 * 3.75),
        (Usage(200, 0, cached_tokens=300, cache_write_tokens=500), 200 * 3 + 300 * 0.3 + 500 * 3.75),
    ],
)
def test_what_a_cache_gave_and_took_has_its_price_whether_counted_in_or_beside(usage, dollars, read):
    call_model("claude-3-5-sonnet-latest", usage)
    assert read().traces().items[0].cost == pytest.approx(dollars / 1e6)


# -- lists, filters, search --------------------------------------------------------------------------------------------


def test_lists_come_in_pages_the_latest_first(read):
    for number in range(7):
        answer(f"question {number}")
    reader = read()
    pages, after = [], None
    while True:
        page = reader.traces(limit=3, after=after)
        pages.append([summary.input[-1] for summary in page])
        after = page.after
        if after is None:
            break
    assert pages == [["6", "5", "4"], ["3", "2", "1"], ["0"]]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"kind": "llm"}, ["web", "plain"]),
        ({"kind": "tool"}, ["rate"]),
        ({"model": "gpt-4o-mini"}, ["web", "plain"]),
        ({"tag": "web"}, ["web"]),
        ({"tag": "web", "model": "gpt-4o-mini", "kind": "llm"}, ["web"]),
        ({"session_id": "s-1"}, ["web"]),
        ({"user_id": "u-1"}, ["web"]),
        ({"status": "error"}, ["rate"]),
        ({"status": "ok"}, ["web", "plain"]),
        ({"status": "open"}, []),
        ({"name": "generate"}, ["web", "plain"]),
        ({"min_tokens": 1}, ["web", "plain"]),
        ({"min_cost": 0.0001}, ["web", "plain"]),
        ({"max_cost": 0.0001}, []),
        ({"min_duration_s": 60}, []),
        ({"max_duration_s": 60}, ["web", "rate", "plain"]),
        ({"project": "default"}, ["web", "rate", "plain"]),
        ({"project": "other"}, []),
        ({"until_ns": 1}, []),
        ({"since_ns": 1}, ["web", "rate", "plain"]),
    ],
)
def test_traces_are_filtered(wanted, found, read):
    answer("plain")
    fail()
    with scope(tags=["web"], session_id="s-1", user_id="u-1"):
        answer("web")
    assert [summary.input.replace("XX", "rate") for summary in read().traces(**wanted)] == found
    assert read().traces(Filter(**wanted)) == read().traces(**wanted)


def test_runs_are_filtered_across_traces(read):
    with scope(tags=["web"]):
        answer("one")
    answer("two")
    reader = read()
    assert [run.input for run in reader.runs(kind="llm")] == ["Q: two", "Q: one"]
    assert [run.input for run in reader.runs(name="search", tag="web")] == ["one"]
    assert [run.name for run in reader.runs(trace="@last", kind="retriever")] == ["search"]


def test_search_finds_prompts_outputs_and_errors(read):
    answer("Who wrote the Zauberflöte?")
    answer("Who wrote the Kleine Nachtmusik?")
    fail("no such currency")
    reader = read()
    assert [run.name for run in reader.search("zauberflote wrote")] == ["generate", "search", "answer"]
    assert [run.name for run in reader.search("forty", limit=1)] == ["generate"]
    assert [run.name for run in reader.search("such currency")] == ["rate"]
    assert [run.name for run in reader.search('"wrote the kleine"', kind="llm")] == ["generate"]
    assert reader.search('"kleine wrote"').items == []
    assert len(reader.search("nacht*")) == 3


@pytest.mark.parametrize("text", ["NEAR(", 'a" OR "b', "x AND", "col:", "'); DROP TABLE runs"])
def test_nothing_in_a_search_is_an_operator(text, read):
    answer("What?")
    assert read().search(text).items == []


def test_a_search_for_no_word_is_named(read):
    answer("What?")
    with pytest.raises(ArgumentError, match="no word"):
        read().search("-^*")


def test_a_search_with_a_character_that_the_index_cannot_read_is_named(read):
    answer("What?")
    with pytest.raises(ArgumentError, match="NUL"):
        read().search("what\0")


def test_a_trace_is_found_by_the_beginning_of_its_id(read):
    with extract({"traceparent": "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"}):
        answer("one")
    with extract({"traceparent": "00-" + "ab" * 15 + "ac-" + "cd" * 8 + "-01"}):
        answer("two")
    reader = read()
    assert reader.trace("ab" * 15 + "AC").input == "two"
    for given, said in (("ab", "several"), ("f", "no trace"), ("xyz", "no id"), ("", "no id")):
        with pytest.raises(NotFoundError, match=said):
            reader.trace(given)


def test_failures_of_a_trace_are_listed(read):
    with trace("agent"):
        fail()
        fail()
    assert [run.name for run in read().failures("@last")] == ["rate", "rate"]


def test_a_wide_and_a_deep_tree_come_in_pages(read):
    with trace("root"):
        for number in range(30):
            with trace(f"wide {number}"):
                pass
        blocks = [trace(f"deep {number}") for number in range(30)]
        for block in blocks:
            block.__enter__()
        for block in reversed(blocks):
            block.__exit__(None, None, None)
        with trace("last"):
            pass
    reader = read()
    rows, after = [], None
    while True:
        page = reader.tree("@last", limit=7, after=after)
        rows += page.items
        after = page.after
        if after is None:
            break
    assert [(row.run.name, row.depth) for row in rows] == [
        ("root", 0),
        *((f"wide {number}", 1) for number in range(30)),
        *((f"deep {number}", number + 1) for number in range(30)),
        ("last", 1),
    ]


def test_a_run_whose_parent_was_not_heard_is_at_the_top(path):
    with isolated(), trace("unheard"), save(path):
        answer("What?")
    with Reader(path) as reader:
        assert [(row.depth, row.run.name) for row in reader.tree("@last")] == [(0, "answer"), (1, "search"), (1, "generate")]
        assert reader.traces().items[0].name == "answer"


# -- sessions, statistics, changes -------------------------------------------------------------------------------------


def test_sessions_have_the_totals_of_their_traces(read):
    for session in ("s-1", "s-2", "s-1"):
        with scope(session_id=session, user_id="u"):
            answer(session)
        flush()
    reader = read()
    first, second = reader.sessions()
    assert (first.session_id, first.traces, first.runs, first.total_tokens) == ("s-1", 2, 6, 2020)
    assert second.session_id == "s-2"
    assert first.cost == pytest.approx(2 * second.cost)
    assert [one.session_id for one in reader.sessions(limit=1, after=reader.sessions(limit=1).after)] == ["s-2"]
    assert [trace.input for trace in reader.traces(session_id="s-1")] == ["s-1", "s-1"]
    assert reader.session("s-2") == second
    with pytest.raises(NotFoundError, match="s-3"):
        reader.session("s-3")


def test_statistics_are_off_by_one_percent_at_most(read):
    with deterministic() as clock:
        for number in range(1, 101):
            with trace("step", kind="llm", model="m"):
                clock.advance(number / 1000)
    (one,) = read().statistics("model", "name")
    assert (one.model, one.name, one.runs, one.errors) == ("m", "step", 100, 0)
    assert one.p50_ns == pytest.approx(50e6, rel=0.03)
    assert one.p95_ns == pytest.approx(95e6, rel=0.02)
    assert one.p99_ns == pytest.approx(99e6, rel=0.02)
    assert one.mean_ns == pytest.approx(50.5e6)


def test_statistics_are_told_by_time(read):
    hour = 3600 * 10**9
    with deterministic() as clock:
        for _ in range(50):
            with trace("step"):
                begin = current_run().start_ns
            clock.advance(3600)
    first = begin - 49 * hour
    reader = read()
    assert [one.runs for one in reader.statistics()] == [50]
    assert [one.runs for one in reader.statistics(since_ns=first + 10 * hour)] == [40]
    assert [one.runs for one in reader.statistics(since_ns=first + 10 * hour, until_ns=first + 13 * hour)] == [3]
    points = reader.points(since_ns=first + 45 * hour)
    assert [(point.time_ns - first) // hour for point in points] == [45, 46, 47, 48, 49]
    assert [point.statistic.runs for point in reader.points(grain="day")] == [24, 24, 2]
    assert reader.statistics(name="other") == []


def test_statistics_count_errors_and_first_tokens(read):
    answer("What?")
    fail()
    by_kind = {one.kind: one for one in read().statistics("kind")}
    assert (by_kind["tool"].errors, by_kind["llm"].errors) == (1, 0)
    assert by_kind["llm"].first_token_p50_ns is not None
    assert by_kind["tool"].first_token_p50_ns is None


def test_changes_are_told_since_a_cursor(read):
    answer("one")
    reader = read()
    seen = reader.changes(0)
    assert [trace.input for trace in seen.traces] == ["one"]
    assert [run.name for run in seen.runs] == ["answer", "search", "generate"]
    assert reader.changes(seen.cursor).traces == []
    answer("two")
    assert flush()
    news = reader.changes(seen.cursor)
    assert ([trace.input for trace in news.traces], news.is_complete) == (["two"], True)


def test_what_there_is_to_filter_by_is_told(read):
    with scope(tags=["web"]):
        answer("one")
    fail()
    choices = read().choices()
    assert choices.kinds == ["chain", "llm", "retriever", "tool"]
    assert (choices.models, choices.tags, choices.statuses) == (["gpt-4o-mini"], ["web"], ["error", "ok", "open"])


def test_a_reader_serves_several_threads(read):
    answer("one")
    reader, found = read(), []
    threads = [threading.Thread(target=lambda: found.append(reader.traces().items[0].input)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["one"] * 4


@pytest.mark.parametrize(("wrong", "said"), [({"limit": 0}, "limit"), ({"after": "x"}, "page.after"), ({"colour": 1}, "kind")])
def test_a_question_that_makes_no_sense_is_named(wrong, said, read):
    answer("What?")
    with pytest.raises(ArgumentError, match=said):
        read().traces(**wrong)


def test_a_statistic_by_nothing_known_is_named(read):
    answer("What?")
    with pytest.raises(ArgumentError, match="choose from"):
        read().statistics("colour")


# -- delete, prune, export, import, replay -----------------------------------------------------------------------------


def everything(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


def rows_of(path: Path, table: str) -> int:
    with Reader(path) as reader:
        return reader._rows(f"SELECT count(*) FROM {table}")[0][0]


@pytest.mark.parametrize("wanted", [{"session_id": "s-1"}, {"user_id": "u-1"}, {"trace": "@last"}])
def test_what_is_deleted_leaves_nothing_behind(wanted, path):
    with isolated(), save(path):
        answer("an innocent question")
        fail()
        assert flush()
        with scope(session_id="s-1", user_id="u-1", tags=["zebratag"], metadata={"note": "zebrameta"}):
            answer("zebraquestion unheard of")
        assert flush()
        assert b"zebra" in everything(path)
        assert delete(path, **wanted) == (1, 3)
        assert b"zebra" not in everything(path)
        with Reader(path) as reader:
            assert [trace.input for trace in reader.traces()] == ["XX", "an innocent question"]
            assert reader.search("zebraquestion").items == []
            assert [run.name for run in reader.search("innocent question")] == ["generate", "search", "answer"]
            assert reader.sessions().items == []
            assert sum(one.runs for one in reader.statistics("name")) == 4
            assert reader._rows("SELECT count(*) FROM labels WHERE trace_id NOT IN (SELECT id FROM traces)") == [(0,)]
            assert reader.info().runs == 4
        answer("another question")
    with Reader(path) as reader:
        assert reader.traces().items[0].input == "another question"


def test_the_words_of_what_is_deleted_are_gone_from_the_index(path):
    with isolated(), save(path):
        answer("zebraquestion")
        flush()
        for number in range(20):
            answer(f"innocent {number}")
            flush()
    with Reader(path) as reader:
        trace_id = reader.search("zebraquestion").items[0].trace_id
    delete(path, trace=trace_id)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab('main', 'search_0', 'row')")
        words = [word for (word,) in connection.execute("SELECT term FROM temp.words")]
    assert "innocent" in words
    assert [word for word in words if word.startswith("zebra")] == []


def test_the_rest_of_a_run_that_was_deleted_is_not_written(path):
    with isolated(), save(path):
        tokens = generate("zebra")
        next(tokens)
        assert flush()
        delete(path, trace="@last")
        list(tokens)
        assert flush()
        with Reader(path) as reader:
            assert reader.traces().items == []
    assert [rows_of(path, table) for table in ("runs", "bodies", "tokens", "labels", "traces", "rollups")] == [0] * 6


def test_what_is_still_said_in_a_trace_that_was_deleted_is_not_written(path):
    with isolated(), save(path):
        with trace("root"):
            assert flush()
            delete(path, trace="@last")
            emit(text, text="zebra said")
            answer("zebra asked")
            assert flush()
            generate("zebra asked again").close()
        assert flush()
        tables = ("runs", "bodies", "tokens", "events", "labels", "traces", "rollups")
        assert [rows_of(path, table) for table in tables] == [0] * 7
        assert b"zebra" not in everything(path)
        answer("another question")
    with Reader(path) as reader:
        assert [trace.input for trace in reader.traces()] == ["another question"]


def test_delete_says_what_is_missing(read, store):
    answer("What?")
    read()
    with pytest.raises(ArgumentError, match="one of"):
        delete(store.path)
    with pytest.raises(NotFoundError, match="s-9"):
        delete(store.path, session_id="s-9")
    with pytest.raises(StoreError, match="no store"):
        delete(store.path.with_name("none.db"), trace="@last")


def test_what_is_too_old_is_removed(path):
    with isolated(), deterministic() as clock, save(path, keep_days=None):
        clock.adjust(-400 * 86_400)
        answer("old")
        assert flush()
    with isolated(), save(path, keep_days=None):
        answer("new")
    assert prune(path, keep_days=300) == (1, 3)
    with Reader(path) as reader:
        assert [trace.input for trace in reader.traces()] == ["new"]
    assert prune(path, keep_bytes=1) == (1, 3)
    assert rows_of(path, "runs") == 0


def test_what_is_too_old_is_removed_by_the_next_program_however_short_it_is(path):
    with isolated(), deterministic() as clock, save(path, keep_days=None):
        clock.adjust(-60 * 86_400)
        answer("old")
    with isolated(), save(path):
        answer("new")
    with Reader(path) as reader:
        assert [trace.input for trace in reader.traces()] == ["new"]


@pytest.mark.parametrize("days", [math.inf, 1e9])
def test_traces_may_be_kept_for_longer_than_there_is_time(days, path):
    with isolated(), save(path, keep_days=days) as saving:
        answer("What?")
        assert flush()
        assert (saving.stats.failed, saving.stats.dropped) == (0, {})
    assert prune(path, keep_days=days) == (0, 0)


def test_a_session_says_nothing_of_a_user_who_was_deleted(path):
    with isolated(), save(path):
        for user in ("zebra", "bob"):
            with scope(session_id="s-1", user_id=user), trace(f"question of {user}", kind="llm", model=f"model of {user}"):
                pass
    delete(path, user_id="zebra")
    assert b"zebra" not in everything(path)
    with Reader(path) as reader:
        (session,) = reader.sessions()
        assert (session.user_id, session.traces, session.runs) == ("bob", 1, 1)
        assert session.started_ns == reader.traces().items[0].started_ns
        assert reader.choices().names == ["question of bob"]


@pytest.mark.parametrize("wanted", [{"session_id": "s-zebra"}, {"user_id": "zebra"}])
def test_traces_in_which_a_user_or_a_session_has_a_run_are_deleted(wanted, path):
    with isolated(), save(path), trace("nightly"):
        for user in ("bob", "zebra"):
            with scope(user_id=user, session_id=f"s-{user}"), trace("question", inputs={"of": user}):
                pass
    assert delete(path, **wanted) == (1, 3)
    assert b"zebra" not in everything(path)


def test_a_store_that_is_exported_and_imported_is_the_same(path, tmp_path):
    other = tmp_path / "other.db"
    with isolated(), save(path, project="mine"):
        with scope(session_id="s-1", tags=["web"], metadata={"a": 1}):
            answer("What?")
        with trace("agent", kind="agent"):
            emit(custom_event, name="x", data=[1, 2])
            fail()
    lines = list(export_lines(path))
    assert all(json.loads(line) for line in lines)
    assert import_lines(lines, other) == (5, 5)
    assert list(export_lines(other)) == lines
    with Reader(path) as one, Reader(other) as two:
        assert two.traces().items == one.traces().items
        assert two.sessions().items == one.sessions().items
        assert two.statistics("project", "model", "name", "kind") == one.statistics("project", "model", "name", "kind")
    assert import_lines(lines, other) == (5, 0)
    assert list(export_lines(other)) == lines


def test_what_an_earlier_tracebus_exported_is_imported(path, tmp_path):
    with isolated(), save(path):
        answer("What?")
    lines = [json.loads(line) for line in export_lines(path)]
    for line in lines:
        del line["run"]["outer_span_id"], line["run"]["sampled"], line["run"]["tokens"]["cache_write"]
    assert import_lines([json.dumps(line) for line in lines], tmp_path / "other.db") == (len(lines), len(lines))


def test_a_part_of_a_store_is_exported(path):
    with isolated(), save(path):
        answer("one")
        fail()
    assert [json.loads(line)["run"]["name"] for line in export_lines(path, status="error")] == ["rate"]


@pytest.mark.parametrize("line", [b"{}", b"nonsense", b'{"project": 1}', b"[]", b'{"project": "a", "run": {}}'])
def test_import_names_the_line_that_is_wrong(line, path):
    with pytest.raises(ArgumentError, match="line 2"):
        import_lines([b"\n", line], path)


def test_a_trace_is_said_again(path):
    with isolated(), save(path):
        with scope(session_id="s-1", tags=["web"]), trace("agent"):
            answer("What?")
            emit(custom_event, name="x", data=1)
            fail()
        assert flush()
        with record() as rec:
            assert replay("@last", path, speed=math.inf) == 5
        assert flush()
        with Reader(path) as reader:
            assert len(reader.traces()) == 1
            original = reader.resolve("@last")
    assert rec.tree() == ("agent chain ok\n  answer chain ok\n    search retriever ok\n    generate llm ok\n  rate tool error")
    assert rec.tokens == ["Forty", "-two", "."]
    assert rec.run("generate").usage == Usage(1000, 10)
    assert rec.run("agent").metadata["tracebus.replay_of"] == original
    assert (rec.run("generate").session_id, rec.run("generate").tags) == ("s-1", ("web",))
    assert repr(rec.run("rate").error) == "ValueError('no such currency')"
    assert [event.data for event in rec.of(custom_event)] == [1]


def test_a_replay_is_kept_where_that_is_asked_for(path, tmp_path):
    with isolated():
        with save(path):
            answer("What?")
        with save(tmp_path / "again.db", keep_replays=True):
            replay("@last", path, speed=math.inf)
    with Reader(tmp_path / "again.db") as reader:
        assert reader.traces().items[0].output == "Forty-two."


async def test_a_replay_keeps_its_gaps_in_scaled_time(path):
    with isolated():
        with save(path, keep_days=None), deterministic() as clock, trace("generate", kind="llm"):
            clock.advance(60)
            emit(llm_new_token, token="a")
        with record() as rec:
            await areplay("@last", path, speed=100)
    start, token = rec.events[:2]
    assert (token.time_ns - start.time_ns) / 1e9 > 0.3  # 0.6, had the machine nothing else to do


@pytest.mark.parametrize("speed", [0, -1, math.nan, "fast"])
def test_a_speed_that_is_none_is_named(speed, path):
    with pytest.raises(ArgumentError, match="speed"):
        replay("@last", path, speed=speed)
