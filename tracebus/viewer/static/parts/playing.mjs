// Playing what came over time: a clock, and what shows and steers it. What is played are one stream or several of them.

import { html, useEffect, useMemo, useRef, useState } from "../html.mjs";
import { duration } from "../figures.mjs";
import { useKeys } from "../keys.mjs";
import { Plain } from "./prose.mjs";

const SPEEDS = [0.25, 1, 2, 10];

/**
 * Move a place in time, in nanoseconds up to `end`, forward at a speed while it plays; returns what is needed to show and to
 * steer it. It begins to play when `wanted`, a number, grows.
 */
export function usePlaying(end, wanted) {
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
  useKeys({ r: play });
  useEffect(() => {
    if (wanted && !isPlaying) play();
  }, [wanted]);
  return { at, isPlaying, speed, setSpeed, play, seek };
}

/** Where it stands, to be moved; `said` is what has come by then, in words. */
export function Scrubber({ playing, end, said }) {
  const { at, seek } = playing;
  return html`<input
    type="range"
    class="scrubber"
    min="0"
    max=${end / 1e6}
    step="any"
    value=${(at ?? end) / 1e6}
    aria-label="Place in the stream"
    aria-valuetext=${`${duration(at ?? end)}, ${said}`}
    onInput=${(event) => seek(Number(event.currentTarget.value) * 1e6)}
  />`;
}

export function PlayLine({ playing, end, said }) {
  const { at, isPlaying, speed, setSpeed, play } = playing;
  return html`<div class="stream-line">
    <button type="button" class="button" onClick=${play}>${isPlaying ? "pause" : "replay"}</button>
    <span class="speeds" role="group" aria-label="Speed">
      ${SPEEDS.map(
        (one) =>
          html`<button type="button" class="faint" aria-pressed=${one === speed}
            onClick=${() => setSpeed(one)}>${one}×</button>`,
      )}
    </span>
    <output class="numbers">${duration(at ?? end) || "0 ms"} · ${said}</output>
  </div>`;
}

/** The text of the tokens that have come, and faintly that of the others. */
export function Spoken({ steps, come }) {
  const text = useMemo(() => steps.map((step) => step.text), [steps]);
  return html`<p class="stream-text">
    <span class="come"><${Plain} text=${text.slice(0, come).join("")} /></span
    ><span class="to-come" aria-hidden="true"><${Plain} text=${text.slice(come).join("")} /></span>
  </p>`;
}
