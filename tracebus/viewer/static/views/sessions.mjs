// Conversations: all of them, the one that went on last first; and one, as what was asked and answered.

import { back, hrefOf, runHref, sessionHref, traceHref } from "../address.mjs";
import { pathOf, useAnswer } from "../api.mjs";
import { html, useEffect, useRef, useState } from "../html.mjs";
import { conversationOf } from "../conversation.mjs";
import { costOf, count, duration, number } from "../figures.mjs";
import { useKeys } from "../keys.mjs";
import { onChanges } from "../live.mjs";
import { Prose } from "../parts/prose.mjs";
import { Headings, Lasting, Loading, Status, Trouble, When } from "../parts/small.mjs";
import { useListKeys } from "../selecting.mjs";
import { isNarrow } from "../width.mjs";

function More({ what, onMore }) {
  return html`<p><button type="button" class="button" onClick=${onMore}>${what}</button></p>`;
}

/** One session: in a line below headings, or where there is no room for these in two, of which each number says what of. */
function Row({ session }) {
  const said = isNarrow.value ? count : number;
  return html`<tr>
    <th scope="row" class="in-session"><a href=${sessionHref(session.session_id)}>${session.session_id}</a></th>
    <td class="in-user">${session.user_id ?? ""}</td>
    <td class="number in-turns">${said(session.traces, "turn")}</td>
    <td class="number in-failed failed">${session.errors ? said(session.errors, "failed run") : ""}</td>
    <td class="number in-tokens">${session.total_tokens ? said(session.total_tokens, "token") : ""}</td>
    <td class="number in-cost">${costOf(session)}</td>
    <td class="number in-last"><${When} ns=${session.last_ns} /></td>
  </tr>`;
}

export function Sessions() {
  const [limit, setLimit] = useState(100);
  const { data, previous, error, reload } = useAnswer("sessions", { limit });
  const table = useRef(null);
  useEffect(() => {
    document.title = "Sessions · tracebus";
    return onChanges(({ traces, is_complete }) => {
      if (!is_complete || traces.some((trace) => trace.session_id !== null)) reload();
    });
  }, []);
  useListKeys(table, { Escape: () => back(hrefOf([])) });
  if (error) return html`<main class="view"><${Trouble} error=${error} /></main>`;
  const page = data ?? previous;
  if (!page) return html`<main class="view"><${Loading} /></main>`;
  return html`<main class="view page">
    <h1>Sessions</h1>
    ${
      page.items.length === 0
        ? html`<div class="notice">
          <p class="notice-head">No conversation is here yet.</p>
          <p>Give the runs of one a name, and they are shown together: <code>with scope(session_id="s-1"): …</code></p>
        </div>`
        : html`<div class="table-box"><table class="table sessions" ref=${table}>
          ${
            !isNarrow.value &&
            html`<${Headings} texts=${["session", "user"]} numbers=${["turns", "failed runs", "tokens", "cost", "last"]} />`
          }
          <tbody>${page.items.map((session) => html`<${Row} key=${session.session_id} session=${session} />`)}</tbody>
        </table></div>`
    }
    ${page.after !== null && html`<${More} what="more sessions" onMore=${() => setLimit(limit + 500)} />`}
  </main>`;
}

/** What somebody asked, of inputs of any form. */
function questionOf({ run, body }) {
  const { messages } = conversationOf(body.inputs, null);
  const asked = messages.findLast(({ role }) => role === "user" || role === "human" || role === "message") ?? messages.at(-1);
  if (asked?.text) return asked.text;
  if (body.inputs !== null && typeof body.inputs === "object") {
    const texts = Object.values(body.inputs).filter((value) => typeof value === "string");
    if (texts.length) return texts.join("\n\n");
  }
  return run.input;
}

function answerOf({ run, body }) {
  const output = body.output ?? body.streamed;
  if (typeof output === "string") return output;
  const { messages } = conversationOf(null, output);
  return (
    messages
      .map(({ text }) => text)
      .filter(Boolean)
      .join("\n\n") || run.output
  );
}

function Bubble({ who, text, shade = "" }) {
  return html`<div class=${`bubble ${shade}`}><span class="role">${who}</span><${Prose} text=${text} /></div>`;
}

function Turn({ turn }) {
  const { trace, root } = turn;
  const answer = answerOf(root);
  const question = questionOf(root);
  return html`<li class="turn">
    <div class="turn-line">
      <a href=${traceHref(trace.trace_id)}><${Status} status=${trace.status} /> ${trace.name ?? "trace"}</a>
      <span class="quiet"><${Lasting} of=${trace} /></span>
      ${
        trace.first_token_ns != null &&
        html`<span class="quiet wide-only">first token ${duration(trace.first_token_ns)}</span>`
      }
      ${trace.tokens.total != null && html`<span class="quiet">${number(trace.tokens.total)} tokens</span>`}
      <span class="quiet">${costOf(trace)}</span>
      <span class="quiet"><${When} ns=${trace.started_ns} /></span>
    </div>
    ${question != null && html`<${Bubble} shade="asked" who=${trace.user_id ?? "user"} text=${question} />`}
    ${answer != null && answer !== "" && html`<${Bubble} who="answer" text=${answer} />`}
    ${
      root.body.error &&
      html`<p class="failed turn-error">
        <a href=${runHref(trace.trace_id, root.run.span_id)}>✗ ${root.body.error.type}: ${root.body.error.message}</a>
      </p>`
    }
  </li>`;
}

const PAGE = 50;

export function Session({ session }) {
  const path = pathOf("sessions", session);
  const [limit, setLimit] = useState(PAGE);
  const { data, previous, error, reload } = useAnswer(path, { limit });
  useEffect(() => {
    document.title = `${session} · tracebus`;
    return onChanges(({ traces, is_complete, removed }) => {
      if (!is_complete || removed.length || traces.some((trace) => trace.session_id === session)) reload();
    });
  }, [session]);
  useKeys({ Escape: () => back(hrefOf(["sessions"])) });
  if (error) {
    return html`<main class="view">
      <${Trouble} error=${error}><p><a href=${hrefOf(["sessions"])}>All sessions</a></p><//>
    </main>`;
  }
  const told = data ?? previous;
  if (!told) return html`<main class="view"><${Loading} /></main>`;
  const { session: about, traces } = told;
  return html`<main class="view page conversation">
    <header class="view-head">
      <button type="button" class="faint back" aria-label="Back to the sessions"
        onClick=${() => back(hrefOf(["sessions"]))}>←</button>
      <h1>${about.session_id}</h1>
      <p class="fact-line">
        ${
          about.user_id != null &&
          html`<span><a href=${hrefOf([], { user_id: about.user_id })}>user ${about.user_id}</a></span>`
        }
        <span>${count(about.traces, "turn")}</span>
        <span>${about.total_tokens ? `${number(about.total_tokens)} tokens` : ""}</span>
        <span>${costOf(about)}</span>
        <span><a href=${hrefOf([], { session_id: about.session_id })}>as a list</a></span>
      </p>
    </header>
    <ol class="turns">
      ${traces.items.map((turn) => html`<${Turn} key=${turn.trace.trace_id} turn=${turn} />`)}
    </ol>
    ${traces.after !== null && html`<${More} what="later turns" onMore=${() => setLimit(limit + PAGE)} />`}
  </main>`;
}
