// Statistics: how fast, how dear and how often wrong, over time and by model, name or kind. The address holds the choice.

import { address, back, go, hrefOf, withQuery } from "../address.mjs";
import { useAnswer } from "../api.mjs";
import { html, useEffect, useMemo, useRef } from "../html.mjs";
import { cost, costOf, costTick, duration, number, tick } from "../figures.mjs";
import { onChanges } from "../live.mjs";
import { Plot } from "../parts/plot.mjs";
import { Facts, Loading, Trouble } from "../parts/small.mjs";
import { useListKeys } from "../selecting.mjs";
import { bucketsOf, groupsOf, secondsOf, valuesOf } from "../series.mjs";
import { kindWord } from "../words.mjs";

const RANGES = [
  ["day", "24 hours", 86400, "hour"],
  ["week", "7 days", 7 * 86400, "hour"],
  ["month", "30 days", 30 * 86400, "day"],
  ["all", "all time", null, "day"],
];
const GROUPS = ["model", "name", "kind"];
const LINES = 5;
const REREAD_MS = 5000;
/** What is faster is drawn as this: a logarithmic scale has no zero. */
const FASTEST_NS = 1e5;
/** The smallest cost in dollars that there is room to say beside a plot. */
const FINEST_COST = 1e-5;
const EMPTY_NAMES = { model: "no model", name: "no name", kind: "no kind" };

function Picker({ label, options, chosen, field }) {
  return html`<span class="picker" role="group" aria-label=${label}>
    ${options.map(
      ([value, words]) => html`<button
        key=${value}
        type="button"
        class="faint"
        aria-pressed=${value === chosen}
        onClick=${() => go(withQuery({ [field]: value }), { replace: true })}
      >
        ${words}
      </button>`,
    )}
  </span>`;
}

const nameOf = (by, key) => (key == null ? EMPTY_NAMES[by] : by === "kind" ? kindWord(key) : key);

function useTimes(range) {
  const [, , seconds, grain] = range;
  // To the hour, so that the question stays the same while it is asked again.
  const begin = seconds === null ? null : Math.floor(Date.now() / 3.6e6) * 3600 - seconds;
  return { begin, grain, since_ns: begin === null ? null : `${begin}000000000` };
}

/** How many have failed, and their share: `14 · 5.4 %`. */
function failuresOf({ runs, errors }) {
  const share = (errors / runs) * 100;
  return errors ? `${number(errors)} · ${share.toFixed(share < 10 ? 1 : 0)} %` : "";
}

function Groups({ rows, by, only, table }) {
  const pick = (key) => go(withQuery({ only: key === only ? null : key }), { replace: true });
  return html`<div class="table-box"><table class="table statistics" ref=${table}>
    <thead>
      <tr>
        <th scope="col">${by}</th>
        ${["runs", "failed", "p50", "p95", "p99", "first token p50", "p95", "tokens in", "out", "cost"].map(
          (head) => html`<th scope="col" class="number">${head}</th>`,
        )}
      </tr>
    </thead>
    <tbody>
      ${rows.map((row) => {
        const key = row[by];
        return html`<tr key=${key} class=${key != null && key === only ? "chosen" : ""}>
          <th scope="row">
            ${
              key == null
                ? html`<span class="quiet">${nameOf(by, key)}</span>`
                : html`<button type="button" class="faint name" aria-pressed=${key === only}
                  onClick=${() => pick(key)}>${nameOf(by, key)}</button>`
            }
          </th>
          <td class="number">${number(row.runs)}</td>
          <td class="number failed">${failuresOf(row)}</td>
          <td class="number">${duration(row.p50_ns)}</td>
          <td class="number">${duration(row.p95_ns)}</td>
          <td class="number">${duration(row.p99_ns)}</td>
          <td class="number">${duration(row.first_token_p50_ns)}</td>
          <td class="number">${duration(row.first_token_p95_ns)}</td>
          <td class="number">${row.input_tokens ? number(row.input_tokens) : ""}</td>
          <td class="number">${row.output_tokens ? number(row.output_tokens) : ""}</td>
          <td class="number">${costOf(row)}</td>
        </tr>`;
      })}
    </tbody>
  </table></div>`;
}

const lasting = (field) => (one) => (one[field] == null ? null : Math.max(one[field], FASTEST_NS));

function Summary({ of }) {
  if (!of) return null;
  return html`<${Facts}
    facts=${[
      ["runs", number(of.runs)],
      ["failed", of.errors > 0 && html`<span class="failed">${failuresOf(of)}</span>`],
      ["p50", duration(of.p50_ns)],
      ["p95", duration(of.p95_ns)],
      ["first token p50", duration(of.first_token_p50_ns)],
      ["tokens in", of.input_tokens ? number(of.input_tokens) : ""],
      ["tokens out", of.output_tokens ? number(of.output_tokens) : ""],
      ["cost", costOf(of)],
    ]}
  />`;
}

function Plots({ all, grouped, rows, by, only, times, grain }) {
  const seconds = secondsOf(grain);
  const filters = only === null ? {} : { [by]: only };
  const shared = { times, grain, seconds, filters };
  const percentiles = useMemo(
    () =>
      [
        ["p50", "p50_ns", "--line-1"],
        ["p95", "p95_ns", "--line-2"],
        ["p99", "p99_ns", "--line-3"],
      ].map(([name, field, shade]) => ({ name, shade, values: valuesOf(all, times, lasting(field), null) })),
    [all, times],
  );
  const places = useMemo(
    () => new Map(rows.filter((row) => row.total_tokens).map((row, index) => [row[by], index])),
    [rows, by],
  );
  const series = (read, absent) =>
    groupsOf(grouped, by, read, LINES).map(({ key, points }) => ({
      name: nameOf(by, key),
      place: places.get(key),
      values: valuesOf(points, times, read, absent),
    }));
  const tokens = useMemo(() => series((one) => one.total_tokens, 0), [grouped, times, places]);
  const costs = useMemo(() => series((one) => one.cost, 0), [grouped, times, places]);
  const errors = useMemo(
    () =>
      all.some(({ statistic }) => statistic.errors)
        ? [{ name: "failed", shade: "--red", values: valuesOf(all, times, (one) => one.errors, 0) }]
        : [],
    [all, times],
  );
  return html`<div class="plots">
    <${Plot} title="Latency" ...${shared} series=${percentiles} say=${duration} sayTick=${tick}
      isLogarithmic=${true} />
    <${Plot} title=${`Tokens by ${by}`} ...${shared} series=${tokens} say=${number} isBars=${true} />
    <${Plot} title=${`Cost by ${by}`} ...${shared} series=${costs} say=${cost} sayTick=${costTick}
      finest=${FINEST_COST} isBars=${true} />
    <${Plot} title="Failed runs" ...${shared} filters=${{ ...filters, status: "error" }} series=${errors} say=${number}
      isBars=${true} />
  </div>`;
}

export function Statistics() {
  const { query } = address.value;
  const range = RANGES.find(([name]) => name === query.get("range")) ?? RANGES[1];
  const by = GROUPS.includes(query.get("by")) ? query.get("by") : "model";
  const only = query.get("only");
  const { begin, grain, since_ns } = useTimes(range);
  const chosen = only === null ? {} : { [by]: only };
  const groups = useAnswer("statistics", { by, since_ns });
  const total = useAnswer("statistics", { since_ns, ...chosen });
  const all = useAnswer("points", { grain, since_ns, ...chosen });
  const grouped = useAnswer("points", { by, grain, since_ns, ...chosen });
  const table = useRef(null);
  useListKeys(table, { Escape: () => back(hrefOf([])) });

  useEffect(() => {
    document.title = "Statistics · tracebus";
    let timer = 0;
    const stop = onChanges(() => {
      timer ||= setTimeout(() => {
        timer = 0;
        for (const one of [groups, total, all, grouped]) one.reload();
      }, REREAD_MS);
    });
    return () => {
      stop();
      clearTimeout(timer);
    };
  }, []);

  const asked = [groups, total, all, grouped];
  const error = asked.find((one) => one.error)?.error;
  const [rows, sums, points, parts] = asked.map(({ data, previous }) => data ?? previous);
  const times = useMemo(() => bucketsOf(points ?? [], grain, begin), [points, grain, begin]);
  return html`<main class="view page">
    <header class="page-head">
      <h1>Statistics</h1>
      <${Picker} label="Time" options=${RANGES} chosen=${range[0]} field="range" />
      <${Picker} label="Group by" options=${GROUPS.map((one) => [one, `by ${one}`])} chosen=${by} field="by" />
      ${
        only !== null &&
        html`<button type="button" class="chip" aria-label=${`Show all, not only ${only}`}
          onClick=${() => go(withQuery({ only: null }), { replace: true })}>
        only ${nameOf(by, only)} <span aria-hidden="true">×</span>
      </button>`
      }
      ${grain === "day" && html`<span class="quiet">days are of UTC</span>`}
    </header>
    ${
      error
        ? html`<${Trouble} error=${error} />`
        : !rows || !sums || !points || !parts
          ? html`<${Loading} />`
          : rows.length === 0
            ? html`<div class="notice"><p class="notice-head">No runs have ended in this time.</p></div>`
            : html`<${Summary} of=${sums[0]} />
              <${Plots} all=${points} grouped=${parts} rows=${rows} by=${by} only=${only} times=${times} grain=${grain} />
              <${Groups} rows=${rows} by=${by} only=${only} table=${table} />`
    }
  </main>`;
}
