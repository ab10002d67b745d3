// Tabs, as a keyboard and a screen reader know them.

import { html, useId, useRef } from "../html.mjs";

export function Tabs({ tabs, chosen, onChoose, label, children, beside }) {
  const id = useId();
  const list = useRef(null);
  const press = (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    const next = (tabs.findIndex(([name]) => name === chosen) + by + tabs.length) % tabs.length;
    onChoose(tabs[next][0]);
    list.current.children[next].focus();
  };
  const tab = ([name, title]) => html`<button
    key=${name}
    type="button"
    role="tab"
    id=${`${id}-${name}`}
    aria-selected=${name === chosen}
    aria-controls=${`${id}-panel`}
    tabindex=${name === chosen ? 0 : -1}
    onClick=${() => onChoose(name)}
  >
    ${title}
  </button>`;
  return html`<div class="tabs-line">
      <div class="tabs" role="tablist" aria-label=${label} ref=${list} onKeyDown=${press}>${tabs.map(tab)}</div>
      ${beside}
    </div>
    <div class="detail-body" role="tabpanel" id=${`${id}-panel`} aria-labelledby=${`${id}-${chosen}`}
      tabindex="0">${children}</div>`;
}
