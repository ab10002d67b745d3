// The pace of a stream: where it stood, and how far it had come at a time. No drawing here: `parts/stream.mjs` does.

/** A pause is worth a word when it is this long, in nanoseconds, and this many times the usual. */
const LEAST_NS = 150e6;
const TIMES = 4;

function medianOf(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.floor(sorted.length / 2)] : 0;
}

/**
 * Return the pauses between tokens that stand out, the longest first: `[{from_ns, to_ns, index}]`, `index` being that of
 * the token that ended it. The wait for the first token is none of them.
 */
export function pausesOf(steps) {
  const gaps = steps.slice(1).map((step, index) => ({ from_ns: steps[index].at_ns, to_ns: step.at_ns, index: index + 1 }));
  const least = Math.max(LEAST_NS, TIMES * medianOf(gaps.map((gap) => gap.to_ns - gap.from_ns)));
  return gaps.filter((gap) => gap.to_ns - gap.from_ns >= least).sort((a, b) => b.to_ns - b.from_ns - (a.to_ns - a.from_ns));
}

/** Return the stretches in which tokens came, `[{from_ns, to_ns}]`, between which none came for at least so long. */
export function burstsOf(steps, least_ns) {
  const bursts = [];
  for (const { at_ns } of steps) {
    const last = bursts.at(-1);
    if (last && at_ns - last.to_ns < least_ns) last.to_ns = at_ns;
    else bursts.push({ from_ns: at_ns, to_ns: at_ns });
  }
  return bursts;
}

/** Return how many tokens had come at a time, in nanoseconds after the start of the run. */
export function comeBy(steps, at_ns) {
  let [low, high] = [0, steps.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle].at_ns <= at_ns) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Return points of a line, at most so many, from which no pause is lost: `[[at_ns, tokens], …]`. */
export function lineOf(steps, most = 600) {
  const every = Math.max(1, Math.ceil(steps.length / most));
  const points = [[0, 0]];
  for (let index = 0; index < steps.length; index += every) {
    const last = Math.min(index + every, steps.length) - 1;
    points.push([steps[index].at_ns, index], [steps[last].at_ns, last + 1]);
  }
  return points;
}
