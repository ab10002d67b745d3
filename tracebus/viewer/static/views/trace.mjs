// A trace: its tree with the waterfall at the left, the run that is selected at the right.

import { address, back, go, hrefOf, runHref, traceHref, withQuery } from "../address.mjs";
import { pathOf, useAnswer } from "../api.mjs";
import { html, useEffect, useMemo, useRef, useState } from "../html.mjs";
import { costOf, count, number } from "../figures.mjs";
import { useKeys } from "../keys.mjs";
import { onChanges } from "../live.mjs";
import { isMarked, toggleMark } from "../marked.mjs";
import { announce, notify } from "../notices.mjs";
import { DeleteDialog } from "../parts/deleting.mjs";
import { Detail, TABS, whoseOf } from "../parts/detail.mjs";
import { copy, Lasting, Loading, Status, Trouble, When } from "../parts/small.mjs";
import { Split } from "../parts/split.mjs";
import { heightOf, TreePane } from "../parts/treepane.mjs";
import { Tree } from "../tree.mjs";
import { hasFailed } from "../words.mjs";

/** Whether a row is the run that an address names: by its span, the beginning of that, or its UUID. */
const isNamed = ({ run }, asked) => run.span_id.startsWith(asked) || run.run_id === asked;

function useTree(trace) {
  const tree = useMemo(() => new Tree(trace), [trace]);
  useEffect(() => {
    tree.load();
    return () => tree.close();
  }, [tree]);
  return tree;
}

function Head({ trace, onReplay, onNextFailing, onCopy }) {
  const [isAsked, setIsAsked] = useState(false);
  const { tokens, streamed } = trace;
  const facts = [
    html`<${Lasting} of=${trace} />`,
    tokens.total != null ? `${number(tokens.total)} tokens` : streamed > 0 && count(streamed, "token"),
    costOf(trace) === "?" ? "cost unknown" : costOf(trace),
    count(trace.runs, "run"),
    trace.errors > 0 &&
      html`<button type="button" class="faint failed" onClick=${onNextFailing}>${trace.errors} failed</button>`,
    trace.masked > 0 && html`<span class="left-out">${count(trace.masked, "secret")} masked</span>`,
    trace.cut > 0 && html`<span class="left-out">${count(trace.cut, "run")} cut</span>`,
    ...whoseOf(trace),
    html`<${When} ns=${trace.started_ns} />`,
  ].filter(Boolean);
  const search = address.value.query.get("q");
  return html`<header class="view-head">
    <button type="button" class="faint back" aria-label="Back to the list" onClick=${() => back(hrefOf([]))}>←</button>
    <${Status} status=${trace.status} />
    <h1 title=${trace.name}>${trace.name ?? "trace"}</h1>
    <p class="fact-line">${facts.map((fact, index) => html`<span key=${index}>${fact}</span>`)}</p>
    ${
      search &&
      html`<button type="button" class="chip hit" aria-label=${`No longer mark what was searched for: ${search}`}
        onClick=${() => go(withQuery({ q: null }), { replace: true })}>${search} <span aria-hidden="true">×</span></button>`
    }
    <div class="actions">
      ${streamed > 0 && html`<button type="button" class="faint" onClick=${onReplay}>replay</button>`}
      <button type="button" class="faint" aria-pressed=${isMarked(trace.trace_id)}
        onClick=${() => toggleMark(trace)}>compare</button>
      <button type="button" class="faint wide-only" onClick=${onCopy}>copy link</button>
      <button type="button" class="faint" onClick=${() => setIsAsked(true)}>delete</button>
    </div>
    ${isAsked && html`<${DeleteDialog} trace=${trace} onClose=${() => setIsAsked(false)} />`}
  </header>`;
}

/** The span of the run that a replay plays: the one selected, with what is below it, else the first that has streamed. */
function streamedOf(tree, selected) {
  if (selected?.run.streamed > 0) return selected.run.span_id;
  const below = selected ? tree.streamedBelow(selected.run.span_id) : [];
  if (below.length > 1) return selected.run.span_id;
  return (below[0] ?? tree.rows.value.find(({ run }) => run.streamed > 0)?.run)?.span_id ?? null;
}

/** What can be done in a trace, by key or by button, as things are now. */
function commandsOf({ asked, tree, shown, selected, span, tab, setHasFocus, setWanted }) {
  const open = (run, nextTab = tab) =>
    go(runHref(asked, run, { q: address.value.query.get("q"), tab: nextTab === "messages" ? null : nextTab }), {
      replace: true,
    });
  const choose = (index) => {
    const row = shown[Math.max(0, Math.min(shown.length - 1, index))];
    setHasFocus(true);
    if (row) open(row.run.span_id);
  };
  const fold = (isFolded) => {
    const row = shown[selected];
    if (!row) return;
    setHasFocus(true);
    const isFoldedNow = tree.folded.value.has(row.run.span_id);
    if (row.has_children && isFoldedNow !== isFolded) tree.fold(row.run.span_id, isFolded);
    else if (isFolded) choose(shown.findLastIndex((above, index) => index < selected && above.depth < row.depth));
    else if (row.has_children) choose(selected + 1);
  };
  const nextFailing = () => {
    const rows = tree.rows.value;
    const place = tree.nextFailing(rows.findIndex((row) => row.run.span_id === span));
    if (place < 0) {
      notify(tree.after.value === null ? "No run of this trace has failed" : "None of the runs loaded so far has failed");
      return;
    }
    tree.reveal(place);
    setHasFocus(true);
    open(rows[place].run.span_id);
    announce(`Failed: ${rows[place].run.name}`);
  };
  const replay = () => {
    const streamed = streamedOf(tree, shown[selected]);
    if (streamed === null) {
      notify("Nothing was streamed in this trace");
      return;
    }
    open(streamed, "timing");
    setWanted((before) => before + 1);
  };
  const copyLink = () => copy(new URL(span ? runHref(asked, span) : traceHref(asked), window.location.href).href, "link");
  const showTab = (name) => span && open(span, name);
  return { open, choose, fold, nextFailing, replay, copyLink, showTab };
}

/** Return what carries out a command by its name: at once, or as soon as the tree is there to do it in. */
function useCommands(does, tree) {
  const isThere = tree.after.value !== undefined;
  const asked = useRef(null);
  useEffect(() => {
    if (isThere && asked.current) does[asked.current]();
    asked.current = null;
  }, [isThere]);
  return (name) => () => {
    if (isThere) does[name]();
    else asked.current = name;
  };
}

/** Keep a trace as it is in the store; returns whether it was deleted. */
function useNews({ id, span, summary, tree, detail }) {
  const [isGone, setIsGone] = useState(false);
  const hear = useRef(null);
  hear.current = (changes) => {
    if (!changes.is_complete) {
      for (const one of [summary, detail]) one.reload();
      tree.load();
      return;
    }
    if (changes.removed.includes(id)) setIsGone(true);
    if (changes.traces.some((one) => one.trace_id === id)) summary.reload();
    const runs = changes.runs.filter((run) => run.trace_id === id);
    tree.apply(runs);
    if (runs.some((run) => run.span_id === span)) detail.reload();
  };
  useEffect(() => onChanges((changes) => hear.current(changes)), []);
  return isGone;
}

export function Trace({ trace: asked, run: askedRun }) {
  const summary = useAnswer(pathOf("traces", asked));
  const tree = useTree(asked);
  const [hasFocus, setHasFocus] = useState(false);
  const [wanted, setWanted] = useState(0);
  const shown = tree.shown.value;
  const trace = summary.data ?? summary.previous;

  const selected = askedRun ? shown.findIndex((row) => isNamed(row, askedRun)) : shown.length ? 0 : -1;
  const span = shown[selected]?.run.span_id ?? askedRun ?? null;
  const detail = useAnswer(span === null ? null : pathOf("traces", asked, "runs", span));
  const told = detail.data ?? detail.previous;

  const tab = TABS.includes(address.value.query.get("tab")) ? address.value.query.get("tab") : "messages";
  const below = tab === "timing" && told ? tree.streamedBelow(told.run.span_id) : [];
  const does = commandsOf({ asked, tree, shown, selected, span, tab, setHasFocus, setWanted });
  const command = useCommands(does, tree);

  useKeys({
    j: () => does.choose(selected + 1),
    k: () => does.choose(selected - 1),
    ArrowDown: () => does.choose(selected + 1),
    ArrowUp: () => does.choose(selected - 1),
    Home: () => does.choose(0),
    End: () => does.choose(shown.length - 1),
    h: () => does.fold(true),
    l: () => does.fold(false),
    ArrowLeft: () => does.fold(true),
    ArrowRight: () => does.fold(false),
    Enter: () => document.querySelector(".detail-body")?.focus(),
    Escape: () => back(hrefOf([])),
    e: command("nextFailing"),
    r: command("replay"),
    c: does.copyLink,
    x: () => trace && toggleMark(trace),
    ...Object.fromEntries(TABS.map((name, index) => [String(index + 1), () => does.showTab(name)])),
  });
  const isGone = useNews({ id: trace?.trace_id ?? asked, span, summary, tree, detail });
  useEffect(() => {
    document.title = `${trace?.name ?? "trace"} · tracebus`;
  }, [trace?.name]);
  const drawn = trace && told?.run.span_id; // whichever of the two is answered first
  useEffect(() => {
    document.querySelector(".detail-body mark.hit")?.scrollIntoView({ block: "nearest" });
  }, [drawn, tab]);

  const error = isGone ? new Error("This trace was deleted.") : (summary.error ?? tree.error.value);
  if (error) {
    return html`<main class="view">
      <${Trouble} error=${error}><p><a href=${hrefOf([])}>All traces</a></p><//>
    </main>`;
  }
  if (!trace) return html`<main class="view"><${Loading} /></main>`;
  const missing = askedRun && selected < 0 && tree.after.value === null && detail.error;
  return html`<main class=${`view trace ${hasFailed(trace.status) ? "has-failed" : ""}`}>
    <${Head} trace=${trace} onReplay=${command("replay")} onNextFailing=${command("nextFailing")}
      onCopy=${does.copyLink} />
    <${Split}
      name="trace"
      label="Width of the tree"
      firstHeight=${`${heightOf(shown.length)}px`}
      first=${html`<${TreePane}
        tree=${tree}
        total=${trace.runs}
        selected=${selected}
        hasFocus=${hasFocus}
        onSelect=${(run) => does.open(run)}
      />`}
      second=${
        missing || (detail.error && !told)
          ? html`<${Trouble} error=${detail.error} />`
          : told
            ? html`<${Detail} detail=${told} trace=${trace} below=${below} tab=${tab} onTab=${does.showTab}
                wanted=${wanted} />`
            : html`<${Loading} />`
      }
    />
  </main>`;
}
