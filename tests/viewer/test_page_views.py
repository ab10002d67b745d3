"""Sessions, comparing, statistics and losses in a browser."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from looking import Look, Opener, rows
from playwright.sync_api import expect
from scenes import fill

from tracebus import Usage, scope, trace
from tracebus.outputs.store import Reader, Saving, save
from tracebus.signals import isolated
from tracebus.testing import deterministic

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with some days of talk."""
    path = tmp_path_factory.mktemp("week") / "traces.db"
    fill(path)
    return path


def ask(question: str, answer: str, *, usage: Usage | None = None) -> None:
    with trace("answer", inputs={"question": question}) as run:
        with trace("generate", kind="llm", inputs={"prompt": f"Q: {question}"}) as model:
            model.output, model.usage, model.model = answer, usage, "gpt-4o-mini"
        run.output = answer


def two(saving: Saving) -> tuple[str, str]:
    assert saving.flush()
    with Reader(saving.path) as reader:
        second, first = reader.traces().items
    return first.trace_id, second.trace_id


# -- sessions ----------------------------------------------------------------------------------------------------------


def test_a_session_is_a_conversation_the_oldest_turn_first(saving: Saving, look: Look):
    with scope(session_id="s/1 ü", user_id="ada"):
        ask("What is 6 × 7?", "42.")
        ask("And 6 × 8?", "48.")
    assert saving.flush()
    page = look.at("/sessions")
    page.get_by_role("link", name="s/1 ü").click()
    expect(page.locator("main h1")).to_have_text("s/1 ü")
    expect(page.locator(".bubble .prose")).to_have_text(["What is 6 × 7?", "42.", "And 6 × 8?", "48."])
    page.reload()
    expect(page.locator(".turn")).to_have_count(2)
    page.locator(".turn a").first.click()
    expect(page.locator(".detail-head .name")).to_have_text("answer")


def test_the_sessions_say_what_they_count_also_where_there_is_no_room_for_headings(saving: Saving, open_viewer: Opener):
    with scope(session_id="s-1"):
        ask("What?", "That.", usage=Usage(1000, 86))
        with pytest.raises(ValueError, match="XX"), trace("answer"), trace("rate"):
            raise ValueError("no such currency XX")
    assert saving.flush()
    page = open_viewer(saving.path).at("/sessions")
    row = page.locator("tbody tr")
    expect(page.get_by_role("columnheader")).to_have_text(
        ["session", "user", "turns", "failed runs", "tokens", "cost", "last"]
    )
    page.set_viewport_size({"width": 400, "height": 800})
    for told in ("2 turns", "2 failed runs", "1 086 tokens", "$0.0002"):
        expect(row.get_by_text(told)).to_be_visible()


def test_a_session_goes_on_while_it_is_looked_at(saving: Saving, look: Look):
    with scope(session_id="s-1"):
        ask("One?", "1.")
        assert saving.flush()
        page = look.at("/sessions/s-1")
        expect(page.locator(".turn")).to_have_count(1)
        ask("Two?", "2.")
        expect(page.locator(".turn")).to_have_count(2)


def test_a_long_session_goes_on_while_its_later_turns_are_looked_at(saving: Saving, look: Look):
    with scope(session_id="s-1"):
        for number in range(52):
            ask(f"{number}?", f"{number}.")
        assert saving.flush()
        page = look.at("/sessions/s-1")
        expect(page.locator(".turn")).to_have_count(50)
        page.get_by_role("button", name="later turns").click()
        expect(page.locator(".turn")).to_have_count(52)
        ask("And now?", "Now.")
        expect(page.locator(".turn")).to_have_count(53)
        expect(page.locator(".bubble .prose").last).to_have_text("Now.")


def test_a_turn_that_failed_says_why(saving: Saving, look: Look):
    with scope(session_id="s-1"), pytest.raises(ValueError, match="XX"), trace("answer", inputs={"question": "Rate?"}):
        raise ValueError("no such currency XX")
    assert saving.flush()
    page = look.at("/sessions/s-1")
    expect(page.locator(".turn-error")).to_contain_text("ValueError: no such currency XX")


def test_no_session_at_all_says_how_to_make_one(look: Look):
    expect(look.at("/sessions").get_by_text("No conversation is here yet.")).to_be_visible()


def test_the_keyboard_goes_through_the_sessions(saving: Saving, look: Look):
    for session in ("a", "b"):
        with scope(session_id=session):
            ask("What?", "That.")
    assert saving.flush()
    page = look.at("/sessions")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("main h1")).to_have_text("a")
    page.keyboard.press("Escape")
    expect(page.locator("main h1")).to_have_text("Sessions")


# -- comparing ---------------------------------------------------------------------------------------------------------


def test_two_traces_are_matched_and_their_texts_compared_by_words(saving: Saving, look: Look):
    ask("What is six times seven?", "It is 42.", usage=Usage(10, 3))
    ask("What is six times eight?", "It is 48.", usage=Usage(10, 4))
    left, right = two(saving)
    page = look.at(f"/compare?left={left}&right={right}")
    expect(rows(page)).to_have_count(2)
    expect(rows(page).first.locator(".name")).to_have_text(["answer", "answer"])
    output = page.get_by_label("output", exact=True)
    expect(output.locator("del")).to_have_text("42")
    expect(output.locator("ins")).to_have_text("48")
    expect(page.get_by_label("inputs", exact=True).locator("ins")).to_have_text("eight")
    page.keyboard.press("j")
    expect(page.locator(".pair")).to_contain_text("gpt-4o-mini")


def test_what_is_the_same_in_both_is_folded_and_what_is_not_stands_out(saving: Saving, look: Look):
    for model in ("gpt-4o", "gpt-4o-mini"):
        with trace("answer", kind="llm", inputs={"prompt": "What?"}) as run:
            run.output, run.model = "That.", model
    left, right = two(saving)
    page = look.at(f"/compare?left={left}&right={right}")
    expect(page.locator("details.diff summary")).to_have_text(["inputs · the same in both", "output · the same in both"])
    expect(page.get_by_text("prompt: What?")).to_be_hidden()
    expect(page.locator(".pair .left-out")).to_have_text(["gpt-4o", "gpt-4o-mini"])


def test_a_run_that_only_one_of_them_has_says_so(saving: Saving, look: Look):
    ask("What?", "That.")
    with trace("answer", inputs={"question": "What?"}) as run:
        with trace("search", kind="retriever"):
            pass
        run.output = "That."
    left, right = two(saving)
    page = look.at(f"/compare?left={left}&right={right}")
    page.get_by_role("row").filter(has_text="search").click()
    expect(page.get_by_text("Only the right trace has this run.")).to_be_visible()


def test_comparing_nothing_says_how_to(look: Look):
    expect(look.at("/compare").get_by_text("Two traces are needed to compare.")).to_be_visible()


def test_comparing_with_a_trace_that_is_gone_says_so(saving: Saving, look: Look):
    ask("What?", "That.")
    assert saving.flush()
    expect(look.at(f"/compare?left=@last&right={'0' * 32}").get_by_role("alert")).to_contain_text("No trace")


# -- statistics --------------------------------------------------------------------------------------------------------


def test_statistics_have_a_plot_for_each_question_and_a_row_for_each_model(week: Path, open_viewer: Opener):
    page = open_viewer(week).at("/statistics")
    expect(page.locator(".plot h2")).to_have_text(["Latency", "Tokens by model", "Cost by model", "Failed runs"])
    expect(page.locator(".uplot canvas")).to_have_count(4)
    expect(page.locator(".statistics")).to_contain_text("gpt-4o-mini")
    expect(page.locator(".statistics")).to_contain_text("claude-sonnet-4-5")


def test_above_the_plots_are_the_figures_of_all_runs_in_the_time(saving: Saving, look: Look):
    for question in ("One?", "Two?", "Three?"):
        ask(question, "That.", usage=Usage(1000, 50))
    with pytest.raises(ValueError, match="XX"), trace("rate"):
        raise ValueError("no such currency XX")
    assert saving.flush()
    facts = look.at("/statistics").locator(".facts")
    for name, value in (("runs", "7"), ("failed", "1 · 14 %"), ("tokens in", "3 000"), ("tokens out", "150")):
        expect(facts.locator("div", has=look.page.get_by_text(name, exact=True)).locator("dd")).to_have_text(value)


def test_a_click_on_a_point_leads_to_its_traces(week: Path, open_viewer: Opener):
    page = open_viewer(week).at("/statistics")
    plot = page.get_by_label("Failed runs").locator(".u-over")
    plot.hover(position={"x": 200, "y": 20})
    plot.click(position={"x": 200, "y": 20})
    expect(page).to_have_url(re.compile(r"/\?status=error&since_ns=\d+&until_ns=\d+$"))
    expect(page.locator(".chip")).to_have_count(2)


def test_each_plot_is_a_table_too_with_links_to_the_traces(week: Path, open_viewer: Opener):
    page = open_viewer(week).at("/statistics")
    figure = page.get_by_label("Failed runs")
    figure.locator("summary").click()
    figure.get_by_role("link").first.click()
    expect(rows(page).first.locator(".status")).to_have_text("✗failed")


def test_a_model_is_looked_at_alone(week: Path, open_viewer: Opener):
    page = open_viewer(week).at("/statistics?range=month")
    page.get_by_role("button", name="claude-sonnet-4-5").click()
    expect(page).to_have_url(re.compile(r"range=month&only=claude-sonnet-4-5$"))
    expect(page.get_by_label("Tokens by model").locator(".legend li")).to_have_text(["claude-sonnet-4-5"])
    page.get_by_role("button", name="Show all").click()
    expect(page.get_by_label("Tokens by model").locator(".legend li")).not_to_have_count(1)


def test_statistics_by_name_and_of_another_time(week: Path, open_viewer: Opener):
    page = open_viewer(week).at("/statistics")
    page.get_by_role("button", name="by name").click()
    page.get_by_role("button", name="all time").click()
    expect(page.locator(".statistics")).to_contain_text("find_table")
    expect(page).to_have_url(re.compile(r"by=name&range=all$"))


def test_the_keyboard_goes_through_the_models_and_back_from_the_statistics(week: Path, open_viewer: Opener):
    page = open_viewer(week).at("/statistics")
    expect(page.locator(".statistics")).to_contain_text("gpt-4o-mini")
    page.keyboard.press("j")
    first = page.locator(".statistics button").first
    expect(first).to_be_focused()
    page.keyboard.press("Enter")
    expect(first).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    expect(page.locator("main h1")).to_have_text("Traces")


def test_statistics_of_nothing_say_so(look: Look):
    expect(look.at("/statistics").get_by_text("No runs have ended in this time.")).to_be_visible()


AXES = """
const { clearRect, fillText } = CanvasRenderingContext2D.prototype;
Object.assign(CanvasRenderingContext2D.prototype, {
  clearRect(...place) {
    this.canvas.axes = { right: [], center: [] };
    return clearRect.apply(this, place);
  },
  fillText(text, ...place) {
    this.canvas.axes[this.textAlign].push(text);
    return fillText.call(this, text, ...place);
  },
});
"""
"""Notes what is written into a plot: at its lines, which is aligned to the right, and below."""


def axes_of(look: Look, plot: str, path: str = "/statistics") -> tuple[list[str], list[str]]:
    """What a plot says at its lines, from the lowest up, and below, from the left."""
    look.page.add_init_script(AXES)
    canvas = look.at(path).get_by_label(plot).locator("canvas")
    axes = canvas.evaluate("canvas => canvas.axes")
    return axes["right"], axes["center"]


def test_an_axis_of_counts_has_whole_numbers_only(saving: Saving, look: Look):
    with pytest.raises(ValueError, match="XX"), trace("rate"):
        raise ValueError("no such currency XX")
    assert saving.flush()
    assert axes_of(look, "Failed runs")[0] == ["0", "1"]


def test_equal_steps_of_cost_are_said_as_equal(saving: Saving, look: Look):
    ask("What?", "That.", usage=Usage(4000, 600))
    assert saving.flush()
    assert axes_of(look, "Cost by model")[0] == ["0", "$0.00025", "$0.00050", "$0.00075", "$0.00100"]


def test_a_day_is_one_of_utc_wherever_it_is_looked_at(path: Path, open_viewer: Opener):
    with isolated(), deterministic(datetime(2026, 11, 24, 17, tzinfo=UTC)), save(path, keep_days=None) as saving:
        ask("What?", "That.", usage=Usage(10, 3))
        assert saving.flush()
    look = open_viewer(path, timezone_id="America/New_York")
    _, days = axes_of(look, "Tokens by model", "/statistics?range=all")
    figure = look.page.get_by_label("Tokens by model")
    figure.locator("summary").click()
    expect(figure.locator("th").first).to_have_text("day, UTC")
    expect(figure.locator("tbody th")).to_have_text("2026-11-24")
    assert days == ["Nov 23", "Nov 24", "Nov 25"]


# -- losses ------------------------------------------------------------------------------------------------------------

DIES = """
import os, sys
from tracebus import trace
from tracebus.outputs.store import save
saving = save(sys.argv[1])
with trace("answer"):
    saving.flush()
    os._exit(1)
"""


def test_what_is_missing_is_told_by_process(tmp_path: Path, open_viewer: Opener):
    path = tmp_path / "traces.db"
    assert subprocess.run([sys.executable, "-c", DIES, path], env=os.environ, check=False).returncode == 1
    page = open_viewer(path).at("/losses")
    expect(page.locator(".losses")).to_contain_text("1 run lost: the process died before they ended.")
    expect(page.get_by_role("navigation").get_by_role("link", name="losses")).to_contain_text("!")
    page.get_by_role("link", name="Show them").click()
    expect(rows(page).first.locator(".status")).to_contain_text("lost")
    rows(page).first.click()
    expect(page.get_by_text("No output: the process died before the run ended.")).to_be_visible()


def test_a_store_that_misses_nothing_says_so(saving: Saving, look: Look):
    ask("What?", "That.")
    assert saving.flush()
    expect(look.at("/losses").get_by_text("Nothing is missing")).to_be_visible()


# -- a page that there is not, a store that cannot be read -------------------------------------------------------------


def test_a_page_that_there_is_not_says_so(look: Look):
    expect(look.at("/nothing/here").get_by_role("alert")).to_contain_text("/nothing/here")


def test_a_file_that_is_no_store_is_said_to_be_none(tmp_path: Path, open_viewer: Opener):
    path = tmp_path / "notes.db"
    path.write_text("these are my notes, not a store" * 50)
    expect(open_viewer(path).at("/").get_by_role("alert")).to_contain_text("notes.db")
    expect(open_viewer(path).at("/statistics").get_by_role("alert").first).to_contain_text("notes.db")


def test_light_and_dark_follow_the_system_until_somebody_chooses(saving: Saving, open_viewer: Opener):
    ask("What?", "That.")
    assert saving.flush()
    page = open_viewer(saving.path, color_scheme="dark").at("/")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.keyboard.press("t")
    expect(page.get_by_role("button", name="Change to dark colours")).to_be_visible()
    light = page.evaluate(paper)
    assert light != dark
    page.reload()
    assert page.evaluate(paper) == light
