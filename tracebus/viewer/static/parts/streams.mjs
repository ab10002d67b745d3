// All streams below a run on one clock: when each of them spoke and when it stood, and a replay of them together.

import { runHref } from "../address.mjs";
import { get, pathOf } from "../api.mjs";
import { html, useEffect, useMemo, useRef, useState } from "../html.mjs";
import { count, duration, number } from "../figures.mjs";
import { burstsOf, comeBy } from "../pace.mjs";
import { PlayLine, Scrubber, Spoken, usePlaying } from "./playing.mjs";
import { Loading, Trouble } from "./small.mjs";

/** More are not read at a time. */
const MOST = 24;
const [WIDTH, HEIGHT] = [600, 14];

const stateOf = ({ span_id, status, streamed }) => `${span_id} ${status} ${streamed}`;

/** The details of these runs, each read again when it has said more; null until all are there. */
function useDetails(runs) {
  const [known, setKnown] = useState({ details: null, error: null });
  const read = useRef(new Map());
  const turns = useRef({ last: 0, shown: 0 });
  const states = runs.map(stateOf);
  useEffect(() => {
    const asked = runs.map((run, index) => {
      const { trace_id, span_id } = run;
      return read.current.get(states[index]) ?? get(pathOf("traces", trace_id, "runs", span_id));
    });
    read.current = new Map(asked.map((answer, index) => [states[index], answer]));
    const turn = ++turns.current.last;
    const show = (told) => {
      if (turn < turns.current.shown) return; // what was asked later has come before
      turns.current.shown = turn;
      setKnown(told);
    };
    Promise.all(asked).then(
      (details) => show({ details, error: null }),
      (error) => show({ details: null, error }),
    );
  }, [states.join()]);
  return known;
}

/** The tokens of a run by the clock of the run above: in nanoseconds after `begin`. */
const clocked = ({ run, steps }, begin) => ({
  run,
  steps: steps.map(({ at_ns, text }) => ({ at_ns: at_ns + run.started_ns - begin, text })),
});

function Lane({ stream, end, at }) {
  const { run, steps } = stream;
  const x = (ns) => (ns / end) * WIDTH;
  const bursts = useMemo(() => burstsOf(steps, end / 200), [steps, end]);
  const begin = steps[0].at_ns - (run.first_token_ns ?? 0);
  return html`<li class="lane">
    <a class="lane-name" href=${runHref(run.trace_id, run.span_id, { tab: "timing" })}>${run.name}</a>
    <svg class="pace lane-pace" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
      <rect class="pace-wait" x=${x(begin)} y="0" width=${x(steps[0].at_ns - begin)} height=${HEIGHT} />
      ${bursts.map(
        ({ from_ns, to_ns }) => html`<rect class="pace-burst" x=${x(from_ns)} y="2"
          width=${Math.max(1.5, x(to_ns - from_ns))} height=${HEIGHT - 4} />`,
      )}
      ${
        at !== null &&
        html`<line class="pace-at" x1=${x(at)} x2=${x(at)} y1="0" y2=${HEIGHT} vector-effect="non-scaling-stroke" />`
      }
    </svg>
  </li>`;
}

function Together({ streams, end, left, wanted }) {
  const playing = usePlaying(end, wanted);
  const { at } = playing;
  const come = streams.map(({ steps }) => (at === null ? steps.length : comeBy(steps, at)));
  const sum = (numbers) => numbers.reduce((all, one) => all + one, 0);
  const tokens = sum(streams.map(({ steps }) => steps.length));
  return html`<section class="stream" aria-label="Streams">
    <h3 class="label">
      ${count(streams.length, "stream")} · ${count(tokens, "token")} in ${duration(end)}
      ${left > 0 && ` · ${number(left)} more are not shown`}
    </h3>
    <ol class="lanes">
      ${streams.map((stream) => html`<${Lane} key=${stream.run.span_id} stream=${stream} end=${end} at=${at} />`)}
    </ol>
    <div class="lane-scrubber"><${Scrubber} playing=${playing} end=${end} said=${count(sum(come), "token")} /></div>
    <${PlayLine} playing=${playing} end=${end} said=${`${number(sum(come))} of ${number(tokens)} tokens`} />
    <ol class="messages">
      ${streams.map(
        ({ run, steps }, index) => html`<li class="message" key=${run.span_id}>
          <span class="role">${run.name}</span>
          <div class="said"><${Spoken} steps=${steps} come=${come[index]} /></div>
        </li>`,
      )}
    </ol>
  </section>`;
}

/** The streams of `runs`, which are below `run`. They begin to play when `wanted`, a number, grows. */
export function Streams({ run, runs, wanted }) {
  const { details, error } = useDetails(runs.slice(0, MOST));
  const streams = useMemo(
    () => details?.filter(({ steps }) => steps.length).map((detail) => clocked(detail, run.started_ns)),
    [details, run.started_ns],
  );
  if (error) return html`<${Trouble} error=${error} />`;
  if (!streams) return html`<${Loading} />`;
  if (!streams.length) return html`<p class="quiet">The times of the tokens are written when their runs have ended.</p>`;
  const end = Math.max(run.duration_ns ?? 0, ...streams.map(({ steps }) => steps.at(-1).at_ns), 1);
  return html`<${Together} streams=${streams} end=${end} left=${runs.length - MOST} wanted=${wanted} />`;
}
