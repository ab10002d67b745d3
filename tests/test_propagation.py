"""The current run goes out in headers and comes in from them, and nothing that strangers send does harm."""

import contextvars
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient

from tracebus import Run, current_run, extract, inject, scope, trace, traced
from tracebus.errors import ArgumentError
from tracebus.propagation import TraceMiddleware
from tracebus.runs import current_scope, get_current
from tracebus.testing import deterministic, record

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{SPAN}-01"
UNSAMPLED = f"00-{TRACE}-{SPAN}-00"


def run_inside(headers: Any) -> Run:
    with extract(headers), trace("inside") as run:
        return run


def started_anew(run: Run) -> bool:
    return run.remote_parent is None and run.trace_id == run.id


def parent_of(headers: Any) -> tuple[str, str] | None:
    remote = run_inside(headers).remote_parent
    return None if remote is None else (remote.trace_id.hex, f"{remote.span_id:016x}")


# -- out ---------------------------------------------------------------------------------------------------------------


def test_a_run_goes_out_as_a_traceparent() -> None:
    with deterministic(), trace("client"):
        assert inject({"accept": "*/*"}) == {
            "accept": "*/*",
            "traceparent": "00-019b76daa80070008000000000000001-8000000000000001-01",
        }


def test_the_same_mapping_comes_back_and_a_new_one_without_any() -> None:
    headers: dict[str, str] = {}
    with trace("client"):
        assert inject(headers) is headers
        assert inject().keys() == {"traceparent"}


def test_outside_of_everything_nothing_is_written() -> None:
    headers = {"Traceparent": SAMPLED, "tracestate": "a=1", "baggage": " a = 1 "}
    assert inject(dict(headers)) == headers
    assert inject() == {}


def test_a_scope_without_a_run_goes_out_as_baggage_alone() -> None:
    with scope(user_id="u-1"):
        assert inject() == {"baggage": "tracebus.user_id=u-1"}


def test_session_user_and_tags_go_out_as_baggage() -> None:
    with scope(session_id="s 1", user_id="Zoë", tags=["a", "b,c"]), trace("client"):
        assert inject()["baggage"] == ("tracebus.session_id=s%201,tracebus.user_id=Zo%C3%AB,tracebus.tags=a%2Cb%252Cc")


def test_what_is_for_one_run_alone_does_not_travel() -> None:
    with trace("client", tags=["local"], metadata={"a": 1}):
        assert "baggage" not in inject()


def test_old_headers_of_any_spelling_give_way() -> None:
    headers = {"Traceparent": SAMPLED, "TRACEPARENT": SAMPLED, "TraceState": "a=1"}
    with deterministic(), trace("client"):
        assert inject(headers) == {"Traceparent": "00-019b76daa80070008000000000000001-8000000000000001-01"}


def test_baggage_that_the_caller_wrote_stays() -> None:
    with scope(user_id="new"):
        headers = inject({"Baggage": "a=1;p , tracebus.user_id=old,b=2"})
    assert headers == {"Baggage": "tracebus.user_id=new,a=1;p,b=2"}


def test_injecting_twice_changes_nothing() -> None:
    with extract({"traceparent": SAMPLED, "baggage": "a=1"}), scope(tags=["x"]), trace("client"):
        once = dict(inject())
        assert inject(dict(once)) == once


def test_headers_that_do_not_tell_cases_apart_are_written_too() -> None:
    headers = httpx.Headers({"Baggage": "a=1", "Traceparent": SAMPLED})
    with scope(user_id="u"), trace("client") as run:
        inject(headers)
    assert parent_of(headers.multi_items()) == (run.trace_id.hex, f"{run.span_id:016x}")
    assert headers["baggage"] == "tracebus.user_id=u,a=1"


@pytest.mark.parametrize("headers", [[("a", "b")], "traceparent", 1])
def test_injecting_into_what_is_no_mapping_says_so(headers: Any) -> None:
    with pytest.raises(ArgumentError, match="a mapping of headers"):
        inject(headers)


# -- in ----------------------------------------------------------------------------------------------------------------


def test_a_run_is_the_parent_of_one_elsewhere() -> None:
    with trace("client") as client:
        headers = inject()
    server = run_inside(headers)
    assert (server.parent, server.trace_id) == (None, client.trace_id)
    assert server.remote_parent is not None
    assert server.remote_parent.span_id == client.span_id


def test_a_run_nested_in_one_from_elsewhere_hangs_there() -> None:
    with extract({"traceparent": SAMPLED}), trace("server") as server, trace("step") as step:
        assert step.parent is server
    assert (step.remote_parent, step.trace_id) == (None, UUID(TRACE))


def test_a_run_outside_of_the_block_is_no_parent() -> None:
    with trace("caller") as caller:
        server = run_inside({"traceparent": SAMPLED})
        assert current_run() is caller
    assert (server.parent, server.trace_id) == (None, UUID(TRACE))


def test_without_headers_a_trace_begins_whatever_runs_outside() -> None:
    with trace("caller"):
        assert started_anew(run_inside({}))


def test_callbacks_of_the_scope_outside_hear_what_starts_inside() -> None:
    heard: list[str] = []
    with scope(callbacks=[lambda sender, event: heard.append(event.signal_name)]):
        run_inside({"traceparent": SAMPLED})
    assert heard == ["chain_start", "chain_end"]


def test_nothing_stays_current_after_the_block() -> None:
    with extract({"traceparent": SAMPLED}):
        assert get_current() is not None
    assert get_current() is None


def test_a_block_is_left_although_something_inside_was_not() -> None:
    with extract({"traceparent": SAMPLED}):
        trace("never left").__enter__()
        scope(user_id="u").__enter__()
    assert get_current() is None


def test_a_block_that_is_left_in_another_context_changes_nothing_there() -> None:
    block = extract({"traceparent": SAMPLED})
    contextvars.copy_context().run(block.__enter__)
    with trace("mine") as mine:
        block.__exit__(None, None, None)
        assert current_run() is mine


def test_a_block_can_be_entered_again_and_inside_itself() -> None:
    block = extract({"traceparent": SAMPLED})
    with block:
        with block, trace("a") as inner:
            pass
        with trace("b") as outer:
            pass
    assert (inner.trace_id, outer.trace_id, get_current()) == (UUID(TRACE), UUID(TRACE), None)


async def test_a_block_is_for_async_code_too() -> None:
    async with extract({"traceparent": SAMPLED}), trace("server") as run:
        pass
    assert run.trace_id == UUID(TRACE)


def test_a_stream_made_inside_belongs_to_the_trace() -> None:
    @traced(kind="llm")
    def answer() -> Iterator[str]:
        yield from ("a", "b")

    with record() as rec:
        with extract({"traceparent": SAMPLED}):
            stream = answer()
        list(stream)
    assert rec.run("answer").trace_id == UUID(TRACE)


@pytest.mark.parametrize(
    "headers",
    [
        {"Traceparent": SAMPLED},
        {"TRACEPARENT": f" {SAMPLED}\t"},
        [(b"traceparent", SAMPLED.encode())],
        [("Traceparent", SAMPLED.encode())],
        httpx.Headers({"traceparent": SAMPLED}),
        {"traceparent": f"cc-{TRACE}-{SPAN}-01"},
        {"traceparent": f"cc-{TRACE}-{SPAN}-01-what the future brings"},
        {"traceparent": f"00-{TRACE}-{SPAN}-ff"},
        {"traceparent": SAMPLED, "": "", "x": None, 1: "y", "ü": "ü"},
        [("traceparent", SAMPLED), ("a",), (), None, 3, b"ab", ("a", "b", "c")],
    ],
)
def test_a_valid_parent_is_found(headers: Any) -> None:
    assert parent_of(headers) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "garbage",
        SAMPLED + "-",
        SAMPLED + "-more",
        SAMPLED + "0",
        SAMPLED[:-1],
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        SAMPLED.upper(),
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f"00_{TRACE}_{SPAN}_01",
        SAMPLED.replace("0af", "\u0966af"),  # a digit to Python
        f"{SAMPLED},{SAMPLED}",
        f"{SAMPLED}\n",
        f"{SAMPLED}\x00",
        "00-" * 1_000_000,
        "é\udcff",
    ],
    ids=itertools.count(),
)
def test_a_parent_that_makes_no_sense_starts_a_new_trace(value: str) -> None:
    assert started_anew(run_inside({"traceparent": value, "tracestate": "a=1"}))


@pytest.mark.parametrize(
    "headers",
    [
        [(b"traceparent", SAMPLED.encode())] * 2,
        {"traceparent": SAMPLED, "Traceparent": SAMPLED},
        [(b"traceparent", b"\xff\xfe")],
        {"traceparent": None},
        {"tracestate": "a=1"},
        {},
        [],
    ],
    ids=itertools.count(),
)
def test_a_parent_that_is_not_there_once_starts_a_new_trace(headers: Any) -> None:
    assert started_anew(run_inside(headers))


@pytest.mark.parametrize("headers", [None, 1, "traceparent: x", SAMPLED.encode()])
def test_extracting_from_what_holds_no_headers_says_so(headers: Any) -> None:
    with pytest.raises(ArgumentError, match="pairs of names and values"):
        extract(headers)


# -- through -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("traceparent", [SAMPLED, UNSAMPLED])
def test_a_remote_parent_is_passed_on_where_no_run_is(traceparent: str) -> None:
    with extract({"traceparent": traceparent, "tracestate": "a=1, b=2"}):
        assert inject() == {"traceparent": traceparent, "tracestate": "a=1, b=2"}


def test_a_run_of_a_trace_that_is_not_sampled_says_so() -> None:
    with extract({"traceparent": UNSAMPLED}), trace("server"), trace("step") as step:
        assert inject()["traceparent"] == f"00-{TRACE}-{step.span_id:016x}-00"


def test_flags_of_which_nothing_is_known_are_not_passed_on() -> None:
    with extract({"traceparent": f"00-{TRACE}-{SPAN}-ff"}):
        assert inject()["traceparent"] == SAMPLED


def test_the_state_of_the_trace_is_passed_on_by_its_runs() -> None:
    with extract({"traceparent": SAMPLED, "tracestate": "rojo=00f067aa0ba902b7"}), trace("a"), trace("b"):
        assert inject({"tracestate": "stale=1"})["tracestate"] == "rojo=00f067aa0ba902b7"


def test_states_in_several_headers_are_one() -> None:
    with extract([(b"traceparent", SAMPLED.encode()), (b"tracestate", b"a=1"), (b"Tracestate", b"2b@c=2")]):
        assert inject()["tracestate"] == "a=1,2b@c=2"


@pytest.mark.parametrize(
    "tracestate",
    [
        "",
        " , ",
        "a",
        "a=",
        "A=1",
        "a=1,b",
        "a=é",
        "a=1\r\nx: y",
        f"{'a' * 257}=1",
        f"a={'1' * 257}",
        ",".join(f"a{i}=1" for i in range(33)),
        "," * 1_000_000,
    ],
    ids=itertools.count(),
)
def test_a_state_that_makes_no_sense_is_dropped_and_the_parent_kept(tracestate: str) -> None:
    with extract({"traceparent": SAMPLED, "tracestate": tracestate}):
        assert inject() == {"traceparent": SAMPLED}


def test_what_others_put_into_the_baggage_is_passed_on() -> None:
    came = "a=%20b;ttl=3;secure , c = d,a=again"
    with extract({"baggage": came}), scope(user_id="u"), trace("server"), trace("step"):
        assert inject()["baggage"] == "tracebus.user_id=u,a=%20b;ttl=3;secure,c = d,a=again"


def test_what_the_caller_wrote_wins_over_what_came() -> None:
    with extract({"baggage": "a=theirs,b=2"}):
        assert inject({"baggage": "a=ours"}) == {"baggage": "a=ours,b=2"}


def test_the_baggage_of_another_request_is_not_passed_on() -> None:
    with extract({"baggage": "a=1"}), extract({}):
        assert inject() == {}


def test_a_nested_scope_has_the_last_word_about_the_user() -> None:
    with extract({"baggage": "tracebus.user_id=theirs,tracebus.session_id=s"}), scope(user_id="ours"):
        assert inject() == {"baggage": "tracebus.session_id=s,tracebus.user_id=ours"}


@pytest.mark.parametrize(
    ("baggage", "passed_on"),
    [
        ("a=%ZZ,b=%", "a=%ZZ,b=%"),
        ("a", None),
        ("=1", None),
        ("a b=1,c=1", "c=1"),
        ("a=b c,d=1", "d=1"),
        ('a="1",c=1', "c=1"),
        ("ä=1,a=ä,c=1", "c=1"),
        ("a=1\r\nevil: yes,c=1", "c=1"),
        ("a=1;b=\x01,c=1", "c=1"),
        (",,,a=1,,", "a=1"),
        ("a=" + "x" * 8190 + ",b=1", "a=" + "x" * 8190),
        ("a=" + "x" * 8191 + ",b=1", None),
        ("a=1," * 1_000_000, ",".join(["a=1"] * 64)),
        (" " * 9_000 + "a=1", None),
    ],
    ids=itertools.count(),
)
def test_baggage_is_passed_on_as_far_as_it_makes_sense(baggage: str, passed_on: str | None) -> None:
    with extract({"baggage": baggage}):
        assert inject().get("baggage") == passed_on


def test_only_so_many_members_of_what_came_are_added() -> None:
    with extract({"baggage": ",".join(f"k{i}=1" for i in range(64))}), scope(user_id="u"):
        members = inject({"baggage": "mine=1"})["baggage"].split(",")
    assert members == ["tracebus.user_id=u", "mine=1", *(f"k{i}=1" for i in range(62))]


@pytest.mark.parametrize("user_id", ["x" * 8192, "é" * 3000, "x" * 10_000_000])
def test_what_is_too_long_for_a_header_stays_here(user_id: str) -> None:
    with scope(user_id=user_id, session_id="s"):
        assert inject() == {"baggage": "tracebus.session_id=s"}


def test_a_header_that_is_over_the_limit_already_is_not_made_longer() -> None:
    full = "a=" + "x" * 10_000
    with scope(user_id="u"):
        assert inject({"baggage": full}) == {"baggage": full}


@pytest.mark.parametrize(
    ("baggage", "user_id"),
    [
        ("tracebus.user_id=%41%ZZ%4", "A%ZZ%4"),
        ("tracebus.user_id=%FF%C3", "��"),
        ("tracebus.user_id=", ""),
        ("tracebus.user_id=a;p=1,tracebus.user_id=b", "b"),
        ("Tracebus.User_Id=a", None),
    ],
)
def test_a_user_that_is_written_badly_is_read_as_far_as_possible(baggage: str, user_id: str | None) -> None:
    assert run_inside({"baggage": baggage}).user_id == user_id


def test_only_so_many_tags_are_taken_from_outside() -> None:
    assert len(run_inside({"baggage": "tracebus.tags=" + "%2C".join(map(str, range(1000)))}).tags) == 64


# -- any text, any headers ---------------------------------------------------------------------------------------------

texts = st.text(max_size=50)
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=50)


@given(words, words, st.lists(words, unique=True, max_size=5))
@example("a b+c%2C", "%", ["%2C", ",", "%25"])
def test_session_user_and_tags_arrive_as_they_left(session_id: str, user_id: str, tags: list[str]) -> None:
    with scope(session_id=session_id, user_id=user_id, tags=tags), trace("client"):
        headers = inject()
    run = run_inside(headers)
    assert (run.session_id, run.user_id, run.tags) == (session_id, user_id, tuple(tags))


@given(texts, texts)
def test_text_that_no_encoding_can_say_is_no_obstacle(session_id: str, tag: str) -> None:
    with scope(session_id=session_id, tags=[tag]):
        assert inject()["baggage"].isascii()


hex_digits = st.text("0123456789abcdefABCDEF-", max_size=40)
traceparents = st.one_of(
    texts,
    st.just(SAMPLED),
    st.tuples(hex_digits, hex_digits, hex_digits, hex_digits).map("-".join),
    st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", fullmatch=True),
)
listed = st.lists(st.text('abAB01 \t,;=%+@"\\\r\n\x00é*/_-', max_size=20), max_size=70).map(",".join)
names = st.sampled_from(["traceparent", "Traceparent", "tracestate", "TraceState", "baggage", "BAGGAGE", "tracebus"])
values = st.one_of(traceparents, listed, texts, st.just("tracebus.user_id=%C3%BC,tracebus.tags=a%2Cb"))


@given(st.lists(st.tuples(names, st.one_of(values, st.binary(max_size=50))), max_size=6))
def test_whatever_comes_in_what_goes_out_is_valid(headers: list[tuple[str, str | bytes]]) -> None:
    run = run_inside(headers)
    assert run.trace_id.int != 0
    assert run.remote_parent is None or run.remote_parent.span_id != 0
    with extract(headers):
        out = inject()
        assert all(value.isascii() and value.replace("\t", " ").isprintable() for value in out.values())
        assert len(out.get("baggage", "")) <= 8192
        came = current_scope().remote
    assert (came is None) == ("traceparent" not in out)
    with extract(out):
        assert current_scope().remote == came
        assert inject() == out


# -- OpenTelemetry -----------------------------------------------------------------------------------------------------


class OpenTelemetry:
    """What opentelemetry's own propagators read and write."""

    def __init__(self) -> None:
        self.trace = pytest.importorskip("opentelemetry.trace")
        self.baggage = pytest.importorskip("opentelemetry.baggage")
        self.trace_context = pytest.importorskip(
            "opentelemetry.trace.propagation.tracecontext"
        ).TraceContextTextMapPropagator()
        self.w3c_baggage = pytest.importorskip("opentelemetry.baggage.propagation").W3CBaggagePropagator()

    def parent(self, headers: dict[str, str]) -> Any:
        return self.trace.get_current_span(self.trace_context.extract(headers)).get_span_context()

    def members(self, headers: dict[str, str]) -> dict[str, object]:
        return dict(self.baggage.get_all(self.w3c_baggage.extract(headers)))

    def headers(self, baggage: dict[str, str], **fields: Any) -> dict[str, str]:
        headers: dict[str, str] = {}
        span = self.trace.NonRecordingSpan(self.trace.SpanContext(is_remote=False, **fields))
        context = self.trace.set_span_in_context(span)
        for name, value in baggage.items():
            context = self.baggage.set_baggage(name, value, context)
        self.trace_context.inject(headers, context)
        self.w3c_baggage.inject(headers, context)
        return headers


@pytest.fixture(scope="module")
def otel() -> OpenTelemetry:
    return OpenTelemetry()


def test_opentelemetry_reads_what_we_write(otel: OpenTelemetry) -> None:
    incoming = {"traceparent": UNSAMPLED, "tracestate": "a=1,b=2", "baggage": "k=v"}
    with extract(incoming), scope(session_id="s +,é", tags=["a b", "c,d"]), trace("server") as run:
        headers = inject()
    parent = otel.parent(headers)
    assert (parent.trace_id, parent.span_id) == (run.trace_id.int, run.span_id)
    assert (parent.trace_flags.sampled, parent.trace_state.to_header()) == (False, "a=1,b=2")
    assert otel.members(headers) == {"tracebus.session_id": "s +,é", "tracebus.tags": "a b,c%2Cd", "k": "v"}


def test_we_read_what_opentelemetry_writes(otel: OpenTelemetry) -> None:
    headers = otel.headers(
        {"tracebus.user_id": "u +,é", "tracebus.tags": "a b,c%2Cd", "k": "v w"},
        trace_id=int(TRACE, 16),
        span_id=int(SPAN, 16),
        trace_flags=otel.trace.TraceFlags(1),
        trace_state=otel.trace.TraceState([("a", "1")]),
    )
    run = run_inside(headers)
    assert (run.user_id, run.tags) == ("u +,é", ("a b", "c,d"))
    with extract(headers):
        assert otel.parent(inject()) == otel.parent(headers)
        assert otel.members(inject()) == otel.members(headers)


@given(traceparents)
def test_opentelemetry_agrees_about_what_names_a_parent(otel: OpenTelemetry, traceparent: str) -> None:
    theirs = otel.parent({"traceparent": traceparent})
    ours = run_inside({"traceparent": traceparent}).remote_parent
    assert (ours is not None) == theirs.is_valid
    if ours is not None:
        assert (ours.trace_id.int, ours.span_id, ours.sampled) == (
            theirs.trace_id,
            theirs.span_id,
            theirs.trace_flags.sampled,
        )


@given(words.filter(lambda text: text == text.strip()), st.lists(words.filter(lambda tag: tag == tag.strip())))
def test_text_survives_a_service_with_opentelemetry_on_its_way(otel: OpenTelemetry, user_id: str, tags: list[str]) -> None:
    with scope(user_id=user_id, tags=tags), trace("client") as client:
        sent = inject()
    members = otel.members(sent)
    forwarded = otel.headers(
        {name: str(value) for name, value in members.items()},
        trace_id=client.trace_id.int,
        span_id=1,
        trace_flags=otel.trace.TraceFlags(1),
    )
    run = run_inside(forwarded)
    if "tracebus.tags" in members:  # it passes on no value over 4096 bytes
        assert run.tags == tuple(dict.fromkeys(tags))
    assert (run.user_id, run.trace_id) == (user_id, client.trace_id)


states = st.lists(
    st.tuples(
        st.from_regex(r"[a-z0-9][a-z0-9_\-*/@]{0,9}", fullmatch=True),
        st.from_regex(r"[ -+\--<>-~]{0,9}[!-+\--<>-~]", fullmatch=True),
    ),
    max_size=40,
    unique_by=lambda member: member[0],
).map(lambda members: ",".join(f"{key}={value}" for key, value in members))


@given(st.one_of(states, listed, texts))
def test_opentelemetry_reads_the_state_that_we_pass_on_as_the_one_that_came(otel: OpenTelemetry, tracestate: str) -> None:
    headers = {"traceparent": SAMPLED, "tracestate": tracestate}
    with extract(headers), trace("server"):
        passed_on = inject()
    theirs = otel.parent(headers).trace_state
    if "tracestate" in passed_on:
        assert otel.parent(passed_on).trace_state == theirs
    else:  # OpenTelemetry keeps what is well-formed of a state of which we have to drop all
        assert len(theirs) < len([part for part in tracestate.split(",") if part.strip(" \t")]) or len(theirs) == 0


members = st.dictionaries(
    st.from_regex(r"[a-zA-Z0-9!#$&'*+.^_`|~-]{1,9}", fullmatch=True),
    words.filter(lambda text: text == text.strip()),
    max_size=70,
)


@given(members)
def test_baggage_of_opentelemetry_goes_through_us_unchanged(otel: OpenTelemetry, baggage: dict[str, str]) -> None:
    headers = otel.headers(baggage, trace_id=1, span_id=1, trace_flags=otel.trace.TraceFlags(1))
    sent = otel.members(headers)
    with extract(headers), trace("server"):
        received = otel.members(inject())
    assert received.items() <= sent.items()
    if len(sent) <= 64 and len(headers.get("baggage", "")) <= 8192:
        assert received == sent


@given(st.one_of(listed, texts))
def test_opentelemetry_reads_in_baggage_that_we_pass_on_nothing_that_did_not_come(otel: OpenTelemetry, baggage: str) -> None:
    headers = {"traceparent": SAMPLED, "baggage": baggage}
    with extract(headers), trace("server"):
        assert otel.members(inject()).items() <= otel.members(headers).items()


# -- ASGI --------------------------------------------------------------------------------------------------------------


@traced(kind="llm")
async def tokens() -> AsyncIterator[str]:
    yield "a"
    with trace("between"):
        yield "b"


@traced
def clean_up() -> None:
    pass


@traced
async def plain(request: Any) -> JSONResponse:
    return JSONResponse({"user": current_scope().user_id})


async def streaming(request: Any) -> StreamingResponse:
    with trace("endpoint"):
        return StreamingResponse(tokens(), background=BackgroundTask(clean_up))


async def over_websocket(websocket: Any) -> None:
    await websocket.accept()
    with trace("socket"):
        await websocket.send_text("hello")
    await websocket.close()


def make_app() -> Starlette:
    routes = [Route("/plain", plain), Route("/stream", streaming), WebSocketRoute("/ws", over_websocket)]
    app = Starlette(routes=routes)
    app.add_middleware(TraceMiddleware)
    return app


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_a_request_continues_its_callers_trace() -> None:
    with record() as rec:
        async with client_of(make_app()) as client:
            with scope(user_id="u-1"), trace("client"):
                response = await client.get("/plain", headers=inject())
    caller, served = rec.run("client"), rec.run("plain")
    assert response.json() == {"user": "u-1"}
    assert (served.parent, served.trace_id) == (None, caller.trace_id)
    assert served.remote_parent is not None
    assert served.remote_parent.span_id == caller.span_id


async def test_a_streamed_body_and_background_tasks_belong_to_the_request() -> None:
    with record() as rec:
        async with client_of(make_app()) as client:
            response = await client.get("/stream", headers={"traceparent": SAMPLED})
    assert response.text == "ab"
    assert rec.tree() == "endpoint chain ok\n  tokens llm ok\n    between chain ok\nclean_up chain ok"
    assert {run.trace_id for run in rec.runs} == {UUID(TRACE)}


async def test_nothing_of_a_request_is_left_for_the_next() -> None:
    with record() as rec:
        async with client_of(make_app()) as client:
            await client.get("/plain", headers={"traceparent": SAMPLED, "baggage": "tracebus.user_id=u"})
            assert get_current() is None
            response = await client.get("/plain")
    assert response.json() == {"user": None}
    assert [started_anew(run) for run in rec.runs] == [False, True]


async def test_a_request_that_leaves_a_run_open_does_not_leak_it() -> None:
    async def careless(*_: Any) -> None:
        trace("never left").__enter__()

    await TraceMiddleware(careless)({"type": "http", "headers": []}, careless, careless)
    assert get_current() is None


async def test_a_request_that_fails_is_left_too() -> None:
    async def failing(*_: Any) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await TraceMiddleware(failing)({"type": "http"}, failing, failing)
    assert get_current() is None


def test_a_websocket_belongs_to_its_request() -> None:
    client = TestClient(make_app())
    with record() as rec, client.websocket_connect("/ws", headers={"traceparent": SAMPLED}) as websocket:
        assert websocket.receive_text() == "hello"
    assert rec.run("socket").trace_id == UUID(TRACE)


async def test_a_lifespan_is_not_part_of_a_request() -> None:
    seen: list[object] = []

    async def app(*_: Any) -> None:
        seen.append(get_current())

    await TraceMiddleware(app)({"type": "lifespan"}, app, app)
    assert seen == [None]


def test_wrapping_what_is_no_application_says_so() -> None:
    with pytest.raises(ArgumentError, match="wraps an ASGI application"):
        TraceMiddleware(None)  # type: ignore[arg-type]


SERVER = """
import socket, sys
import httpx, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from tracebus import inject, scope, trace
from tracebus.propagation import TraceMiddleware

name, behind = sys.argv[1], sys.argv[2:]

def facts(run):
    remote = run.remote_parent
    return {"name": run.name, "trace": run.trace_id.hex, "span": run.span_id,
            "parent": remote and remote.span_id, "session": run.session_id}

async def serve(request):
    with scope(tags=[name]), trace(name) as run:
        others = []
        for url in behind:
            async with httpx.AsyncClient() as client:
                others = (await client.get(url, headers=inject())).json()
        return JSONResponse([facts(run), *others])

app = TraceMiddleware(Starlette(routes=[Route("/", serve)]))
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen()
print(listening.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listening])
"""


@pytest.fixture
def start_server(clean_env: dict[str, str]) -> Iterator[Callable[..., str]]:
    """Start a uvicorn in a process of its own, with a name and the address behind it; return its address."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> str:
        command = [sys.executable, "-c", SERVER, *args]
        server = subprocess.Popen(command, env=clean_env, stdout=subprocess.PIPE, text=True)
        started.append(server)
        assert server.stdout is not None
        return f"http://127.0.0.1:{int(server.stdout.readline())}/"

    yield start
    for server in started:
        server.kill()
        server.communicate()


def test_two_servers_and_their_client_make_one_trace(start_server: Callable[..., str]) -> None:
    front = start_server("front", start_server("back"))
    with httpx.Client(trust_env=False) as client:
        with scope(session_id="s-1"), trace("client") as run:
            in_front, behind = client.get(front, headers=inject()).json()
        [anew, _] = client.get(front).json()
    assert in_front["trace"] == behind["trace"] == run.trace_id.hex
    assert (in_front["parent"], behind["parent"]) == (run.span_id, in_front["span"])
    assert (in_front["session"], behind["session"]) == ("s-1", "s-1")
    assert (anew["parent"], anew["session"]) == (None, None)
    assert anew["trace"] != run.trace_id.hex
