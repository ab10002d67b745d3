// What is missing from the store, and why: events that were dropped, runs whose process died, by process.

import { back, hrefOf } from "../address.mjs";
import { useAnswer } from "../api.mjs";
import { html, useEffect } from "../html.mjs";
import { count, number, size } from "../figures.mjs";
import { useKeys } from "../keys.mjs";
import { info, onChanges, refreshInfo } from "../live.mjs";
import { Facts, Headings, Loading, Trouble, When } from "../parts/small.mjs";
import { reasonOf } from "../words.mjs";

const sumOf = (dropped) => Object.values(dropped).reduce((sum, dropped_) => sum + dropped_, 0);

/** Whether anything is missing, of an Info or a Process. */
export const hasLosses = (about) => about !== null && (about.lost_runs > 0 || sumOf(about.dropped) > 0);

function Summary({ about }) {
  if (!hasLosses(about)) return html`<p>Nothing is missing: no event was dropped, and no process died with a run open.</p>`;
  return html`<ul class="losses">
    ${
      about.lost_runs > 0 &&
      html`<li>
      <strong>${count(about.lost_runs, "run")}</strong>${" lost: the process died before they ended. "}
      <a href=${hrefOf([], { status: "lost" })}>Show them</a>
    </li>`
    }
    ${Object.entries(about.dropped).map(
      ([reason, events]) =>
        html`<li key=${reason}><strong>${count(events, "event")}</strong> dropped: ${reasonOf(reason)}.</li>`,
    )}
  </ul>`;
}

export function Losses() {
  const { data, previous, error, reload } = useAnswer("processes", { limit: 1000 });
  useEffect(() => {
    document.title = "Losses · tracebus";
    refreshInfo();
    return onChanges(() => {
      reload();
      refreshInfo();
    });
  }, []);
  useKeys({ Escape: () => back(hrefOf([])) });
  const processes = data ?? previous;
  const about = info.value;
  if (error) return html`<main class="view"><${Trouble} error=${error} /></main>`;
  if (!processes || !about) return html`<main class="view"><${Loading} /></main>`;
  return html`<main class="view page">
    <h1>Losses</h1>
    <${Summary} about=${about} />
    <p class="quiet">Secrets that were masked and values that were cut are told of on each trace and run.</p>
    <h2 class="label">processes</h2>
    <div class="table-box"><table class="table">
      <${Headings} texts=${["program", "project"]} numbers=${["pid", "began", "ended", "runs lost", "events dropped"]} />
      <tbody>
        ${processes.map(
          (process) => html`<tr key=${`${process.pid} ${process.opened_ns}`}>
            <th scope="row">${process.program}</th>
            <td>${process.project}</td>
            <td class="number">${process.pid}</td>
            <td class="number"><${When} ns=${process.opened_ns} /></td>
            <td class="number">${process.closed_ns === null ? "still there" : html`<${When} ns=${process.closed_ns} />`}</td>
            <td class="number failed">${process.lost_runs ? number(process.lost_runs) : ""}</td>
            <td class="number" title=${Object.entries(process.dropped)
              .map(([reason, events]) => `${number(events)}: ${reasonOf(reason)}`)
              .join("\n")}>
              ${sumOf(process.dropped) ? number(sumOf(process.dropped)) : ""}
            </td>
          </tr>`,
        )}
      </tbody>
    </table></div>
    <h2 class="label">store</h2>
    <p class="file">${about.path}</p>
    <${Facts}
      facts=${[
        ["size", size(about.size_bytes)],
        ["traces", number(about.traces)],
        ["runs", number(about.runs)],
        ["in flight", about.open_runs ? number(about.open_runs) : ""],
        ["oldest", about.oldest_ns !== null && html`<${When} ns=${about.oldest_ns} />`],
        ["tracebus", about.version],
      ]}
    />
  </main>`;
}
