// A plot of uPlot in the viewer's colours: a click on it, or a link of the table below it, leads to the traces of a time.

import { hrefOf, go } from "../address.mjs";
import { html, useEffect, useMemo, useRef } from "../html.mjs";
import { colour, theme } from "../theme.mjs";
import uPlot from "../vendor/uplot.mjs";

const HEIGHT = 180;
const SHADES = ["--line-1", "--line-2", "--line-3", "--line-4", "--line-5"];
const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [1, 2]];
const TABLE_ROWS = 48;
/** Round durations, in nanoseconds: a tenth of a millisecond to two days. */
const ROUND = [
  ...[1e5, 1e6, 1e7, 1e8].flatMap((one) => [one, 2 * one, 5 * one]),
  ...[1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000, 86400, 172800].map((one) => one * 1e9),
];
/** Round numbers, for how far apart the lines of a plot of anything else are: 0.00001 to 5 000 000 000 000. */
const STEPS = Array.from({ length: 18 }, (_, power) => [1, 2, 2.5, 5].map((one) => Number(`${one}e${power - 5}`))).flat();
/** The same for days, in seconds: of these, uPlot takes 30 days for a month and 365 for a year. */
const DAYS = [1, 2, 3, 5, 7, 10, 15, 30, 60, 90, 180, 365, 730, 1825, 3650].map((one) => one * 86400);
const COARSE = [1e5, 1e6, 1e7, 1e8, ...[1, 10, 60, 600, 3600, 36000, 172800].map((one) => one * 1e9)];

/** An hour is told as clocks here tell it; a day is one of UTC, which begins at another hour here, or on another day. */
const timeOf = (seconds, grain) => {
  const time = new Date(seconds * 1000);
  return grain === "day" ? time.toISOString().slice(0, 10) : time.toLocaleString("sv-SE").slice(5, 16);
};

function axis(extra) {
  const font = `11px ${getComputedStyle(document.body).fontFamily}`;
  const grid = { stroke: colour("--rule"), width: 1, filter: everyOne };
  return { stroke: colour("--quiet"), grid, ticks: { show: false }, font, filter: everyOne, ...extra };
}

/** A logarithmic axis would keep only powers of ten. */
const everyOne = (plot, splits) => splits;

/** Stacked, the topmost first, because what is drawn later covers what is below it. */
function stacked(series) {
  const sums = series[0].values.map(() => 0);
  const drawn = series.map(({ values, ...rest }) => ({
    ...rest,
    values: values.map((value, index) => (sums[index] += value ?? 0)),
  }));
  return drawn.reverse();
}

/** A logarithmic scale of durations, in nanoseconds, between round ones. */
const DURATIONS = {
  distr: 3,
  range: (plot, low, high) =>
    low == null ? [1e6, 1e9] : [ROUND.findLast((one) => one <= low) ?? ROUND[0], ROUND.find((one) => one > high) ?? high],
};

/** Those of the round numbers that are so many times `finest`: of a count, there are no halves. */
const stepsOf = (finest) =>
  STEPS.filter((step) => step >= finest && Math.abs(step / finest - Math.round(step / finest)) < 1e-6);

/** Where the lines of that scale are. */
function roundBetween(low, high) {
  const [coarse, fine] = [COARSE, ROUND].map((all) => all.filter((one) => one >= low && one <= high));
  return fine.length > 6 ? coarse : fine;
}

function optionsFor({ series, say, finest, grain, seconds, width, onPoint, isBars, isLogarithmic }) {
  const drawn = series.map(({ shade, place }) => ({
    stroke: colour(shade),
    fill: isBars ? colour(shade) : undefined,
    width: isBars ? 0 : 1.5,
    dash: isBars ? [] : DASHES[place],
    spanGaps: true,
    points: isBars ? { show: false } : { show: true, size: 4, fill: colour(shade) },
    paths: isBars ? uPlot.paths.bars({ size: [0.8, 32], align: 1 }) : undefined,
  }));
  return {
    width,
    height: HEIGHT,
    padding: [8, 20, 0, 0],
    cursor: { drag: { x: false, y: false }, points: { size: 7 } },
    legend: { show: false },
    ...(grain === "day" && { tzDate: (time) => uPlot.tzDate(new Date(time * 1000), "Etc/UTC") }),
    scales: {
      x: { time: true, range: (plot, low, high) => [low, high + (isBars ? seconds : 0)] },
      y: isLogarithmic
        ? DURATIONS
        : { range: (plot, low, high) => [0, high > 0 ? high * 1.08 : 1] },
    },
    axes: [
      axis({
        size: 34,
        ...(grain === "day" && { incrs: DAYS }),
        values: [
          [86400, "{MMM} {D}", null, null, null, null, null, null, 1],
          [3600, "{HH}:{mm}", "\n{MMM} {D}", null, "\n{MMM} {D}", null, null, null, 1],
          [60, "{HH}:{mm}", "\n{MMM} {D}", null, "\n{MMM} {D}", null, null, null, 1],
          [1, "{HH}:{mm}", null, null, null, null, null, null, 1],
        ],
      }),
      axis({
        size: 62,
        values: (plot, ticks, place, room, step) => ticks.map((tick) => (tick === 0 ? "0" : say(tick, step))),
        ...(isLogarithmic
          ? { splits: (plot, place, low, high) => roundBetween(low, high) }
          : { incrs: stepsOf(finest) }),
      }),
    ],
    series: [{ label: "time" }, ...drawn],
    hooks: {
      ready: [(plot) => plot.over.addEventListener("click", () => plot.cursor.idx != null && onPoint(plot.cursor.idx))],
    },
  };
}

function Table({ title, series, times, grain, say, hrefAt }) {
  const places = times
    .map((_, index) => index)
    .filter((index) => series.some(({ values }) => values[index] != null && values[index] !== 0));
  return html`<details class="plot-table">
    <summary>as a table</summary>
    <table class="table">
      <caption class="unseen">${title}</caption>
      <thead>
        <tr>
          <th scope="col">${grain === "day" ? "day, UTC" : "from"}</th>
          ${series.map(({ name }) => html`<th scope="col" class="number">${name}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${places.slice(-TABLE_ROWS).map(
          (index) => html`<tr key=${index}>
            <th scope="row"><a href=${hrefAt(index)}>${timeOf(times[index], grain)}</a></th>
            ${series.map(({ values }) => html`<td class="number">${values[index] == null ? "" : say(values[index])}</td>`)}
          </tr>`,
        )}
      </tbody>
    </table>
  </details>`;
}

function Legend({ series }) {
  return html`<ul class="legend" aria-hidden="true">
    ${series.map(
      ({ name, shade }) => html`<li key=${name}>
        <span class="swatch" style=${{ background: `var(${shade})` }}></span>
        ${name}
      </li>`,
    )}
  </ul>`;
}

/** Give each series a colour: its own, else that of its place, which is the same in every plot. */
const coloured = (series) =>
  series.map((one, index) => {
    const place = (one.place ?? index) % SHADES.length;
    return { shade: SHADES[place], ...one, place };
  });

/**
 * `series` are `{name, values, shade, place}` over `times`, seconds since the epoch; `say` says a value; `filters` are those
 * of the traces that a point leads to, beside its time. `sayTick` says a round value, at a line of the plot, and is told
 * how far apart the lines are, which is so many times `finest`.
 */
export function Plot({
  title,
  times,
  series: given,
  say,
  sayTick = say,
  finest = 1,
  grain,
  seconds,
  filters,
  isBars = false,
  isLogarithmic = false,
}) {
  const box = useRef(null);
  const shade = theme.value;
  const series = useMemo(() => coloured(given), [given]);
  const hrefAt = (index) =>
    hrefOf([], { ...filters, since_ns: `${times[index]}000000000`, until_ns: `${times[index] + seconds}000000000` });
  const hasAny = series.length > 0 && times.length > 0;
  useEffect(() => {
    if (!hasAny) return undefined;
    const place = box.current;
    const drawn = isBars ? stacked(series) : series;
    const options = optionsFor({
      series: drawn,
      say: sayTick,
      finest,
      grain,
      seconds,
      width: place.clientWidth,
      onPoint: (index) => go(hrefAt(index)),
      isBars,
      isLogarithmic,
    });
    const plot = new uPlot(options, [times, ...drawn.map(({ values }) => values)], place);
    const observer = new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: HEIGHT }));
    observer.observe(place);
    return () => {
      observer.disconnect();
      plot.destroy();
    };
  }, [shade, times, series]);
  return html`<figure class="plot" aria-label=${title}>
    <figcaption><h2>${title}</h2></figcaption>
    ${
      hasAny
        ? html`<div class="plot-box" ref=${box} aria-hidden="true"></div>
          <${Legend} series=${series} />
          <${Table} title=${title} series=${series} times=${times} grain=${grain} say=${say} hrefAt=${hrefAt} />`
        : html`<p class="quiet plot-none">None in this time.</p>`
    }
  </figure>`;
}
