// Opens the page's two streams and gives them to the panels.

import { answerPanel } from "./answers.js";
import { chatPanel } from "./chat.js";
import { clockPanel } from "./clock.js";
import { $, clockTime, count, make, tell } from "./dom.js";
import { inspectorPanel } from "./inspector.js";
import { jobsPanel } from "./jobs.js";
import { Ledger } from "./ledger.js";
import { LiveStream } from "./livestream.js";
import { metricsPanel } from "./metrics.js";
import { recovered, request } from "./requests.js";

const ASLEEP_AFTER = 10000;
const WORDS = { live: "live", silent: "silent", connecting: "connecting", reconnecting: "reconnecting", closed: "closed", asleep: "asleep" };
// A message that cannot be sent stays where it was written, and a question waits by itself; these buttons could do nothing.
const ORDERS = ":is(.rooms, .jobs, .inspector) button";
const ANIMALS = ["otter", "heron", "lynx", "wren", "marten", "ibex", "newt", "swift", "badger", "plover"];

const me = {
  client: Math.random().toString(36).slice(2, 12),
  room: "lobby",
  name: localStorage.getItem("name") || `${ANIMALS[Math.floor(Math.random() * ANIMALS.length)]}-${Math.floor(Math.random() * 90 + 10)}`,
};

const ledger = new Ledger();
const clock = new LiveStream("clock", { params: () => ({ client: me.client }) });
const live = new LiveStream("live", { params: () => ({ room: me.room, name: me.name, client: me.client }) });
const streams = { clock, live };

// Every broadcast event is counted before its panel sees it; one that the page has had goes no further.
const counted = {
  on: (name, handler) =>
    live.on(name, (data, event) => {
      if (name.endsWith("-so-far")) ledger.snapshot(data);
      else if (!ledger.note(data.channel, data.worker, data.number, data.born)) return;
      handler(data, event);
    }),
  restart: () => live.restart(),
  open: () => live.open(),
  addEventListener: (...parameters) => live.addEventListener(...parameters),
  get state() {
    return live.state;
  },
};

let noticeTimer = 0;
function notify(text) {
  tell($("notice"), text);
  $("notice").hidden = false;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => ($("notice").hidden = true), 8000);
}

clockPanel(clock, ledger);
const chat = chatPanel(counted, me);
jobsPanel(counted);
metricsPanel(counted);
inspectorPanel(counted, me, notify);
answerPanel(ledger);

const RESETS = {
  epoch: "The server was restarted and its memory is gone: what the page missed cannot be told. With Redis as the broker it could.",
};
live.on("stream-reset", ({ reason }) => {
  ledger.reset();
  notify(RESETS[reason] ?? `The page was away for longer than the server remembers (${reason}), and was brought up to date.`);
  chat.remark("The server no longer knows what was said before this line, or in between.");
});
for (const stream of Object.values(streams)) {
  stream.on("stream-rejected", () => notify("The server takes no streams now; the page comes back by itself."));
}

for (const [name, stream] of Object.entries(streams)) {
  const pills = [...document.querySelectorAll(`[data-stream="${name}"]`)];
  pills.forEach((pill) => pill.before(make("span", { class: "as-of" })));
  let opens = 0;
  const show = () => {
    const stale = stream.state !== "live";
    const heard = stale && stream.opens ? `as of ${clockTime((Date.now() - stream.silentFor) / 1000)}` : "";
    for (const pill of pills) {
      pill.dataset.state = stream.state;
      tell(pill, WORDS[stream.state]);
      tell(pill.previousElementSibling, heard);
      const panel = pill.closest(".panel");
      panel.classList.toggle("stale", stale);
      panel.querySelectorAll(ORDERS).forEach((button) => button.setAttribute("aria-disabled", String(!stream.connected)));
    }
    if (stream.state === "live" && stream.opens > opens) {
      recovered();
      if (opens) ledger.reconnected();
      opens = stream.opens;
    }
  };
  stream.addEventListener("state", show);
}

ledger.addEventListener("change", () => {
  for (const name of ["events", "gaps", "doubled", "resets", "reconnects"]) {
    const figure = $(`count-${name}`);
    tell(figure, count(ledger[name]));
    figure.parentElement.classList.toggle("bad", (name === "gaps" || name === "doubled") && ledger[name] > 0);
  }
});

$("name").addEventListener("change", () => localStorage.setItem("name", me.name));

// A page that nobody sees leaves its connections to those that are seen, and resumes by id.
let sleep = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(sleep);
  if (document.hidden) {
    sleep = setTimeout(() => Object.values(streams).forEach((stream) => stream.close("asleep")), ASLEEP_AFTER);
  } else {
    Object.values(streams).filter((stream) => stream.state === "asleep").forEach((stream) => stream.open());
  }
});
// What the system says of its network is a hint to look, no more: a server on this machine needs none.
for (const change of ["offline", "online"]) {
  addEventListener(change, () => Object.values(streams).filter((stream) => stream.state !== "asleep").forEach((stream) => stream.open()));
}
addEventListener("pagehide", () => Object.values(streams).forEach((stream) => stream.close("asleep")));
addEventListener("pageshow", (shown) => shown.persisted && Object.values(streams).forEach((stream) => stream.open()));

const theme = localStorage.getItem("theme") || "auto";
$("theme").value = theme;
document.documentElement.dataset.theme = theme;
$("theme").addEventListener("change", () => {
  document.documentElement.dataset.theme = $("theme").value;
  localStorage.setItem("theme", $("theme").value);
});

// Unlike one that is `disabled`, such a button keeps the focus of who has just pressed it.
document.addEventListener(
  "click",
  (clicked) => clicked.target.closest('[aria-disabled="true"]') && clicked.stopImmediatePropagation(),
  { capture: true },
);

document.addEventListener("click", async (clicked) => {
  const link = clicked.target.closest("a.source");
  if (!link || clicked.ctrlKey || clicked.metaKey || clicked.shiftKey) return;
  clicked.preventDefault();
  tell($("source-title"), link.textContent);
  tell($("source-text"), "");
  $("source").showModal();
  const response = await request(link.href, {}, $("source-problem")).catch(() => null);
  tell($("source-text"), response?.ok ? await response.text() : "The server cannot be reached.");
});

Object.values(streams).forEach((stream) => stream.open());
