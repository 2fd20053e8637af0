import { $, clockTime, count, make, tell } from "./dom.js";

const BEATS = 42;

export function clockPanel(stream, ledger) {
  const counts = { ticks: 0, pings: 0, replayed: 0 };
  const bump = (name) => tell($(`clock-${name}`), count((counts[name] += 1)));
  const beat = (kind) => {
    const beats = $("clock-beats");
    beats.append(make("li", { class: kind }));
    while (beats.childElementCount > BEATS) beats.firstElementChild.remove();
  };

  stream.on("tick", ({ second, late }) => {
    if (!ledger.note("clock", "", second)) return;
    bump("ticks");
    const replayed = late > 1;
    if (replayed) bump("replayed");
    beat(replayed ? "replayed" : "tick");
    tell($("clock-time"), clockTime(second));
    // A sleep may end a moment before the second that it is for.
    tell($("clock-delay"), replayed ? `${late.toFixed(0)} s` : `${Math.max(0, Math.round(late * 1000))} ms`);
  });
  stream.on("ping", () => {
    bump("pings");
    beat("ping");
  });
  stream.addEventListener("state", () => {
    if (stream.state === "reconnecting") beat("lost");
  });
}
