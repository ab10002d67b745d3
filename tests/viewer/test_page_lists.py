"""The list of traces in a browser: what it shows, search, filters in the address, keys, live rows, nothing at all."""

import re
from pathlib import Path

import pytest
from looking import Look, Opener, latest, rows
from playwright.sync_api import expect
from scenes import past

from tracebus import Usage, figures, scope, trace
from tracebus.outputs.store import Reader, Saving, delete, save
from tracebus.signals import isolated

pytestmark = pytest.mark.once


def say(name: str, question: str = "What?", answer: str = "That.", *, usage: Usage | None = None, model: str | None = None):
    with trace(name, kind="llm", inputs={"prompt": question}) as run:
        run.output, run.usage, run.model = answer, usage, model


def fail(name: str = "rate") -> None:
    with pytest.raises(ValueError, match="no such"), trace(name, kind="tool", inputs={"code": "XX"}):
        raise ValueError("no such currency")


# -- what it shows -----------------------------------------------------------------------------------------------------


def test_a_trace_is_a_row_with_its_figures(saving: Saving, look: Look):
    say("answer", "What is six times seven?", usage=Usage(1000, 86), model="gpt-4o-mini")
    assert saving.flush()
    page = look.at("/")
    row = rows(page).first
    expect(row).to_contain_text("answer")
    expect(row).to_contain_text("What is six times seven?")
    expect(row.locator(".cell-tokens")).to_have_text("1 086")
    expect(row.locator(".cell-cost")).to_have_text("$0.0002")
    expect(row.locator(".status")).to_have_text("■ok")


def test_the_latest_trace_is_on_top_and_a_failure_says_so(saving: Saving, look: Look):
    say("first")
    fail("second")
    assert saving.flush()
    page = look.at("/")
    expect(rows(page).locator(".name")).to_have_text(["second", "first"])
    expect(rows(page).first.locator(".status")).to_have_text("✗failed")


def test_an_empty_store_shows_the_three_lines_that_fill_it(look: Look):
    page = look.at("/")
    lines = page.locator("main pre").inner_text().splitlines()
    assert lines[:2] == ["from tracebus import traced", "from tracebus.outputs.store import save"]
    assert lines[2].startswith('save("')


def test_no_store_at_all_shows_them_too_and_its_first_trace_when_it_comes(tmp_path: Path, open_viewer: Opener):
    page = open_viewer(tmp_path / "none.db").at("/")
    expect(page.locator("main pre")).to_contain_text("from tracebus import traced")
    with isolated(), save(tmp_path / "none.db") as saving:
        say("first")
        assert saving.flush()
        expect(rows(page).first).to_contain_text("first")


def test_a_long_list_goes_on_as_it_is_scrolled(saving: Saving, look: Look):
    for number in range(350):
        say(f"run {number}")
    assert saving.flush()
    page = look.at("/")
    page.locator("[role=grid]").focus()
    for _ in range(5):
        page.keyboard.press("End")
        page.wait_for_timeout(50)
    expect(rows(page).last).to_contain_text("run 0")


# -- search and filters ------------------------------------------------------------------------------------------------


def test_a_search_finds_runs_and_the_address_holds_it(saving: Saving, look: Look):
    say("answer", "How do I subscribe to tokens?")
    say("answer", "Compare NATS and Redis")
    assert saving.flush()
    page = look.at("/")
    page.keyboard.press("/")
    page.keyboard.type("subscribe tokens")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"\?q=subscribe\+tokens$"))
    expect(rows(page)).to_have_count(1)
    expect(rows(page).first).to_contain_text("How do I subscribe to tokens?")


def test_a_search_without_a_hit_says_so(saving: Saving, look: Look):
    say("answer")
    assert saving.flush()
    page = look.at("/?q=nowhere")
    expect(page.get_by_text("No run has these words.")).to_be_visible()


def test_an_address_with_filters_shows_what_they_let_through(saving: Saving, look: Look):
    with scope(tags=["eval"]):
        say("one")
    say("two")
    fail("three")
    assert saving.flush()
    expect(rows(look.at("/?tag=eval")).locator(".name")).to_have_text(["one"])
    expect(rows(look.at("/?status=error")).locator(".name")).to_have_text(["three"])
    expect(rows(look.at("/?kind=llm")).locator(".name")).to_have_text(["two", "one"])


def test_a_filter_that_is_chosen_goes_into_the_address(saving: Saving, look: Look):
    say("one")
    fail("two")
    assert saving.flush()
    page = look.at("/")
    page.get_by_label("Status").select_option("error")
    expect(page).to_have_url(re.compile(r"\?status=error$"))
    expect(rows(page).locator(".name")).to_have_text(["two"])
    page.go_back()
    expect(rows(page)).to_have_count(2)


def test_a_filter_without_a_control_is_a_chip_that_can_be_taken_away(saving: Saving, look: Look):
    with scope(session_id="s-1"):
        say("one")
    say("two")
    assert saving.flush()
    page = look.at("/?session_id=s-1")
    expect(rows(page)).to_have_count(1)
    page.get_by_role("button", name="Take away the filter: session s-1").click()
    expect(rows(page)).to_have_count(2)


def test_a_question_that_makes_no_sense_is_answered_with_what_is_wrong(look: Look):
    page = look.at("/?min_duration_s=soon")
    expect(page.get_by_role("alert")).to_contain_text("min_duration_s")
    page.get_by_role("link", name="Take all filters away").click()
    expect(page.locator("main pre")).to_contain_text("from tracebus import traced")


# -- keys --------------------------------------------------------------------------------------------------------------


def test_the_keyboard_goes_through_the_list_into_a_trace_and_back(saving: Saving, look: Look):
    for name in ("three", "two", "one"):
        say(name)
    assert saving.flush()
    page = look.at("/")
    expect(rows(page)).to_have_count(3)
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator("[role=row][aria-selected=true] .name")).to_have_text("two")
    expect(page.locator("[role=row][aria-selected=true]")).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.locator("main h1")).to_have_text("one")
    page.keyboard.press("Escape")
    expect(page.locator("[role=row][aria-selected=true] .name")).to_have_text("one")


def test_escape_stays_in_the_viewer_after_the_back_button_of_the_browser(saving: Saving, look: Look):
    say("answer")
    page = look.at(latest(saving))
    page.get_by_role("link", name="sessions").click()
    expect(page.locator("main h1")).to_have_text("Sessions")
    page.go_back()
    expect(page.locator("main h1")).to_have_text("answer")
    page.keyboard.press("Escape")
    expect(page.locator("main h1")).to_have_text("Traces")


def test_e_goes_to_the_next_trace_with_a_failure(saving: Saving, look: Look):
    fail("wrong")
    say("right")
    assert saving.flush()
    page = look.at("/")
    expect(rows(page)).to_have_count(2)
    page.keyboard.press("e")
    expect(page.locator("[role=row][aria-selected=true] .name")).to_have_text("wrong")


def test_e_goes_on_from_the_top_behind_the_last_failure(saving: Saving, look: Look):
    fail("third")
    say("right")
    fail("first")
    say("latest")
    assert saving.flush()
    page = look.at("/")
    expect(rows(page)).to_have_count(4)
    for name in ("first", "third", "first"):
        page.keyboard.press("e")
        expect(page.locator("[role=row][aria-selected=true] .name")).to_have_text(name)


def test_e_says_so_where_nothing_has_failed(saving: Saving, look: Look):
    say("one")
    say("two")
    assert saving.flush()
    page = look.at("/")
    expect(rows(page)).to_have_count(2)
    page.keyboard.press("e")
    expect(page.get_by_role("status").filter(has_text="Nothing in this list has failed")).to_be_visible()
    expect(page.locator("[role=row][aria-selected=true]")).to_have_count(0)


def test_two_marked_traces_are_compared(saving: Saving, look: Look):
    say("one")
    say("two")
    assert saving.flush()
    page = look.at("/")
    expect(rows(page)).to_have_count(2)
    for key in "jxjx":
        page.keyboard.press(key)
    expect(page.locator("main h1")).to_have_text("Compare")


def test_the_help_lists_every_key_and_closes(look: Look):
    page = look.at("/")
    page.keyboard.press("?")
    help_ = page.get_by_role("dialog")
    expect(help_).to_contain_text("next failing run")
    page.keyboard.press("Escape")
    expect(help_).to_have_count(0)


def test_keys_typed_into_the_search_are_text(saving: Saving, look: Look):
    say("one")
    assert saving.flush()
    page = look.at("/")
    expect(rows(page)).to_have_count(1)
    page.keyboard.press("/")
    page.keyboard.type("jkexp?t")
    expect(page.get_by_role("searchbox")).to_have_value("jkexp?t")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_the_copied_link_leads_to_the_trace(saving: Saving, open_viewer: Opener):
    say("answer")
    assert saving.flush()
    look = open_viewer(saving.path, permissions=["clipboard-read", "clipboard-write"])
    page = look.at("/")
    expect(rows(page)).to_have_count(1)
    page.keyboard.press("j")
    page.keyboard.press("c")
    expect(page.get_by_role("status").filter(has_text="Copied the link")).to_be_visible()
    with Reader(saving.path) as reader:
        trace_id = reader.resolve("@last")
    assert page.evaluate("navigator.clipboard.readText()") == f"{look.address}/traces/{trace_id}"


# -- live --------------------------------------------------------------------------------------------------------------


def test_a_new_trace_comes_in_on_top(saving: Saving, look: Look):
    say("first")
    assert saving.flush()
    page = look.at("/")
    expect(rows(page)).to_have_count(1)
    say("second")
    expect(rows(page).locator(".name")).to_have_text(["second", "first"])


def test_a_trace_that_is_written_late_comes_in_where_it_began(saving: Saving, look: Look):
    with past(days=3):
        say("first")
    say("last")
    assert saving.flush()
    page = look.at("/")
    expect(page.get_by_role("button", name="live")).to_be_visible()
    for name, days in (("second", 2), ("earlier", 4)):
        with past(days):
            say(name)
    assert saving.flush()
    expect(rows(page).locator(".name")).to_have_text(["last", "second", "first", "earlier"])


@pytest.mark.parametrize("key", [None, "j"], ids=["nothing selected", "the first selected"])
def test_what_is_looked_at_stays_in_place_while_rows_come_in_above_and_below(key: str | None, saving: Saving, look: Look):
    with past(days=2):
        for number in range(80):
            say(f"run {number}")
    assert saving.flush()
    page = look.at("/")
    expect(page.get_by_role("button", name="live")).to_be_visible()
    if key is not None:
        page.keyboard.press(key)
    page.get_by_role("grid").evaluate("grid => (grid.scrollTop = 30 * 20)")
    expect(rows(page).first).to_contain_text("run 59")
    for days in (1, 3):
        with past(days):
            say("late")
    assert saving.flush()
    expect(page.get_by_role("grid")).to_have_attribute("aria-rowcount", "83")
    expect(rows(page).first).to_contain_text("run 59")


def test_a_pause_holds_new_rows_back_until_it_ends(saving: Saving, look: Look):
    say("first")
    assert saving.flush()
    page = look.at("/")
    expect(page.get_by_role("button", name="live")).to_be_visible()
    page.keyboard.press("p")
    say("second")
    expect(page.get_by_role("button", name="paused · 1")).to_be_visible()
    expect(rows(page)).to_have_count(1)
    page.keyboard.press("p")
    expect(rows(page)).to_have_count(2)


def test_a_filtered_list_is_live_too(saving: Saving, look: Look):
    say("first")
    assert saving.flush()
    page = look.at("/?status=error")
    expect(page.get_by_text("No trace is like that.")).to_be_visible()
    fail("wrong")
    expect(rows(page).locator(".name")).to_have_text(["wrong"])


def test_a_trace_that_is_deleted_leaves_the_list(saving: Saving, look: Look):
    say("first")
    say("second")
    assert saving.flush()
    page = look.at("/")
    expect(rows(page)).to_have_count(2)
    expect(page.get_by_role("button", name="live")).to_be_visible()
    with Reader(saving.path) as reader:
        trace_id = reader.resolve("@last")
    delete(saving.path, trace=trace_id)
    expect(rows(page).locator(".name")).to_have_text(["first"])


def test_a_server_that_goes_away_is_said_and_found_again(saving: Saving, look: Look):
    say("first")
    assert saving.flush()
    page = look.at("/")
    expect(page.get_by_role("button", name="live")).to_be_visible()
    page.context.set_offline(True)
    page.evaluate("window.dispatchEvent(new Event('pagehide')); window.dispatchEvent(new Event('pageshow'))")
    expect(page.get_by_text("offline, trying again")).to_be_visible()
    say("second")
    page.context.set_offline(False)
    expect(rows(page)).to_have_count(2)


def test_numbers_are_said_as_python_says_them(look: Look):
    page = look.at("/")
    seconds = [0.0001, 0.0124, 0.4, 0.9996, 1.413, 9.994, 12.34, 59.96, 61, 180, 3599, 3600, 5400, 90_000]
    dollars = [0, 0.00001, 0.00021, 0.0131, 0.5, 1.204, 1234.5]
    script = "async ([s, d]) => { const f = await import('/static/figures.mjs'); " + (
        "return [s.map((one) => f.duration(one * 1e9)), d.map(f.cost), [0, 7, 1012, 1234567].map(f.number)]; }"
    )
    said = page.evaluate(script, [seconds, dollars])
    assert said == [
        [figures.duration(one) for one in seconds],
        [figures.cost(one) for one in dollars],
        [figures.number(one) for one in (0, 7, 1012, 1234567)],
    ]
