// Where the page begins.

import * as address from "./address.mjs";
import * as clock from "./clock.mjs";
import { html, render } from "./html.mjs";
import * as keys from "./keys.mjs";
import * as live from "./live.mjs";
import { App } from "./shell.mjs";
import * as theme from "./theme.mjs";

for (const part of [theme, address, clock, keys, live]) part.listen();

const place = document.getElementById("app");
place.replaceChildren(); // what the server wrote for those without a script
render(html`<${App} />`, place);
