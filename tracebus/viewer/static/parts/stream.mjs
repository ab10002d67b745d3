// A stream as it came: tokens over time with the pauses, and a replay at the pace of then, with a scrubber.

import { html, useEffect, useMemo, useRef, useState } from "../html.mjs";
import { count, duration, number } from "../figures.mjs";
import { useKeys } from "../keys.mjs";
import { comeBy, lineOf, pausesOf } from "../pace.mjs";
import { Plain } from "./prose.mjs";

const [WIDTH, HEIGHT] = [600, 96];
const SPEEDS = [0.25, 1, 2, 10];
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

/** Move a place in time forward at a speed while it plays; returns what is needed to show and to steer it. */
function usePlaying(end) {
  const [at, setAt] = useState(null);
  const [isPlaying, setIsPlaying] = useState(false);
  const [speed, setSpeed] = useState(1);
  const place = useRef(0);
  place.current = at ?? 0;
  useEffect(() => {
    if (!isPlaying) return undefined;
    const [begun, from] = [performance.now(), place.current];
    let frame = 0;
    const step = () => {
      const next = from + (performance.now() - begun) * 1e6 * speed;
      setAt(Math.min(next, end));
      if (next < end) frame = requestAnimationFrame(step);
      else setIsPlaying(false);
    };
    frame = requestAnimationFrame(step);
    return () => cancelAnimationFrame(frame);
  }, [isPlaying, speed, end]);
  const play = () => {
    if (!isPlaying && (at === null || at >= end)) setAt(0);
    place.current = at === null || at >= end ? 0 : at;
    setIsPlaying(!isPlaying);
  };
  const seek = (ns) => {
    setIsPlaying(false);
    setAt(ns);
  };
  return { at, isPlaying, speed, setSpeed, play, seek };
}

/** The plot and the replay of the tokens of a run. It begins to play when `wanted`, a number, grows. */
export function Stream({ detail, wanted }) {
  const { steps, run } = detail;
  const end = Math.max(run.duration_ns ?? 0, steps.at(-1).at_ns, 1);
  const pauses = useMemo(() => pausesOf(steps), [steps]);
  const { at, isPlaying, speed, setSpeed, play, seek } = usePlaying(end);
  useKeys({ r: play });
  useEffect(() => {
    if (wanted && !isPlaying) play();
  }, [wanted]);
  const come = at === null ? steps.length : comeBy(steps, at);
  const text = useMemo(() => steps.map((step) => step.text), [steps]);
  return html`<section class="stream" aria-label="Stream">
    <h3 class="label">${summaryOf(steps, pauses, end)}</h3>
    <div class="pace-box">
      <${Plot} steps=${steps} pauses=${pauses} end=${end} at=${at} />
      <${PauseNames} pauses=${pauses} end=${end} />
      <input
        type="range"
        class="scrubber"
        min="0"
        max=${end / 1e6}
        step="any"
        value=${(at ?? end) / 1e6}
        aria-label="Place in the stream"
        aria-valuetext=${`${duration(at ?? end)}, ${count(come, "token")}`}
        onInput=${(event) => seek(Number(event.currentTarget.value) * 1e6)}
      />
    </div>
    <div class="stream-line">
      <button type="button" class="button" onClick=${play}>${isPlaying ? "pause" : "replay"}</button>
      <span class="speeds" role="group" aria-label="Speed">
        ${SPEEDS.map(
          (one) =>
            html`<button type="button" class="faint" aria-pressed=${one === speed}
              onClick=${() => setSpeed(one)}>${one}×</button>`,
        )}
      </span>
      <output class="numbers">${duration(at ?? end) || "0 ms"} · ${number(come)} of ${number(steps.length)} tokens</output>
    </div>
    <p class="stream-text">
      <span class="come"><${Plain} text=${text.slice(0, come).join("")} /></span
      ><span class="to-come" aria-hidden="true"><${Plain} text=${text.slice(come).join("")} /></span>
    </p>
  </section>`;
}
