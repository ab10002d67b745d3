// Two panes with a line between them that can be dragged, or moved with the arrow keys. Where there is no room for both side
// by side they are one above the other, the first no higher than what is in it.

import { html, useRef, useState } from "../html.mjs";
import { recall, remember } from "../memory.mjs";

const [LEAST, MOST, STEP] = [20, 80, 2];

const within = (percent) => Math.min(MOST, Math.max(LEAST, Math.round(percent)));

export function Split({ name, first, second, label, firstHeight = "none" }) {
  const box = useRef(null);
  const [percent, setPercent] = useState(() => within(Number(recall(`split.${name}`, 50)) || 50));
  const move = (wanted) => {
    const next = within(wanted);
    setPercent(next);
    remember(`split.${name}`, next);
  };
  const drag = (event) => {
    const line = event.currentTarget;
    line.setPointerCapture(event.pointerId);
    const { left, top, width, height } = box.current.getBoundingClientRect();
    const isStacked = getComputedStyle(box.current).flexDirection === "column";
    const follow = ({ clientX, clientY }) =>
      move(isStacked ? ((clientY - top) / height) * 100 : ((clientX - left) / width) * 100);
    line.addEventListener("pointermove", follow);
    line.addEventListener("lostpointercapture", () => line.removeEventListener("pointermove", follow), { once: true });
  };
  const press = (event) => {
    const by = { ArrowLeft: -STEP, ArrowUp: -STEP, ArrowRight: STEP, ArrowDown: STEP }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    move(percent + by);
  };
  return html`<div class="split" ref=${box}>
    <div class="pane" style=${{ flexBasis: `${percent}%`, "--content": firstHeight }}>${first}</div>
    <div
      class="split-line"
      role="separator"
      tabindex="0"
      aria-label=${label}
      aria-orientation="vertical"
      aria-valuemin=${LEAST}
      aria-valuemax=${MOST}
      aria-valuenow=${percent}
      onPointerDown=${drag}
      onKeyDown=${press}
      onDblClick=${() => move(50)}
    ></div>
    <div class="pane" style=${{ flexBasis: `${100 - percent}%` }}>${second}</div>
  </div>`;
}
