import { $, bytes, make, tell } from "./dom.js";

const WINDOW = 120; // seconds
const SVG = "http://www.w3.org/2000/svg";
const CHARTS = [
  { name: "cpu", title: "CPU", least: 10, show: (value) => `${value.toFixed(1)} %` },
  { name: "memory", title: "Memory", least: 1, show: bytes },
  { name: "streams", title: "Open streams", least: 4, show: (value) => String(Math.round(value)) },
];

export function metricsPanel(stream) {
  const samples = new Map(); // worker -> samples, oldest first
  const drawings = CHARTS.map((chart) => draw(chart));
  $("charts").append(...drawings.map((drawing) => drawing.element));

  const add = (sample) => {
    const mine = samples.get(sample.worker) ?? [];
    samples.set(sample.worker, mine);
    if (mine.length && mine.at(-1).number >= sample.number) return;
    mine.push(sample);
  };
  const show = () => {
    const now = Math.max(...[...samples.values()].map((mine) => mine.at(-1).at));
    for (const [worker, mine] of samples) {
      while (mine.length && mine[0].at < now - WINDOW) mine.shift();
      if (!mine.length) samples.delete(worker);
    }
    $("charts").dataset.samples = String([...samples.values()].reduce((sum, mine) => sum + mine.length, 0));
    drawings.forEach((drawing) => drawing.update([...samples.values()], now));
  };

  stream.on("sample", (sample) => {
    add(sample);
    show();
  });
  stream.on("metrics-so-far", ({ items }) => {
    if (!items.length) return;
    items.forEach(add);
    show();
  });
}

/** A chart of one figure: a line for each worker, their sum in words. */
function draw({ name, title, least, show }) {
  const figure = make("strong", {}, "–");
  const top = make("span", { class: "top" });
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WINDOW} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", title);
  const element = make(
    "figure",
    { class: `chart ${name}` },
    make("figcaption", {}, make("span", {}, title), figure),
    make("div", { class: "plot" }, svg, top, make("span", { class: "from" }, "2 min ago"), make("span", { class: "to" }, "now")),
  );

  const update = (workers, now) => {
    const most = Math.max(least, ...workers.flat().map((sample) => sample[name])) * 1.35;
    const x = (sample) => WINDOW - (now - sample.at);
    const y = (sample) => 100 - (100 * sample[name]) / most;
    const lines = workers.flatMap((mine) => stretches(mine));
    while (svg.childElementCount > 2 * lines.length) svg.lastChild.remove();
    while (svg.childElementCount < 2 * lines.length) svg.append(shape("area"), shape("line"));
    lines.forEach((line, index) => {
      const points = line.map((sample) => `${x(sample).toFixed(1)},${y(sample).toFixed(1)}`).join("L");
      const [first, last] = [x(line[0]).toFixed(1), x(line.at(-1)).toFixed(1)];
      svg.children[2 * index].setAttribute("d", `M${first},100L${points}L${last},100Z`);
      svg.children[2 * index + 1].setAttribute("d", `M${points}`);
    });
    const current = workers.map((mine) => mine.at(-1)).filter((sample) => now - sample.at < 5);
    const sum = show(current.reduce((total, sample) => total + sample[name], 0));
    tell(figure, sum);
    tell(top, show(most));
    svg.setAttribute("aria-label", `${title}: ${sum}`);
  };
  return { element, update };
}

function shape(kind) {
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("class", kind);
  return path;
}

/** Split samples where some are missing, so that the chart shows the hole. */
function stretches(samples) {
  const lines = [];
  for (const sample of samples) {
    if (!lines.length || sample.at - lines.at(-1).at(-1).at > 3) lines.push([]);
    lines.at(-1).push(sample);
  }
  return lines;
}
