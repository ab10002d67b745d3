// A row of the tree: a run's name at its depth, and the bar of its time. Above the rows, the times that the bars stand at.

import { now } from "../clock.mjs";
import { html } from "../html.mjs";
import { duration, tick } from "../figures.mjs";
import { hasFailed, isModel, kindWord, wordOf } from "../words.mjs";
import { Lasting } from "./small.mjs";

const DEEPEST_INDENT = 12;

const SECOND = 1e9;
const ROUND = [1, 2, 5];
const MINUTE = 60 * SECOND;
const ROUND_MINUTES = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1440, 2880, 7200, 14400].map((one) => one * MINUTE);

/** Return the time from one line to the next, in nanoseconds: a round one that leaves at most so many lines. */
export function stepOf(total, most) {
  const least = total / (most + 0.5);
  const power = 10 ** Math.floor(Math.log10(least));
  const decimal = [...ROUND.map((one) => one * power), 10 * power].find((step) => step >= least);
  return decimal < MINUTE ? decimal : (ROUND_MINUTES.find((step) => step >= least) ?? decimal);
}

/** The row of headings: where in time the lines stand. */
export function Axis({ step, total }) {
  const ticks = Array.from({ length: Math.floor(total / step) }, (_, index) => (index + 1) * step);
  return html`<div class="row tree-row head" role="row">
    <span role="columnheader"><span class="unseen">run</span></span>
    <span class="bar-cell axis" role="columnheader">
      <span class="unseen">when</span>
      ${ticks.map(
        (ns) => html`<span key=${ns} aria-hidden="true" style=${{ width: `${(ns / total) * 100}%` }}>${tick(ns)}</span>`,
      )}
    </span>
    <span role="columnheader"><span class="unseen">duration</span></span>
  </div>`;
}

function Bar({ run, begin, total }) {
  const ends = run.status === "open" ? now.value * 1e6 : run.started_ns + (run.duration_ns ?? 0);
  const left = Math.max(0, ((run.started_ns - begin) / total) * 100);
  const width = Math.max(0, Math.min(100 - left, ((ends - run.started_ns) / total) * 100));
  const first =
    run.first_token_ns == null || ends <= run.started_ns ? 0 : (run.first_token_ns / (ends - run.started_ns)) * 100;
  const shade = hasFailed(run.status) ? "failed" : isModel(run.kind) ? "model" : "";
  const title = run.first_token_ns == null ? undefined : `first token after ${duration(run.first_token_ns)}`;
  return html`<span class="bar-room" aria-hidden="true">
    <span class=${`bar ${shade} ${run.status === "open" ? "open" : ""}`} style=${{ left: `${left}%`, width: `${width}%` }}
      title=${title}>
      ${first > 0 && html`<span class="bar-wait" style=${{ width: `${Math.min(100, first)}%` }}></span>`}
    </span>
  </span>`;
}

/** One row; `span` is the time that all bars stand in. */
export function TreeRow({ row, place, total, span, isSelected, isFolded, onSelect, onFold }) {
  const { run, depth, has_children: hasChildren } = row;
  const indent = Math.min(depth, DEEPEST_INDENT);
  const shade = hasFailed(run.status) ? "failed" : isModel(run.kind) ? "model" : "";
  const what = [kindWord(run.kind), wordOf(run.status)];
  const twist = (event) => {
    event.stopPropagation();
    onFold(run.span_id, !isFolded);
  };
  return html`<div
    class="row tree-row"
    role="row"
    key=${run.span_id}
    aria-level=${depth + 1}
    aria-rowindex=${place + 2}
    aria-expanded=${hasChildren ? String(!isFolded) : undefined}
    aria-selected=${isSelected}
    tabindex=${isSelected ? 0 : -1}
    onClick=${() => onSelect(run.span_id)}
  >
    <span class="tree-name" role="gridcell" style=${{ "--depth": indent }}>
      ${
        hasChildren
          ? html`<span class="twist" aria-hidden="true" onClick=${twist}>${isFolded ? "▸" : "▾"}</span>`
          : html`<span class="twist" aria-hidden="true"></span>`
      }
      ${depth > DEEPEST_INDENT && html`<span class="quiet depth" title="Depth">${depth}</span>`}
      ${hasFailed(run.status) && html`<span class="failed" aria-hidden="true">✗ </span>`}
      <span class=${`name ${shade}`} title=${`${run.name} · ${what.join(" · ")}`}>${run.name}</span>
      <span class="unseen">, ${what.join(", ")}</span>
      ${!hasChildren && html`<span class="tree-hint">${run.model ?? ""}</span>`}
    </span>
    <span class="bar-cell" role="gridcell"><${Bar} run=${run} begin=${span.begin} total=${total} /></span>
    <span class="number" role="gridcell"><${Lasting} of=${run} /></span>
  </div>`;
}
