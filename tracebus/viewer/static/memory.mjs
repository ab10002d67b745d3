// What the browser remembers of a person's choices. A browser that forbids it forgets them, and nothing else happens.

const PREFIX = "tracebus.";

/** Return what was remembered under `name`, else `otherwise`. */
export function recall(name, otherwise) {
  try {
    const text = window.localStorage.getItem(PREFIX + name);
    return text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
}

/** Remember a JSON value; null forgets it. */
export function remember(name, value) {
  try {
    if (value === null) window.localStorage.removeItem(PREFIX + name);
    else window.localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // private mode, or a full disk
  }
}
