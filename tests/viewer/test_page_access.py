"""Who cannot use a mouse, see colours or read small: axe looks at every view, light and dark; 400 px are enough."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from looking import Look, Opener, looking, rows
from playwright.sync_api import Browser, expect
from scenes import fill
from served import running

from tracebus.outputs.store import Reader
from tracebus.viewer.serving import Server

pytestmark = pytest.mark.once

AXE = Path(__file__).parents[2] / ".venv/node/node_modules/axe-core/axe.min.js"


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A store with some days of talk, and the address of every view of it."""
    store = tmp_path_factory.mktemp("week") / "traces.db"
    fill(store)
    with Reader(store) as reader:
        talk, other = (trace.trace_id for trace in reader.traces(name="answer").items[:2])
        booking = reader.traces(name="book_table", status="error").items[0].trace_id
        research = reader.traces(name="research").items[0].trace_id
        masked = reader.traces(name="translate").items[0].trace_id
        runs = {row.run.name: row.run.span_id for row in reader.tree(talk)} | {
            row.run.name: row.run.span_id for row in reader.tree(booking)
        }
    return store, {
        "list": "/",
        "search": "/?q=tokens",
        "filtered": "/?status=error&session_id=nobody&since_ns=1",
        "trace": f"/traces/{talk}",
        "messages": f"/traces/{talk}/runs/{runs['generate']}",
        "documents": f"/traces/{talk}/runs/{runs['search']}",
        "timing": f"/traces/{talk}/runs/{runs['generate']}?tab=timing",
        "streams": f"/traces/{research}?tab=timing",
        "found": f"/traces/{talk}/runs/{runs['generate']}?q=tokens+subscribe",
        "json": f"/traces/{talk}/runs/{runs['generate']}?tab=json",
        "tools": f"/traces/{booking}/runs/{runs['decide']}",
        "error": f"/traces/{booking}/runs/{runs['find_table']}",
        "masked": f"/traces/{masked}",
        "sessions": "/sessions",
        "session": "/sessions/s-21",
        "compare": f"/compare?left={talk}&right={other}",
        "compare-none": "/compare",
        "statistics": "/statistics",
        "losses": "/losses",
        "gone": f"/traces/{'0' * 32}",
    }


VIEWS = (
    "list search filtered trace messages documents timing streams found json tools error masked sessions session compare "
    "compare-none statistics losses gone"
).split()


@pytest.fixture(scope="module", params=["light", "dark"])
def shown(request: pytest.FixtureRequest, browser: Browser, paths: tuple[Path, dict[str, str]]) -> Iterator[Look]:
    # Past the content security policy, for the sake of axe, which puts a style sheet of its own into the page.
    options = {"color_scheme": request.param, "bypass_csp": True}
    with running(Server(paths[0], port=0)) as server, looking(browser, server.address, **options) as look:
        yield look


def barriers(look: Look) -> list[str]:
    """What axe calls serious or critical, with the elements."""
    if not AXE.exists():
        pytest.skip("there is no axe-core here: make .venv/node/.installed")
    look.page.evaluate(AXE.read_text("utf-8"))
    found = look.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def settle(look: Look, path: str) -> None:
    page = look.at(path)
    expect(page.locator(".loading")).to_have_count(0)
    page.wait_for_load_state("load")


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(view: str, shown: Look, paths: tuple[Path, dict[str, str]]):
    settle(shown, paths[1][view])
    assert barriers(shown) == []


def test_axe_finds_nothing_serious_in_the_dialogs(shown: Look, paths: tuple[Path, dict[str, str]]):
    settle(shown, paths[1]["trace"])
    shown.page.keyboard.press("?")
    expect(shown.page.get_by_role("dialog")).to_be_visible()
    assert barriers(shown) == []
    shown.page.keyboard.press("Escape")
    shown.page.get_by_role("button", name="delete").click()
    assert barriers(shown) == []


def test_axe_finds_nothing_serious_on_an_empty_store(tmp_path: Path, open_viewer: Opener):
    look = open_viewer(tmp_path / "none.db", bypass_csp=True)
    settle(look, "/")
    assert barriers(look) == []


def cut_numbers(look: Look) -> list[str]:
    """The figures that have no room."""
    return look.page.evaluate(
        "[...document.querySelectorAll('.row .number, .sessions .number')]"
        ".filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.textContent)"
    )


@pytest.mark.parametrize("width", [721, 1000, 1280])
def test_no_figure_is_cut_off_in_the_list(width: int, paths: tuple[Path, dict[str, str]], open_viewer: Opener):
    look = open_viewer(paths[0], viewport={"width": width, "height": 700})
    expect(rows(look.at("/")).first).to_be_visible()
    assert cut_numbers(look) == []


@pytest.fixture(scope="module")
def narrow(browser: Browser, paths: tuple[Path, dict[str, str]]) -> Iterator[Look]:
    size = {"width": 400, "height": 800}
    with running(Server(paths[0], port=0)) as server, looking(browser, server.address, viewport=size, has_touch=True) as look:
        yield look


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_fits_into_400_pixels(view: str, narrow: Look, paths: tuple[Path, dict[str, str]]):
    settle(narrow, paths[1][view])
    wide = narrow.page.evaluate(
        """() => [...document.querySelectorAll(
            'main, main h1, main h2, main p, .row > span, .sessions td, .prose, .tabs, .actions')]
          .filter((one) => one.getClientRects().length && getComputedStyle(one).clipPath === 'none'
                  && !one.closest('.table-box:not(:has(.sessions)), .plot-table, .choices, pre'))
          .filter((one) => one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 120))"""
    )
    assert wide == []
    assert narrow.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert cut_numbers(narrow) == []


def test_the_page_is_used_with_the_tab_key_alone(paths: tuple[Path, dict[str, str]], open_viewer: Opener):
    page = open_viewer(paths[0]).at("/")
    expect(rows(page).first).to_be_visible()
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.getAttribute('role') ?? document.activeElement.tagName"))
        if reached[-1] == "row":
            break
    assert reached[-1] == "row"
    page.keyboard.press("Enter")
    expect(page.get_by_role("treegrid")).to_be_visible()


def test_what_happens_is_read_out(paths: tuple[Path, dict[str, str]], open_viewer: Opener):
    page = open_viewer(paths[0]).at("/")
    expect(page.get_by_role("button", name="live")).to_be_visible()
    page.keyboard.press("p")
    expect(page.locator("[aria-live=polite]")).to_have_text("Paused: new runs are held back")
