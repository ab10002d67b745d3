// A stream as it came: tokens over time with the pauses, and a replay at the pace of then, with a scrubber.

import { html, useMemo } from "../html.mjs";
import { count, duration, number } from "../figures.mjs";
import { comeBy, lineOf, pausesOf } from "../pace.mjs";
import { PlayLine, Scrubber, Spoken, usePlaying } from "./playing.mjs";

const [WIDTH, HEIGHT] = [600, 96];
const NAMED_PAUSES = 4;

function summaryOf(steps, pauses, end) {
  const rate = steps.length > 1 ? (steps.length - 1) / ((steps.at(-1).at_ns - steps[0].at_ns || 1) / 1e9) : 0;
  const parts = [`${count(steps.length, "token")} in ${duration(end)}`, `first after ${duration(steps[0].at_ns)}`];
  if (rate) parts.push(`${rate < 10 ? rate.toFixed(1) : number(rate)} tokens/s`);
  if (pauses.length) parts.push(`longest pause ${duration(pauses[0].to_ns - pauses[0].from_ns)}`);
  return parts.join(" · ");
}

function Plot({ steps, pauses, end, at }) {
  const x = (ns) => (ns / end) * WIDTH;
  const y = (tokens) => HEIGHT - 4 - (tokens / steps.length) * (HEIGHT - 12);
  const line = useMemo(() => lineOf(steps), [steps]);
  const path = line.map(([ns, tokens], index) => `${index ? "L" : "M"}${x(ns).toFixed(1)} ${y(tokens).toFixed(1)}`).join("");
  return html`<svg class="pace" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img"
    aria-label="Tokens over time">
    <rect class="pace-wait" x="0" y="0" width=${x(steps[0].at_ns)} height=${HEIGHT} />
    ${pauses.map(
      (pause) =>
        html`<rect class="pace-pause" x=${x(pause.from_ns)} y="0" width=${x(pause.to_ns - pause.from_ns)} height=${HEIGHT} />`,
    )}
    <path class="pace-line" d=${path} vector-effect="non-scaling-stroke" />
    ${
      at !== null &&
      html`<line class="pace-at" x1=${x(at)} x2=${x(at)} y1="0" y2=${HEIGHT}
      vector-effect="non-scaling-stroke" />`
    }
  </svg>`;
}

function PauseNames({ pauses, end }) {
  const named = pauses.slice(0, NAMED_PAUSES).filter((pause) => (pause.to_ns - pause.from_ns) / end > 0.05);
  return html`<div class="pace-names" aria-hidden="true">
    ${named.map((pause) => {
      const middle = ((pause.from_ns + pause.to_ns) / 2 / end) * 100;
      return html`<span style=${{ left: `${middle}%` }}>${duration(pause.to_ns - pause.from_ns)}</span>`;
    })}
  </div>`;
}

/** The plot and the replay of the tokens of a run. It begins to play when `wanted`, a number, grows. */
export function Stream({ detail, wanted }) {
  const { steps, run } = detail;
  const end = Math.max(run.duration_ns ?? 0, steps.at(-1).at_ns, 1);
  const pauses = useMemo(() => pausesOf(steps), [steps]);
  const playing = usePlaying(end, wanted);
  const { at } = playing;
  const come = at === null ? steps.length : comeBy(steps, at);
  return html`<section class="stream" aria-label="Stream">
    <h3 class="label">${summaryOf(steps, pauses, end)}</h3>
    <div class="pace-box">
      <${Plot} steps=${steps} pauses=${pauses} end=${end} at=${at} />
      <${PauseNames} pauses=${pauses} end=${end} />
      <${Scrubber} playing=${playing} end=${end} said=${count(come, "token")} />
    </div>
    <${PlayLine} playing=${playing} end=${end} said=${`${number(come)} of ${number(steps.length)} tokens`} />
    <${Spoken} steps=${steps} come=${come} />
  </section>`;
}
