// A row of the tree: a run's name at its depth, and the bar of its time.

import { now } from "../clock.mjs";
import { html } from "../html.mjs";
import { duration } from "../figures.mjs";
import { hasFailed, isModel, kindWord, wordOf } from "../words.mjs";
import { Lasting } from "./small.mjs";

const DEEPEST_INDENT = 12;

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
    aria-rowindex=${place + 1}
    aria-expanded=${hasChildren ? String(!isFolded) : undefined}
    aria-selected=${isSelected}
    tabindex=${isSelected ? 0 : -1}
    onClick=${() => onSelect(run.span_id)}
  >
    <span class="tree-name" role="gridcell" style=${{ paddingLeft: `${indent * 14}px` }}>
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
    <span role="gridcell"><${Bar} run=${run} begin=${span.begin} total=${total} /></span>
    <span class="number" role="gridcell"><${Lasting} of=${run} /></span>
  </div>`;
}
