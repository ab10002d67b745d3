// A trace: its tree with the waterfall at the left, the run that is selected at the right.

import { address, back, go, hrefOf, runHref, sessionHref, traceHref } from "../address.mjs";
import { pathOf, remove, useAnswer } from "../api.mjs";
import { now } from "../clock.mjs";
import { html, useEffect, useMemo, useRef, useState } from "../html.mjs";
import { costOf, count, number } from "../figures.mjs";
import { useKeys } from "../keys.mjs";
import { onChanges } from "../live.mjs";
import { isMarked, toggleMark } from "../marked.mjs";
import { announce, notify } from "../notices.mjs";
import { Detail, TABS } from "../parts/detail.mjs";
import { Rows } from "../parts/rows.mjs";
import { copy, Lasting, Loading, Status, Trouble, When } from "../parts/small.mjs";
import { Split } from "../parts/split.mjs";
import { TreeRow } from "../parts/waterfall.mjs";
import { Tree } from "../tree.mjs";
import { hasFailed } from "../words.mjs";

const ROW = 26;

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

function DeleteDialog({ trace, onClose }) {
  const dialog = useRef(null);
  const [error, setError] = useState(null);
  useEffect(() => dialog.current.showModal(), []);
  const confirm = async () => {
    try {
      await remove(pathOf("traces", trace.trace_id));
      notify("Deleted the trace");
      go(hrefOf([]), { replace: true });
    } catch (failed) {
      setError(failed);
    }
  };
  return html`<dialog ref=${dialog} aria-labelledby="delete-title" onClose=${onClose}>
    <h2 id="delete-title">Delete this trace?</h2>
    <p>
      ${trace.name ?? "It"} and its ${count(trace.runs, "run")} are taken out of the store.
      ${" Nothing of them stays in the file."}
    </p>
    ${error && html`<${Trouble} error=${error} />`}
    <p class="dialog-line">
      <button type="button" class="button" autofocus onClick=${() => dialog.current.close()}>Keep it</button>
      <button type="button" class="button danger" onClick=${confirm}>Delete</button>
    </p>
  </dialog>`;
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
    trace.session_id != null && html`<a href=${sessionHref(trace.session_id)}>session ${trace.session_id}</a>`,
    html`<${When} ns=${trace.started_ns} />`,
  ].filter(Boolean);
  return html`<header class="view-head">
    <button type="button" class="faint back" aria-label="Back to the list" onClick=${() => back(hrefOf([]))}>←</button>
    <${Status} status=${trace.status} />
    <h1>${trace.name ?? "trace"}</h1>
    <p class="fact-line">${facts.map((fact, index) => html`<span key=${index}>${fact}</span>`)}</p>
    <div class="actions">
      ${streamed > 0 && html`<button type="button" class="faint" onClick=${onReplay}>replay</button>`}
      <button type="button" class="faint" aria-pressed=${isMarked(trace.trace_id)}
        onClick=${() => toggleMark(trace)}>compare</button>
      <button type="button" class="faint" onClick=${onCopy}>copy link</button>
      <button type="button" class="faint" onClick=${() => setIsAsked(true)}>delete</button>
    </div>
    ${isAsked && html`<${DeleteDialog} trace=${trace} onClose=${() => setIsAsked(false)} />`}
  </header>`;
}

function TreePane({ tree, total, selected, hasFocus, onSelect }) {
  const shown = tree.shown.value;
  const folded = tree.folded.value;
  const { begin, end, isOpen } = tree.span.value;
  const span = { begin };
  const lasts = Math.max(1, (isOpen ? Math.max(end, now.value * 1e6) : end) - begin);
  // Until the tree is loaded its length is known, so that the place in it does not move while it is.
  const isWhole = tree.after.value === null;
  const length = isWhole || tree.folded.value.size ? shown.length : Math.max(shown.length, total);
  const row = (index) => {
    const one = shown[index];
    if (!one)
      return html`<div key=${`to come ${index}`} class="row tree-row to-come" role="row">
        <span role="gridcell">…</span>
      </div>`;
    return html`<${TreeRow}
      key=${one.run.span_id}
      row=${one}
      place=${index}
      total=${lasts}
      span=${span}
      isSelected=${index === selected}
      isFolded=${folded.has(one.run.span_id)}
      onSelect=${onSelect}
      onFold=${(which, isFolded) => tree.fold(which, isFolded)}
    />`;
  };
  return html`<div class="tree">
    <${Rows} role="treegrid" label="Runs of the trace" count=${length} rowHeight=${ROW} row=${row} selected=${selected}
      hasFocus=${hasFocus} />
    ${
      !isWhole &&
      tree.after.value !== undefined &&
      html`<p class="tree-foot quiet">
      ${number(shown.length)} of ${number(total)} runs
      ${!tree.isLoading.value && html`<button type="button" class="faint" onClick=${() => tree.more()}>load more</button>`}
    </p>`
    }
  </div>`;
}

export function Trace({ trace: asked, run: askedRun }) {
  const summary = useAnswer(pathOf("traces", asked));
  const tree = useTree(asked);
  const [hasFocus, setHasFocus] = useState(false);
  const [wanted, setWanted] = useState(0);
  const [isGone, setIsGone] = useState(false);
  const shown = tree.shown.value;
  const trace = summary.data ?? summary.previous;

  const selected = askedRun ? shown.findIndex((row) => isNamed(row, askedRun)) : shown.length ? 0 : -1;
  const current = selected < 0 ? null : shown[selected].run;
  const span = current?.span_id ?? askedRun ?? null;
  const detail = useAnswer(span === null ? null : pathOf("traces", asked, "runs", span));
  const told = detail.data ?? detail.previous;

  const tab = TABS.includes(address.value.query.get("tab")) ? address.value.query.get("tab") : "messages";
  const open = (run, nextTab = tab) =>
    go(runHref(asked, run, { tab: nextTab === "messages" ? null : nextTab }), { replace: true });
  const choose = (index) => {
    const row = shown[Math.max(0, Math.min(shown.length - 1, index))];
    if (row) open(row.run.span_id);
  };
  const move = (by) => {
    setHasFocus(true);
    choose(selected + by);
  };
  const showTab = (name) => span && open(span, name);

  const nextFailing = () => {
    const rows = tree.rows.value;
    const here = rows.findIndex((row) => row.run.span_id === span);
    const place = tree.nextFailing(here);
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
    const rows = tree.rows.value;
    const streamed = current?.streamed > 0 ? current : rows.find((row) => row.run.streamed > 0)?.run;
    if (!streamed) {
      notify("Nothing was streamed in this trace");
      return;
    }
    open(streamed.span_id, "timing");
    setWanted((before) => before + 1);
  };

  const fold = (isFolded) => {
    const row = shown[selected];
    if (!row) return;
    setHasFocus(true);
    const isFoldedNow = tree.folded.value.has(row.run.span_id);
    if (row.has_children && isFoldedNow !== isFolded) tree.fold(row.run.span_id, isFolded);
    else if (isFolded) choose(shown.findLastIndex((above, index) => index < selected && above.depth < row.depth));
    else if (row.has_children) move(1);
  };
  const copyLink = () => copy(new URL(span ? runHref(asked, span) : traceHref(asked), window.location.href).href, "link");

  useKeys({
    j: () => move(1),
    k: () => move(-1),
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    Home: () => choose(0),
    End: () => choose(shown.length - 1),
    h: () => fold(true),
    l: () => fold(false),
    ArrowLeft: () => fold(true),
    ArrowRight: () => fold(false),
    Enter: () => document.querySelector(".detail-body")?.focus(),
    Escape: () => back(hrefOf([])),
    e: nextFailing,
    r: replay,
    c: copyLink,
    x: () => trace && toggleMark(trace),
    ...Object.fromEntries(TABS.map((name, index) => [String(index + 1), () => showTab(name)])),
  });

  const heard = useRef(null);
  heard.current = (changes) => {
    if (!changes.is_complete) {
      summary.reload();
      tree.load();
      detail.reload();
      return;
    }
    const id = trace?.trace_id ?? asked;
    if (changes.removed.includes(id)) setIsGone(true);
    if (changes.traces.some((one) => one.trace_id === id)) summary.reload();
    const runs = changes.runs.filter((run) => run.trace_id === id);
    tree.apply(runs);
    if (runs.some((run) => run.span_id === span)) detail.reload();
  };
  useEffect(() => onChanges((changes) => heard.current(changes)), []);
  useEffect(() => {
    document.title = `${trace?.name ?? "trace"} · tracebus`;
  }, [trace?.name]);

  const error = isGone ? new Error("This trace was deleted.") : (summary.error ?? tree.error.value);
  if (error) {
    return html`<main class="view">
      <${Trouble} error=${error}><p><a href=${hrefOf([])}>All traces</a></p><//>
    </main>`;
  }
  if (!trace) return html`<main class="view"><${Loading} /></main>`;
  const missing = askedRun && selected < 0 && tree.after.value === null && detail.error;
  return html`<main class=${`view trace ${hasFailed(trace.status) ? "has-failed" : ""}`}>
    <${Head} trace=${trace} onReplay=${replay} onNextFailing=${nextFailing} onCopy=${copyLink} />
    <${Split}
      name="trace"
      label="Width of the tree"
      firstHeight=${`${Math.max(tree.shown.value.length, 3) * ROW + 12}px`}
      first=${html`<${TreePane} tree=${tree} total=${trace.runs} selected=${selected} hasFocus=${hasFocus}
        onSelect=${(run) => open(run)} />`}
      second=${
        missing || (detail.error && !told)
          ? html`<${Trouble} error=${detail.error} />`
          : told
            ? html`<${Detail} detail=${told} tab=${tab} onTab=${showTab} wanted=${wanted} />`
            : html`<${Loading} />`
      }
    />
  </main>`;
}
