import { $, make, tell } from "./dom.js";
import { post } from "./requests.js";

const WORDS = { running: "running", done: "done", failed: "failed", cancelled: "cancelled", lost: "lost with the server" };

export function jobsPanel(stream) {
  const rows = new Map();

  const row = (name) => {
    if (!rows.has(name)) {
      const element = make("article", { class: "job", "data-job": name });
      rows.set(name, { element, job: null });
      $("jobs").querySelector(".empty")?.remove();
      $("jobs").prepend(element);
      while ($("jobs").childElementCount > 30) {
        rows.delete($("jobs").lastElementChild.dataset.job);
        $("jobs").lastElementChild.remove();
      }
    }
    return rows.get(name);
  };

  const show = (job, cancel = true) => {
    const { element, job: before } = row(job.job);
    rows.get(job.job).job = job;
    element.dataset.state = job.state;
    if (before?.state === job.state && element.childElementCount) {
      return Object.entries(job.steps).forEach(([step, percent]) => advance(element, step, percent));
    }
    element.replaceChildren(
      make("h3", {}, job.title ?? `job ${job.job}`, make("span", { class: "outcome" }, WORDS[job.state])),
      ...Object.keys(job.steps).map((step) =>
        make(
          "label",
          { class: "step", "data-step": step },
          make("span", {}, step),
          make("progress", { max: 100, value: 0 }),
          make("output", {}, "0 %"),
        ),
      ),
    );
    Object.entries(job.steps).forEach(([step, percent]) => advance(element, step, percent));
    if (job.error) element.append(make("pre", { class: "error", tabindex: 0 }, job.error));
    if (job.state === "running" && cancel) {
      element.firstElementChild.append(
        make("button", { type: "button", onclick: () => ask("chaos/order", { order: "cancel", target: job.job }) }, "Cancel"),
      );
    }
  };

  stream.on("job", (job) => show(job));
  stream.on("jobs-so-far", ({ items }) => {
    const told = new Set(items.map((job) => job.job));
    for (const { job } of rows.values()) {
      if (job.state === "running" && !told.has(job.job) && !job.title) show({ ...job, state: "lost" });
    }
    items.forEach((job) => show(job));
  });

  const ask = (path, payload) => post(path, payload, $("job-problem"));
  $("job-done").addEventListener("click", () => ask("job", { outcome: "done" }));
  $("job-failed").addEventListener("click", () => ask("job", { outcome: "failed" }));

  let failures = 0;
  $("stream-fails").addEventListener("click", () => {
    const job = { job: `fails-${(failures += 1)}`, title: "stream /fails", state: "running", steps: { stream: 0 } };
    const source = new EventSource(new URL("fails", document.baseURI));
    show(job, false);
    source.addEventListener("progress", (event) => show({ ...job, steps: { stream: JSON.parse(event.data).percent } }, false));
    source.addEventListener("stream-error", (event) => {
      source.close();
      show({ ...rows.get(job.job).job, state: "failed", error: event.data });
    });
  });
}

function advance(element, step, percent) {
  const line = element.querySelector(`[data-step="${CSS.escape(step)}"]`);
  line.querySelector("progress").value = percent;
  tell(line.querySelector("output"), `${percent} %`);
}
