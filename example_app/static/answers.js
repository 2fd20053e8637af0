import { $, count, tell } from "./dom.js";
import { EventReader } from "./eventreader.js";
import { request } from "./requests.js";

const RETRY = 1000;

export function answerPanel(ledger) {
  let asked = null; // {question, run, last, text, controller}
  let runs = 0;

  const become = (state) => {
    $("answer-state").dataset.state = state;
    tell($("answer-state"), state);
    $("ask-button").disabled = asked !== null;
    $("stop").disabled = asked === null;
  };
  const finish = (state, verdict) => {
    asked = null;
    become(state);
    tell($("verdict"), verdict);
  };
  const show = (word, number) => {
    if (!ledger.note("answer", asked.run, number)) return;
    asked.last = number;
    asked.text.appendData(word);
    $("answer").scrollTop = $("answer").scrollHeight;
  };

  const ask = async (question) => {
    const text = document.createTextNode("");
    const mine = { question, run: (runs += 1), last: 0, text, controller: new AbortController() };
    asked = mine;
    ledger.snapshot({ channel: "answer", seen: { [mine.run]: 0 }, at: 0 });
    $("answer").replaceChildren(text);
    tell($("verdict"), "");
    become("connecting");
    let connections = 0;
    const opened = () => {
      connections += 1;
      become("live");
    };
    for (;;) {
      const outcome = await read(mine, opened, show);
      if (mine.controller.signal.aborted) return finish("stopped", `Stopped after ${count(text.length)} characters.`);
      if (outcome.refused) return finish("refused", outcome.refused);
      if (outcome.done) return finish(...verdict([...text.data].length, outcome.done, connections - 1));
      become("reconnecting");
      await pause(RETRY, mine.controller.signal);
    }
  };

  $("ask").addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    if (asked === null) ask($("question").value);
  });
  $("stop").addEventListener("click", () => asked?.controller.abort());
}

/** Read one connection of an answer; tell whether it is `done`, was `refused`, or neither: it broke. */
async function read({ question, last, controller }, opened, show) {
  const headers = { Accept: "text/event-stream", "Content-Type": "application/json" };
  if (last) headers["Last-Event-ID"] = String(last);
  try {
    const options = { method: "POST", headers, body: JSON.stringify({ question }), signal: controller.signal };
    const response = await request("answer", options, $("verdict"));
    if (response.status >= 500) return {};
    if (!response.ok) return { refused: await response.text() };
    opened();
    return await readWords(response.body.getReader(), show);
  } catch (error) {
    if (error.name === "AbortError" || error instanceof TypeError) return {};
    throw error;
  }
}

async function readWords(body, show) {
  const reader = new EventReader();
  for (;;) {
    const { value, done } = await body.read();
    if (done) return {};
    for (const event of reader.feed(value)) {
      if (event.type === "done") return { done: JSON.parse(event.data) };
      if (event.type === "token") show(event.data, Number(event.lastEventId));
    }
  }
}

function verdict(characters, done, resumed) {
  const intact = characters === done.characters;
  const again = resumed ? `, resumed ${resumed} ×` : "";
  const figures = `${count(characters)} of ${count(done.characters)} characters, ${count(done.tokens)} words${again}`;
  return intact ? ["done", `${figures}: intact.`] : ["damaged", `${figures}: damaged.`];
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => resolve(clearTimeout(timer)), { once: true });
  });
}
