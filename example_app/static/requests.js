// Asking the server for something, and telling in place when it refuses or is not there.

import { tell } from "./dom.js";

const OUTAGE = "The server cannot be reached. Try again when the page is live.";

/** Post JSON, and tell whether the server took it; `place` says why not, after the word for what has failed. */
export async function post(path, payload, place, failed = "") {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(payload) };
  say(place, "", "");
  try {
    const response = await fetch(new URL(path, document.baseURI), options);
    if (!response.ok) say(place, "refusal", failed + (await response.text()));
    return response.ok;
  } catch {
    say(place, "outage", failed + OUTAGE);
    return false;
  }
}

/** Take back what was said of an outage that is over. */
export function recovered() {
  for (const place of document.querySelectorAll('[data-problem="outage"]')) say(place, "", "");
}

function say(place, problem, text) {
  place.dataset.problem = problem;
  tell(place, text);
}
