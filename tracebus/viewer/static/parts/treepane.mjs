// The tree of a trace with its waterfall, in which a run is selected.

import { now } from "../clock.mjs";
import { number } from "../figures.mjs";
import { html } from "../html.mjs";
import { isNarrow } from "../width.mjs";
import { Rows } from "./rows.mjs";
import { Axis, stepOf, TreeRow } from "./waterfall.mjs";

const [ROW, HEAD] = [26, 24];

/** Return how high the pane is with so many rows, in pixels. */
export const heightOf = (rows) => Math.max(rows, 3) * ROW + HEAD + 8;

function RowToCome() {
  return html`<div class="row tree-row to-come" role="row"><span role="gridcell">…</span></div>`;
}

function Foot({ tree, total }) {
  return html`<p class="tree-foot quiet">
    ${number(tree.shown.value.length)} of ${number(total)} runs
    ${!tree.isLoading.value && html`<button type="button" class="faint" onClick=${() => tree.more()}>load more</button>`}
  </p>`;
}

/** `total` is how many runs there are, also while not all of them are loaded. */
export function TreePane({ tree, total, selected, hasFocus, onSelect }) {
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
    if (!one) return html`<${RowToCome} key=${`to come ${index}`} />`;
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
  const step = stepOf(lasts, isNarrow.value ? 2 : 5);
  return html`<div class="tree" style=${{ "--step": `${(step / lasts) * 100}%` }}>
    <${Rows}
      role="treegrid"
      label="Runs of the trace"
      count=${length}
      rowHeight=${ROW}
      head=${html`<${Axis} step=${step} total=${lasts} />`}
      headHeight=${HEAD}
      row=${row}
      selected=${selected}
      hasFocus=${hasFocus}
    />
    ${!isWhole && tree.after.value !== undefined && html`<${Foot} tree=${tree} total=${total} />`}
  </div>`;
}
