// Asking the server for something, and telling in place when it refuses, lets the user wait or is not there.

import { tell } from "./dom.js";

const PATIENCE = 3000;
const WAITING =
  "No answer yet. If three tabs of this page are open, their streams are all six connections that the browser opens to this host: close another tab.";
const OUTAGE = "The server cannot be reached. Try again when the page is live.";

/** Fetch; while the answer is long in coming, `place` says why that may be. */
export async function request(path, options, place) {
  const timer = setTimeout(() => say(place, "waiting", WAITING), PATIENCE);
  try {
    return await fetch(new URL(path, document.baseURI), options);
  } finally {
    clearTimeout(timer);
    if (place.dataset.problem === "waiting") say(place, "", "");
  }
}

/** Post JSON, and tell whether the server took it; `place` says why not, after the word for what has failed. */
export async function post(path, payload, place, failed = "") {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(payload) };
  say(place, "", "");
  try {
    const response = await request(path, options, place);
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
