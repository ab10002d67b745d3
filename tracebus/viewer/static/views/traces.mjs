// The list of traces, or of the runs that a search finds; the address holds what is searched and filtered.

import { address, go, hrefOf, runHref, traceHref, withQuery } from "../address.mjs";
import { html, useEffect, useRef, useState } from "../html.mjs";
import { costOf, cost, duration, number } from "../figures.mjs";
import { chipsOf, filtersOf } from "../filters.mjs";
import { useKeys } from "../keys.mjs";
import { listingOf } from "../listing.mjs";
import { info, isPaused, missed, onChanges, togglePause, trouble } from "../live.mjs";
import { isMarked, marked, toggleMark } from "../marked.mjs";
import { announce, notify } from "../notices.mjs";
import { Empty } from "../parts/empty.mjs";
import { FilterBar } from "../parts/filterbar.mjs";
import { Rows } from "../parts/rows.mjs";
import { copy, Lasting, Loading, Status, Trouble, When } from "../parts/small.mjs";
import { Plain } from "../parts/prose.mjs";
import { nextPlace } from "../selecting.mjs";
import { isNarrow } from "../width.mjs";
import { hasFailed, isModel, kindWord, wordOf } from "../words.mjs";

const [ROW, NARROW_ROW, HEAD] = [30, 50, 28];

/** The tokens that were used; while that is not known those that were streamed, and `…` while there may be more. */
function tokensOf({ tokens, streamed, status }) {
  if (tokens.total != null) return number(tokens.total);
  return streamed > 0 ? `${number(streamed)}${status === "open" ? "…" : ""}` : "";
}

function TraceCells({ trace }) {
  return html`<span class="cell-status" role="gridcell"><${Status} status=${trace.status} /></span>
    <span class="cell-name" role="gridcell">
      <a class="name" tabindex="-1" href=${traceHref(trace.trace_id)}>${trace.name ?? "(no root)"}</a>
      ${
        trace.errors > 0 &&
        !hasFailed(trace.status) &&
        html`<span class="failed small" title="Runs inside that failed">✗ ${number(trace.errors)}</span>`
      }
      ${isMarked(trace.trace_id) && html`<span class="left-out">marked</span>`}
    </span>
    <span class="cell-text" role="gridcell">
      <${Plain} text=${trace.input ?? ""} />
      ${trace.tags.map((tag) => html`<span class="tag">#${tag}</span>`)}
    </span>
    <span class="cell-duration number" role="gridcell"><${Lasting} of=${trace} /></span>
    <span class="cell-first number" role="gridcell">${duration(trace.first_token_ns)}</span>
    <span class="cell-tokens number" role="gridcell">${tokensOf(trace)}</span>
    <span class="cell-cost number" role="gridcell">${costOf(trace)}</span>
    <span class="cell-when number" role="gridcell"><${When} ns=${trace.started_ns} /></span>`;
}

/** The address of a run with what was searched for, which is marked there, too. */
const hitHref = (run) => runHref(run.trace_id, run.span_id, { q: address.value.query.get("q") });

function RunCells({ run }) {
  return html`<span class="cell-status" role="gridcell"><${Status} status=${run.status} /></span>
    <span class="cell-name" role="gridcell">
      <a class=${`name ${isModel(run.kind) ? "model" : ""}`} tabindex="-1" href=${hitHref(run)}>${run.name}</a>
      <span class="quiet small"> ${kindWord(run.kind)}</span>
    </span>
    <span class="cell-text" role="gridcell">
      <span class="quiet small">${run.found_in} </span>
      <span class=${run.found_in === "error" ? "failed" : ""}><${Plain} text=${run.passage} /></span>
    </span>
    <span class="cell-duration number" role="gridcell"><${Lasting} of=${run} /></span>
    <span class="cell-first number" role="gridcell">${duration(run.first_token_ns)}</span>
    <span class="cell-tokens number" role="gridcell">${number(run.tokens.total)}</span>
    <span class="cell-cost number" role="gridcell">${cost(run.cost)}</span>
    <span class="cell-when number" role="gridcell"><${When} ns=${run.started_ns} /></span>`;
}

const TRACES = {
  path: "traces",
  text: "input",
  idOf: (trace) => trace.trace_id,
  hrefOf: (trace) => traceHref(trace.trace_id),
  cells: (trace) => html`<${TraceCells} trace=${trace} />`,
};
const RUNS = {
  path: "search",
  text: "found in",
  idOf: (run) => `${run.trace_id}/${run.span_id}`,
  hrefOf: hitHref,
  cells: (run) => html`<${RunCells} run=${run} />`,
};

const headings = (text) => ["status", "name", text, "duration", "first tok", "tokens", "cost", "when"];
const AREAS = ["status", "name", "text", "duration", "first", "tokens", "cost", "when"];

const Head = ({ text }) => html`<div class="row list-row head" role="row">
  ${headings(text).map(
    (heading, index) =>
      html`<span class=${`cell-${AREAS[index]} ${index > 2 ? "number" : ""}`}
        role="columnheader">${index ? heading : html`<span class="unseen">${heading}</span>`}</span>`,
  )}
</div>`;

function hear(listing, isPlain, changes) {
  if (!changes.is_complete || !isPlain) {
    listing.refreshSoon();
    return;
  }
  const fresh = listing.apply(changes.traces, changes.removed);
  if (fresh) announce(`${fresh} new`);
  for (const trace of changes.traces)
    if (hasFailed(trace.status)) announce(`${trace.name ?? "A trace"}: ${wordOf(trace.status)}`);
}

function NothingFound({ words }) {
  if (!words) {
    return html`<div class="notice">
      <p class="notice-head">No trace is like that.</p>
      <p><a href=${hrefOf([])}>Take all filters away</a></p>
    </div>`;
  }
  return html`<div class="notice">
    <p class="notice-head">No run has these words.</p>
    <p class="quiet">A run can be found once it has ended. With a star behind it, a word may go on: subscri*</p>
    <p><a href=${withQuery({ q: null })}>Take the search away</a></p>
  </div>`;
}

export function Traces() {
  const { query } = address.value;
  const words = query.get("q")?.trim() ?? "";
  const filters = filtersOf(query);
  const what = words ? RUNS : TRACES;
  const listing = listingOf(what.path, words ? { ...filters, q: words } : filters, what.idOf);
  const isPlain = !words && !Object.keys(filters).length;
  const [hasFocus, setHasFocus] = useState(false);
  const search = useRef(null);

  useEffect(() => {
    document.title = "tracebus";
    listing.refresh();
    return onChanges((changes) => hear(listing, isPlain, changes));
  }, [listing]);

  const items = listing.items.value;
  const selected = items?.findIndex((item) => what.idOf(item) === listing.selected.value) ?? -1;
  const choose = (index) => {
    if (!items?.length) return;
    setHasFocus(true);
    listing.selected.value = what.idOf(items[Math.max(0, Math.min(items.length - 1, index))]);
  };
  const open = (item) => {
    listing.selected.value = what.idOf(item);
    go(what.hrefOf(item));
  };
  const nextFailing = () => {
    const place = nextPlace(items ?? [], selected, (item) => hasFailed(item.status) || item.errors > 0);
    if (place >= 0) choose(place);
    else notify(listing.after === null ? "Nothing in this list has failed" : "Nothing loaded so far has failed");
  };
  const onSelected = (action) => () => (selected >= 0 ? action(items[selected]) : false);
  useKeys({
    j: () => choose(selected + 1),
    k: () => choose(selected - 1),
    ArrowDown: () => choose(selected + 1),
    ArrowUp: () => choose(selected - 1),
    Home: () => choose(0),
    End: () => choose((items?.length ?? 0) - 1),
    Enter: onSelected(open),
    c: onSelected((item) => copy(new URL(what.hrefOf(item), window.location.href).href, "link")),
    x: onSelected((item) => toggleMark({ trace_id: item.trace_id, name: item.name })),
    e: nextFailing,
    p: togglePause,
    "/": () => search.current?.focus(),
    Escape: () => {
      if (document.activeElement === search.current) search.current.blur();
      else if (!isPlain) go(hrefOf([]));
    },
  });

  const rowHeight = isNarrow.value ? NARROW_ROW : ROW;
  const row = (index) => {
    const item = items[index];
    const id = what.idOf(item);
    return html`<div
      class=${`row list-row ${hasFailed(item.status) ? "has-failed" : ""}`}
      role="row"
      key=${id}
      aria-rowindex=${index + 2}
      aria-selected=${index === selected}
      tabindex=${index === Math.max(selected, 0) ? 0 : -1}
      onClick=${(event) => event.target.closest("a") || open(item)}
      onFocus=${() => {
        if (selected < 0) listing.selected.value = id;
      }}
    >
      ${what.cells(item)}
    </div>`;
  };

  const error = listing.error.value;
  const isEmpty = isPlain && items?.length === 0;
  const isForeign = error?.status === 409;
  return html`<main class="view list">
    <h1 class="unseen">${words ? "Search" : "Traces"}</h1>
    ${
      !isEmpty &&
      !isForeign &&
      html`<${FilterBar} search=${search} words=${words} filters=${filters} chips=${chipsOf(filters)} />`
    }
    ${
      isPaused.value &&
      html`<p class="banner">
        Paused. ${missed.value > 0 && `${number(missed.value)} changed meanwhile.`}
        <button type="button" class="faint" onClick=${togglePause}>go on</button>
      </p>`
    }
    ${
      marked.value.length > 0 &&
      html`<p class="banner">
      Marked <strong>${marked.value[0].name ?? "a trace"}</strong>: press x on another one, or compare in it.
      <button type="button" class="faint" onClick=${() => toggleMark(marked.value[0])}>unmark</button>
    </p>`
    }
    ${
      error
        ? html`<${Trouble} error=${error}>
          ${isForeign && html`<p class="quiet">To look at another one: <code>tracebus ui --db path/to/traces.db</code></p>`}
          ${isPlain || isForeign ? null : html`<p><a href=${hrefOf([])}>Take all filters away</a></p>`}
        <//>`
        : isEmpty
          ? html`<${Empty} path=${info.value?.path} trouble=${trouble.value} />`
          : items === null
            ? html`<${Loading} />`
            : items.length === 0
              ? html`<${NothingFound} words=${words} />`
              : html`<${Rows}
                key=${listing.path + JSON.stringify(listing.query)}
                role="grid"
                label=${words ? "Runs found" : "Traces"}
                count=${items.length}
                rowHeight=${rowHeight}
                headHeight=${isNarrow.value ? 0 : HEAD}
                head=${!isNarrow.value && html`<${Head} text=${what.text} />`}
                row=${row}
                selected=${selected}
                selectedId=${listing.selected.value}
                hasFocus=${hasFocus}
                arrived=${listing.arrived.value}
                onEnd=${() => listing.more()}
              />`
    }
  </main>`;
}
