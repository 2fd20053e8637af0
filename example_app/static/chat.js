import { $, append, clockTime, make, tell } from "./dom.js";
import { post } from "./requests.js";

const ROOMS = ["lobby", "kitchen", "ideas"];
const FRESH = 12; // seconds that a worker's word on who is present counts

export function chatPanel(stream, me) {
  const shown = new Set();
  let present = new Map(); // worker -> {people, at}

  const show = (said) => {
    if (shown.has(said.message)) return;
    shown.add(said.message);
    const own = said.name === me.name;
    append(
      $("messages"),
      make(
        "div",
        { class: own ? "message own" : "message", "data-message": said.message },
        make("span", { class: "who" }, said.name),
        make("time", {}, clockTime(said.at).slice(0, 5)),
        make("p", {}, said.text),
      ),
    );
  };
  const remark = (text) => append($("messages"), make("p", { class: "remark" }, text));
  const showPeople = () => {
    const newest = Math.max(...[...present.values()].map((said) => said.at));
    const people = [...present.values()].filter((said) => newest - said.at < FRESH).flatMap((said) => said.people);
    tell($("people"), people.length ? `${people.length} here: ${people.join(", ")}` : "Nobody is here.");
  };

  stream.on("chat", (said) => show(said));
  stream.on("presence", (said) => {
    present.set(said.worker, said);
    showPeople();
  });
  stream.on("chat-so-far", ({ items }) => {
    present = new Map(items.filter((item) => item.people).map((item) => [item.worker, item]));
    items.filter((item) => item.text).forEach(show);
    showPeople();
  });

  const enter = (room) => {
    me.room = room;
    for (const button of $("rooms").children) {
      button.setAttribute("aria-pressed", String(button.dataset.room === room));
    }
    shown.clear();
    $("messages").replaceChildren();
    stream.restart();
  };
  $("rooms").append(
    ...ROOMS.map((room) =>
      make(
        "button",
        { type: "button", "data-room": room, "aria-pressed": String(room === me.room), onclick: () => enter(room) },
        `#${room}`,
      ),
    ),
  );

  $("name").value = me.name;
  $("name").addEventListener("change", () => {
    me.name = $("name").value.trim() || me.name;
    $("name").value = me.name;
    stream.open();
  });
  $("say").addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    const text = $("text").value;
    const sent = await post("say", { room: me.room, name: me.name, text }, $("say-problem"), "Not sent. ");
    if (sent && $("text").value === text) $("text").value = "";
  });
  return { remark };
}
