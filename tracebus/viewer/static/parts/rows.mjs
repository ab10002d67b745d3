// A list of any length of which only the rows in sight are in the page.
//
// The rows hang in a box that sticks to the top of what scrolls and are moved inside it, so that the browser cannot scroll
// to where no rows are drawn yet: however fast somebody scrolls, there is never a gap.

import { html, useEffect, useLayoutEffect, useRef, useState } from "../html.mjs";

const NONE = [];
const SPARE = 2;
/** How many rows from the end more are asked for. */
const REACH = 60;

function useHeight(ref) {
  const [height, setHeight] = useState(600);
  useLayoutEffect(() => {
    const box = ref.current;
    const measure = () => setHeight(box.clientHeight);
    const observer = new ResizeObserver(measure);
    observer.observe(box);
    measure();
    return () => observer.disconnect();
  }, []);
  return height;
}

/** How many of the rows that came in are above that which was the first in sight. */
function countAbove(arrived, first) {
  let above = 0;
  for (const place of arrived) if (place <= first + above) above += 1;
  return above;
}

/** Keep what is looked at where it is when rows come in above it; let them slide in when the top is looked at. */
function useArrivals(scroller, window_, arrived, rowHeight) {
  const known = useRef(arrived);
  useLayoutEffect(() => {
    if (known.current === arrived) return;
    known.current = arrived;
    const fresh = countAbove(arrived, Math.floor(scroller.current.scrollTop / rowHeight));
    if (!fresh) return;
    if (scroller.current.scrollTop > 0) scroller.current.scrollTop += fresh * rowHeight;
    else if (fresh < 20 && !window.matchMedia("(prefers-reduced-motion: reduce)").matches) {
      const from = `translateY(${-fresh * rowHeight}px)`;
      window_.current.animate([{ transform: from }, { transform: "none" }], { duration: 220, easing: "ease-out" });
    }
  }, [arrived]);
}

/**
 * Rows of the same height, `count` of them, each drawn by `row(index)`.
 *
 * `selected` comes into sight when it becomes that, known by `selectedId` where rows come in, and takes the focus when
 * `hasFocus`; `onEnd` is called near the end; `arrived` says where the rows are that came in last. `role` is that of the
 * whole, "grid" or "treegrid"; `head` is its row of headings.
 */
export function Rows({
  count, rowHeight, row, head, headHeight = 0, selected, selectedId = selected, hasFocus, onEnd, arrived = NONE, role, label,
}) {
  const scroller = useRef(null);
  const moved = useRef(null);
  const height = useHeight(scroller);
  const [top, setTop] = useState(0);
  useArrivals(scroller, moved, arrived, rowHeight);

  const room = Math.max(rowHeight, height - headHeight);
  const first = Math.max(0, Math.min(Math.floor(top / rowHeight), count - 1));
  const last = Math.min(count, first + Math.ceil(room / rowHeight) + SPARE);

  useLayoutEffect(() => {
    if (selected < 0) return;
    const box = scroller.current;
    const begin = selected * rowHeight;
    if (begin < box.scrollTop) box.scrollTop = begin;
    else if (begin + rowHeight > box.scrollTop + room) box.scrollTop = begin + rowHeight - room;
    setTop(box.scrollTop);
  }, [selectedId, height]);

  useEffect(() => {
    if (hasFocus) scroller.current.querySelector("[aria-selected=true]")?.focus({ preventScroll: true });
  }, [selected, hasFocus, first]);

  useEffect(() => {
    if (last + REACH >= count) onEnd?.();
  }, [last, count]);

  const shown = [];
  for (let index = first; index < last; index += 1) shown.push(row(index));
  return html`<div
    class="rows"
    ref=${scroller}
    role=${role}
    aria-label=${label}
    aria-rowcount=${count + (head ? 1 : 0)}
    onScroll=${(event) => setTop(event.currentTarget.scrollTop)}
  >
    ${head}
    <div class="rows-all" role="presentation" style=${{ height: `${count * rowHeight}px` }}>
      <div class="rows-seen" role="rowgroup"
        style=${{ height: `${Math.min(room, count * rowHeight)}px`, top: `${headHeight}px` }}>
        <div role="presentation" ref=${moved} style=${{ marginTop: `${first * rowHeight - top}px` }}>${shown}</div>
      </div>
    </div>
  </div>`;
}
