"""Streams in a browser: their pace and their pauses, and the replay of one of them or of all in a trace."""

import re
from datetime import datetime, timedelta

import pytest
from looking import Look, latest, rows
from playwright.sync_api import Page, Route, expect

from tracebus import emit, llm_new_token, trace
from tracebus.outputs.store import Saving
from tracebus.testing import deterministic

pytestmark = pytest.mark.once


def stream(*steps: tuple[float, str]) -> None:
    with deterministic() as clock, trace("generate", kind="llm", inputs={"prompt": "How many?"}):
        for pause, token in steps:
            clock.advance(pause)
            emit(llm_new_token, token=token)


def test_the_pace_of_a_stream_is_drawn_with_its_pauses(saving: Saving, look: Look):
    stream((0.25, "For"), (0.01, "ty"), (0.01, "-"), (0.9, "two"), (0.01, "."))
    page = look.at(f"{latest(saving)}?tab=timing")
    label = page.get_by_label("Stream", exact=True).locator("h3")
    expect(label).to_have_text(re.compile(r"5 tokens in 1\.18 s · first after 250 ms · .* · longest pause 900 ms"))
    expect(page.locator(".pace-pause")).to_have_count(1)
    expect(page.locator(".pace-names")).to_have_text("900 ms")


def test_the_scrubber_shows_what_had_come_by_then(saving: Saving, look: Look):
    stream((0.25, "For"), (0.25, "ty"), (0.5, "-two"))
    page = look.at(f"{latest(saving)}?tab=timing")
    page.get_by_label("Place in the stream").evaluate(
        "one => { one.value = 600; one.dispatchEvent(new Event('input', {bubbles: true})) }"
    )
    expect(page.locator(".come")).to_have_text("Forty")
    expect(page.locator("output")).to_have_text("600 ms · 2 of 3 tokens")


def hold_the_clock(page: Page) -> None:
    """Let time go on in the page only when it is told to; what is to be played must be in sight."""
    page.clock.pause_at(datetime.now() + timedelta(hours=1))


def test_r_replays_the_stream_at_its_pace(saving: Saving, look: Look):
    stream((0.5, "For"), (0.5, "ty"), (0.5, "-two"))
    look.page.clock.install()
    page = look.at(f"{latest(saving)}?tab=timing")
    expect(page.locator(".come")).to_have_text("Forty-two")
    hold_the_clock(page)
    page.keyboard.press("r")
    for ms, text in ((100, ""), (300, ""), (300, "For"), (500, "Forty")):
        page.clock.run_for(ms)
        expect(page.locator(".come")).to_have_text(text)
        expect(page.locator(".stream-line .button")).to_have_text("pause")
    page.clock.run_for(500)
    expect(page.locator(".come")).to_have_text("Forty-two")
    expect(page.locator(".stream-line .button")).to_have_text("replay")


def test_a_replay_that_is_asked_for_elsewhere_shows_the_stream_and_plays_it(saving: Saving, look: Look):
    stream((5.0, "Forty"), (5.0, "-two"))
    page = look.at(latest(saving))
    expect(page.get_by_role("tab", name="Messages")).to_have_attribute("aria-selected", "true")
    page.get_by_role("button", name="replay").click()
    expect(page.get_by_role("tab", name="Timing")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".stream-line .button")).to_have_text("pause")


def two_streams() -> None:
    """The second begins 0.5 s after the first has ended."""
    with deterministic() as clock, trace("answer"):
        for name, tokens in (("plan", ("Look", " up")), ("write", ("Forty", "-two"))):
            with trace(name, kind="llm"):
                for token in tokens:
                    clock.advance(0.5)
                    emit(llm_new_token, token=token)
            clock.advance(0.5)


def test_all_streams_of_a_trace_are_replayed_on_one_clock(saving: Saving, look: Look):
    two_streams()
    look.page.clock.install()
    page = look.at(f"{latest(saving)}?tab=timing")
    come = page.locator(".come")
    expect(page.get_by_label("Streams").locator("h3")).to_have_text("2 streams · 4 tokens in 3.00 s")
    expect(come).to_have_text(["Look up", "Forty-two"])
    hold_the_clock(page)
    page.keyboard.press("r")
    for ms, texts in ((200, ["", ""]), (500, ["Look", ""]), (1000, ["Look up", ""]), (500, ["Look up", "Forty"])):
        page.clock.run_for(ms)
        expect(come).to_have_text(texts)
    page.clock.run_for(1000)
    expect(come).to_have_text(["Look up", "Forty-two"])
    expect(page.locator(".stream-line .button")).to_have_text("replay")


def test_a_replay_of_the_root_plays_all_streams_and_a_lane_leads_to_its_run(saving: Saving, look: Look):
    two_streams()
    page = look.at(latest(saving))
    expect(rows(page)).to_have_count(3)
    page.keyboard.press("r")
    expect(page.locator(".lane-name")).to_have_text(["plan", "write"])
    expect(page.locator(".stream-line .button")).to_have_text("pause")
    page.locator(".lane-name").last.click()
    expect(page.locator(".detail-head .name")).to_have_text("write")
    expect(page.get_by_label("Stream", exact=True).locator("h3")).to_contain_text("2 tokens in 1.00 s")


def test_a_replay_that_is_asked_for_before_the_tree_is_there_begins_when_it_is(saving: Saving, look: Look):
    two_streams()
    held: list[Route] = []
    look.page.route("**/tree?*", lambda route: held.append(route))
    with look.page.expect_request("**/tree?*"):
        page = look.at(latest(saving))
    expect(page.locator(".to-come")).to_have_count(3)
    page.keyboard.press("r")
    held[0].continue_()
    expect(page.locator(".lane-name")).to_have_text(["plan", "write"])
    expect(page.locator(".stream-line .button")).to_have_text("pause")


def test_streams_that_go_on_grow_while_they_are_looked_at(saving: Saving, look: Look):
    with trace("answer"), trace("write", kind="llm"):
        emit(llm_new_token, token="Forty")
        page = look.at(f"{latest(saving)}?tab=timing")
        expect(page.locator(".lane")).to_have_count(1)
        expect(page.locator(".come")).to_have_text("Forty")
        emit(llm_new_token, token="-two")
        expect(page.locator(".come")).to_have_text("Forty-two")
    expect(page.locator(".view-head .status")).to_have_text("■ok")
    expect(page.locator(".come")).to_have_text("Forty-two")
