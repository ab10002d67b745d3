"""What was searched for is marked in a browser: in the list, in the run that is opened from it, and nowhere else."""

import re

import pytest
from looking import Look, rows
from marked_words import FOUND
from playwright.sync_api import Page, Route, expect

from tracebus import trace
from tracebus.outputs.store import Saving

pytestmark = pytest.mark.once


def say(question: str, answer: str = "That.", name: str = "answer") -> None:
    with trace(name, kind="llm", inputs={"prompt": question}) as run:
        run.output = answer


def hits(page: Page, inside: str = "main") -> list[str]:
    """The texts that are marked, as soon as there are any."""
    found = page.locator(f"{inside} mark.hit")
    expect(found.first).to_be_visible()
    return found.all_inner_texts()


def test_the_words_of_a_search_are_marked_in_the_list_in_any_case_and_order(saving: Saving, look: Look):
    say("How do I Subscribe to TOKENS?", "Subscribers hear tokens.")
    assert saving.flush()
    assert hits(look.at("/?q=tokens subscribe")) == ["Subscribe", "TOKENS"]


def test_the_list_shows_where_the_words_are_however_far_behind(saving: Saving, look: Look):
    say("word " * 3000 + "<b>needle</b>", "Found.")
    assert saving.flush()
    page = look.at("/?q=needle")
    assert hits(page) == ["needle"]
    expect(page.locator("mark.hit")).to_be_in_viewport()
    expect(rows(page).first.locator(".cell-text")).to_have_text(re.compile(r"^\s*input\s+…word word .*<b>needle</b>$"))


@pytest.mark.parametrize(("search", "text", "marked"), FOUND)
def test_what_is_marked_is_what_the_index_finds(search: str, text: str, marked: list[str], saving: Saving, look: Look):
    say(text)
    assert saving.flush()
    page = look.at("/")
    page.keyboard.press("/")
    page.keyboard.type(search)
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(1)
    assert hits(page) == marked


def test_the_run_that_is_opened_from_a_search_shows_where_it_was_found(saving: Saving, look: Look):
    say("word " * 3000 + "needle", "Found the **needle** in `a needle b`.")
    assert saving.flush()
    page = look.at("/?q=needle")
    rows(page).first.click()
    expect(page).to_have_url(re.compile(r"/runs/[0-9a-f]{16}\?q=needle$"))
    marks = page.locator(".detail-body mark.hit")
    expect(marks).to_have_count(3)  # the long prompt is not cut before what was found
    expect(marks.first).to_be_in_viewport()


def test_what_was_found_is_in_sight_also_when_the_trace_is_answered_after_the_run(saving: Saving, look: Look):
    say("word " * 3000 + "needle")
    assert saving.flush()
    page = look.at("/?q=needle")
    held: list[Route] = []
    page.route(re.compile(r"/api/traces/[0-9a-f]{32}$"), lambda route: held.append(route))
    with page.expect_request_finished(lambda request: "/runs/" in request.url):
        rows(page).first.click()
    page.evaluate("() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))")
    for route in held:
        route.continue_()
    expect(page.locator(".detail-body mark.hit")).to_be_in_viewport()


def test_marks_stay_from_run_to_run_until_they_are_taken_away(saving: Saving, look: Look):
    with trace("outer", inputs={"question": "the needle"}):
        say("another needle")
    assert saving.flush()
    page = look.at("/?q=needle")
    rows(page).last.click()
    expect(page.locator(".detail-body mark.hit")).to_have_count(1)
    before = page.url
    page.keyboard.press("j" if "outer" in page.locator(".detail-head .name").inner_text() else "k")
    expect(page).not_to_have_url(before)
    expect(page.locator(".detail-body mark.hit")).to_have_count(1)
    page.get_by_role("button", name="No longer mark").click()
    expect(page).not_to_have_url(re.compile("needle"))
    expect(page.locator("mark.hit")).to_have_count(0)


def test_what_is_marked_stays_text(saving: Saving, look: Look):
    say("<b>needle</b> <img src=x onerror=alert(1)>")
    assert saving.flush()
    page = look.at("/?q=needle b onerror")
    assert hits(page) == ["b", "needle", "b", "onerror"]
    expect(page.locator("main b, main img")).to_have_count(0)


def test_without_a_search_nothing_is_marked(saving: Saving, look: Look):
    say("needle")
    assert saving.flush()
    page = look.at("/")
    expect(rows(page)).to_have_count(1)
    expect(page.locator("mark.hit")).to_have_count(0)
