// Two traces side by side: their trees matched row by row, and what has changed in the runs that are selected.

import { address, back, go, hrefOf, runHref, traceHref, withQuery } from "../address.mjs";
import { useAnswer } from "../api.mjs";
import { html, useEffect, useState } from "../html.mjs";
import { costOf, duration, number } from "../figures.mjs";
import { useKeys } from "../keys.mjs";
import { Diff } from "../parts/diff.mjs";
import { Rows } from "../parts/rows.mjs";
import { Loading, Status, Trouble, When } from "../parts/small.mjs";
import { Split } from "../parts/split.mjs";
import { hasFailed, isModel, kindWord, wordOf } from "../words.mjs";

const [ROW, HEAD] = [26, 28];

function HowTo() {
  return html`<div class="notice">
    <p class="notice-head">Two traces are needed to compare.</p>
    <p>Press <kbd>x</kbd> on one trace in the <a href=${hrefOf([])}>list</a>, and then on another.</p>
  </div>`;
}

const FIGURES = [
  ["duration", (run) => duration(run.duration_ns)],
  ["first token", (run) => duration(run.first_token_ns)],
  ["tokens", (run) => number(run.tokens.total)],
  ["model", (run) => run.model ?? ""],
];

function Side({ run, isSame }) {
  if (!run) return html`<span class="side absent" role="gridcell"><span class="unseen">not in this trace</span></span>`;
  const shade = hasFailed(run.status) ? "failed" : isModel(run.kind) ? "model" : "";
  return html`<span class="side" role="gridcell">
    <span class=${`name ${shade}`} title=${kindWord(run.kind)}>${hasFailed(run.status) ? "✗ " : ""}${run.name}</span>
    ${hasFailed(run.status) && html`<span class="unseen">${wordOf(run.status)}</span>`}
    ${!isSame && html`<span class="changed">changed</span>`}
    <span class="number">${duration(run.duration_ns)}</span>
  </span>`;
}

function Difference({ left, right }) {
  const both = left && right;
  const { data, previous, error } = useAnswer(both ? "compare/runs" : null, {
    left: both && `${left.trace_id}/${left.span_id}`,
    right: both && `${right.trace_id}/${right.span_id}`,
  });
  const one = left ?? right;
  if (!both) {
    return html`<div class="detail-body pad">
      <p>Only the ${left ? "left" : "right"} trace has this run. <a href=${runHref(one.trace_id, one.span_id)}>Open it</a></p>
    </div>`;
  }
  if (error) return html`<${Trouble} error=${error} />`;
  const told = data ?? previous;
  if (!told) return html`<${Loading} />`;
  const parts = [
    ["inputs", told.inputs],
    ["output", told.output],
    ["error", told.error],
  ];
  const isAny = parts.some(([, diff]) => diff?.length);
  return html`<div class="detail-body pad" tabindex="0" aria-label="What has changed">
    <h2><span class=${`name ${isModel(left.kind) ? "model" : ""}`}>${left.name}</span></h2>
    <table class="table pair">
      <thead><tr><td></td><th scope="col" class="number">left</th><th scope="col" class="number">right</th></tr></thead>
      <tbody>
        <tr>
          <th scope="row">status</th>
          ${[left, right].map(
            ({ status }) => html`<td class=${`number ${left.status === right.status ? "" : "left-out"}`}>
              <${Status} status=${status} isSpoken=${false} /> ${wordOf(status)}
            </td>`,
          )}
        </tr>
        ${FIGURES.map(([name, say]) => [name, say(left), say(right)])
          .filter(([, ...said]) => said.some(Boolean))
          .map(
            ([name, ...said]) => html`<tr key=${name}>
              <th scope="row">${name}</th>
              ${said.map(
                (one) => html`<td class=${`number ${name === "model" && said[0] !== said[1] ? "left-out" : ""}`}>${one}</td>`,
              )}
            </tr>`,
          )}
        <tr>
          <td></td>
          ${[left, right].map((run) => html`<td class="number"><a href=${runHref(run.trace_id, run.span_id)}>open</a></td>`)}
        </tr>
      </tbody>
    </table>
    ${parts.map(([title, diff]) => html`<${Diff} key=${title} title=${title} diff=${diff} />`)}
    ${!isAny && html`<p class="quiet">Neither of the two has recorded inputs or an output.</p>`}
  </div>`;
}

function Title({ trace, side }) {
  return html`<p class="compare-title">
    <span class="quiet">${side}</span>
    <${Status} status=${trace.status} /> <a href=${traceHref(trace.trace_id)}>${trace.name ?? "trace"}</a>
    <span class="quiet">${duration(trace.duration_ns)}</span>
    ${trace.tokens.total != null && html`<span class="quiet">${number(trace.tokens.total)} tokens</span>`}
    <span class="quiet">${costOf(trace)}</span>
    <span class="quiet"><${When} ns=${trace.started_ns} /></span>
  </p>`;
}

function Both({ left: leftId, right: rightId }) {
  const { data, error } = useAnswer("compare", { left: leftId, right: rightId });
  const [hasFocus, setHasFocus] = useState(false);
  const rows = data?.rows ?? [];
  const asked = Number(address.value.query.get("row"));
  const firstChange = rows.findIndex((row) => !row.same);
  const selected = address.value.query.has("row") && asked >= 0 && asked < rows.length ? asked : Math.max(0, firstChange);
  const choose = (index) => {
    const place = Math.max(0, Math.min(rows.length - 1, index));
    if (rows.length) go(withQuery({ row: String(place) }), { replace: true });
  };
  const move = (by) => {
    setHasFocus(true);
    choose(selected + by);
  };
  useKeys({
    j: () => move(1),
    k: () => move(-1),
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    e: () => {
      const next = rows.findIndex((row, index) => index > selected && !row.same);
      setHasFocus(true);
      choose(next < 0 ? firstChange : next);
    },
    Enter: () => document.querySelector(".detail-body")?.focus(),
  });
  if (error) return html`<${Trouble} error=${error}><p><a href=${hrefOf([])}>All traces</a></p><//>`;
  if (!data) return html`<${Loading} />`;
  const row = (index) => {
    const { left, right, depth, same } = rows[index];
    return html`<div
      class=${`row compare-row ${same ? "same" : ""}`}
      role="row"
      key=${index}
      aria-level=${depth + 1}
      aria-rowindex=${index + 2}
      aria-selected=${index === selected}
      tabindex=${index === selected ? 0 : -1}
      style=${{ "--depth": Math.min(depth, 12) }}
      onClick=${() => choose(index)}
    >
      <${Side} run=${left} isSame=${true} /><${Side} run=${right} isSame=${same || !left} />
    </div>`;
  };
  const head = html`<div class="row compare-row head" role="row">
    <span class="side" role="columnheader">left</span><span class="side" role="columnheader">right</span>
  </div>`;
  const chosen = rows[selected];
  return html`<header class="view-head compare-head">
      <button type="button" class="faint back" aria-label="Back to the list" onClick=${() => back(hrefOf([]))}>←</button>
      <h1>Compare</h1>
      <div class="compare-titles">
        <${Title} side="left" trace=${data.left} />
        <${Title} side="right" trace=${data.right} />
      </div>
      <div class="actions"><a class="faint" href=${hrefOf(["compare"], { left: rightId, right: leftId })}>swap</a></div>
    </header>
    <${Split}
      name="compare"
      label="Width of the trees"
      firstHeight=${`${Math.max(rows.length, 3) * ROW + HEAD}px`}
      first=${html`<${Rows}
        role="treegrid"
        label="Runs of both traces"
        count=${rows.length}
        rowHeight=${ROW}
        head=${head}
        headHeight=${HEAD}
        row=${row}
        selected=${selected}
        hasFocus=${hasFocus}
      />`}
      second=${chosen && html`<${Difference} key=${selected} left=${chosen.left} right=${chosen.right} />`}
    />`;
}

export function Compare() {
  const { query } = address.value;
  const [left, right] = [query.get("left"), query.get("right")];
  useKeys({ Escape: () => back(hrefOf([])) });
  useEffect(() => {
    document.title = "Compare · tracebus";
  }, []);
  return html`<main class="view compare">
    ${
      left && right
        ? html`<${Both} key=${`${left} ${right}`} left=${left} right=${right} />`
        : html`<h1 class="unseen">Compare</h1><${HowTo} />`
    }
  </main>`;
}
