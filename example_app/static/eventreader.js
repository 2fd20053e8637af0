// Reads a stream that fetch has opened, by the rules of the HTML standard (9.2.6): EventSource itself cannot POST.

export class EventReader {
  lastEventId = "";
  #decoder = new TextDecoder();
  #rest = "";
  #data = [];
  #type = "";
  #id = "";

  /** Give the events that a chunk of bytes completes: `{type, data, lastEventId}`. */
  *feed(chunk) {
    this.#rest += this.#decoder.decode(chunk, { stream: true });
    // A CR at the end may be half of a CR LF.
    const end = this.#rest.endsWith("\r") ? this.#rest.length - 1 : this.#rest.length;
    const lines = this.#rest.slice(0, end).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() + this.#rest.slice(end);
    for (const line of lines) {
      const event = line ? this.#field(line) : this.#dispatch();
      if (event) yield event;
    }
  }

  #field(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    return null;
  }

  #dispatch() {
    this.lastEventId = this.#id;
    const event = { type: this.#type || "message", data: this.#data.join("\n"), lastEventId: this.#id };
    const empty = this.#data.length === 0;
    this.#data = [];
    this.#type = "";
    return empty ? null : event;
  }
}
