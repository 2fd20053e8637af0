// Building elements. Text only ever becomes text: nothing here parses HTML.

export const $ = (id) => document.getElementById(id);

/** Make an element; children are elements, or become text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

/** Set the text of an element, if it is another. */
export function tell(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

/** Change what is in a box that scrolls, and keep the box at its end if it was there. */
export function follow(box, change) {
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  change();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

/** Add a child at the end of a list that scrolls, and drop what is too old. */
export function append(list, child, most = 300) {
  follow(list, () => {
    list.append(child);
    while (list.childElementCount > most) list.firstElementChild.remove();
  });
}

const numbers = new Intl.NumberFormat("en");
export const count = (number) => numbers.format(number);

export function bytes(number) {
  if (number < 1024) return `${number} B`;
  if (number < 1024 * 1024) return `${(number / 1024).toFixed(1)} KB`;
  return `${(number / 1024 / 1024).toFixed(1)} MB`;
}

export function span(seconds) {
  if (seconds < 60) return `${seconds.toFixed(0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

export const clockTime = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");
