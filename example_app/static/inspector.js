import { $, append, bytes, clockTime, count, follow, make, span, tell } from "./dom.js";
import { post } from "./requests.js";

const FRESH = 5; // seconds that a worker's report counts
const BELATED = 2000; // milliseconds after an order in which a report may be older than it

export function inspectorPanel(stream, me, notify) {
  let reports = new Map(); // worker -> its report

  const command = (order, target = "") => post("chaos/order", { order, target }, $("chaos-problem"));

  const showAll = () => {
    const newest = Math.max(...[...reports.values()].map((report) => report.at));
    reports = new Map([...reports].filter(([, report]) => newest - report.at < FRESH));
    showStreams([...reports.values()].flatMap((report) => report.open));
    showEnds([...reports.values()].flatMap((report) => report.ends));
  };

  const rows = new Map();
  const showStreams = (streams) => {
    for (const facts of streams) {
      if (!rows.has(facts.id)) rows.set(facts.id, streamRow(facts, command, showStalled));
      rows.get(facts.id).update(facts, facts.client === me.client);
    }
    const open = new Set(streams.map((facts) => facts.id));
    for (const [id, row] of rows) {
      if (!open.has(id)) {
        row.element.remove();
        rows.delete(id);
      }
    }
    streams.forEach(({ id }, place) => {
      const there = $("streams").children[place];
      if (there !== rows.get(id).element) $("streams").insertBefore(rows.get(id).element, there ?? null);
    });
    tell($("streams-caption"), `${streams.length} open ${streams.length === 1 ? "stream" : "streams"}`);
    showStalled();
  };

  const showEnds = (ends) => {
    if (!ends.length) return;
    ends.sort((one, other) => one.ended - other.ended);
    const lines = ends.map((end) =>
      make(
        "li",
        {},
        make("time", {}, clockTime(end.ended)),
        make("b", { "data-reason": end.reason }, end.reason),
        make("span", {}, `${end.endpoint} after ${span(end.age)}, ${count(end.events)} events, ${bytes(end.bytes)}`),
      ),
    );
    follow($("ends").parentElement, () => $("ends").replaceChildren(...lines));
  };

  const showLine = ({ at, event, facts }) =>
    append(
      $("log"),
      make(
        "p",
        { "data-event": event },
        make("time", {}, clockTime(at)),
        make("b", {}, event),
        ...Object.entries(facts).map(([name, value]) => make("span", {}, `${name}=${value}`)),
      ),
    );

  stream.on("streams", (report) => {
    reports.set(report.worker, report);
    showAll();
  });
  stream.on("streams-so-far", ({ items }) => {
    reports = new Map(items.map((report) => [report.worker, report]));
    if (items.length) showAll();
  });
  stream.on("log", showLine);
  stream.on("log-so-far", ({ items }) => {
    $("log").replaceChildren();
    items.forEach(showLine);
  });

  let flood = 0;
  stream.on("flood", ({ drop, of }) => {
    flood = drop === 1 ? 1 : flood + 1;
    if (drop === of || flood % 50 === 0) tell($("flooded"), `${count(flood)} of ${count(of)} arrived`);
  });
  stream.on("flood-so-far", () => {
    flood = 0;
  });

  // The page's last stream may still be listed beside this one.
  const live = () =>
    [...rows.values()]
      .filter((row) => row.own && row.endpoint === "Live")
      .sort((one, other) => one.age - other.age)[0];
  const showStalled = () =>
    tell(document.querySelector("[data-chaos=stall]"), `${live()?.held ? "Release" : "Stall"} the live stream`);
  for (const button of document.querySelectorAll("[data-chaos]")) {
    button.addEventListener("click", () => {
      const order = button.dataset.chaos;
      if (order === "drain") return command("drain");
      if (!live()) return notify("This page's stream is not in the inspector yet.");
      return order === "drop" ? live().drop() : live().toggle();
    });
  }
  $("flood").addEventListener("click", async () => {
    tell($("flooded"), "flooding");
    if (!(await post("chaos/flood", {}, $("chaos-problem")))) tell($("flooded"), "");
  });
  // What stalls a page ends with its connection, and the page hears no report of it.
  stream.addEventListener("state", () => stream.state === "reconnecting" && live()?.hold(false));
}

function streamRow({ id, endpoint }, command, changed) {
  const name = `${endpoint} ${id.slice(0, 6)}`;
  const cells = Object.fromEntries(["age", "events", "bytes", "lag"].map((each) => [each, make("td", { class: "n" })]));
  const badge = make("span", { class: "badge" });
  const stall = make("button", { type: "button", onclick: () => row.toggle() });
  const drop = make("button", { type: "button", "aria-label": `Drop ${name}`, onclick: () => row.drop() }, "Drop");
  const element = make(
    "tr",
    { "data-stream-id": id, "data-endpoint": endpoint },
    make("th", { scope: "row" }, make("code", {}, id.slice(0, 6)), badge),
    make("td", {}, endpoint),
    ...Object.values(cells),
    make("td", { class: "break" }, stall, drop),
  );
  let orderedAt = -BELATED;
  const row = { element, endpoint, age: 0, own: false, held: false };

  const show = () => {
    element.classList.toggle("stalled", row.held);
    tell(badge, [row.own && "this page", row.held && "stalled"].filter(Boolean).join(" · "));
    tell(stall, row.held ? "Release" : "Stall");
    stall.setAttribute("aria-label", `${row.held ? "Release" : "Stall"} ${name}`);
  };
  row.update = (facts, own) => {
    if (performance.now() - orderedAt > BELATED) row.held = facts.stalled;
    row.own = own;
    row.age = facts.age;
    show();
    tell(cells.age, span(facts.age));
    tell(cells.events, count(facts.events));
    tell(cells.bytes, bytes(facts.bytes));
    tell(cells.lag, facts.lag ? `${facts.lag.toFixed(1)} s` : "none");
  };
  row.hold = (held) => {
    orderedAt = performance.now();
    row.held = held;
    show();
    changed();
  };
  row.toggle = async () => {
    const held = !row.held;
    if (await command(held ? "stall" : "release", id)) row.hold(held);
  };
  row.drop = () => command("drop", id);
  return row;
}
