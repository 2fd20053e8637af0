// An EventSource that does not give up: it also comes back where the browser's own would not, and goes on by id.

const RETRY = 2000;

export class LiveStream extends EventTarget {
  state = "connecting";
  lastEventId = "";
  opens = 0;
  heardAt = performance.now();
  #path;
  #params;
  #silence;
  #handlers = new Map();
  #source = null;
  #timer = 0;

  /**
   * @param path where the stream is
   * @param params a function that gives the query
   * @param silence milliseconds without any event after which the connection is taken for dead
   */
  constructor(path, { params = () => ({}), silence = 15000 } = {}) {
    super();
    this.#path = path;
    this.#params = params;
    this.#silence = silence;
    setInterval(() => this.#watch(), 1000);
  }

  /** Whether there is a connection, be it a silent one. */
  get connected() {
    return this.state === "live" || this.state === "silent";
  }

  /** Milliseconds since anything was heard. */
  get silentFor() {
    return performance.now() - this.heardAt;
  }

  /** Call `handler(data, event)` for each event of a name. */
  on(name, handler) {
    this.#handlers.set(name, handler);
    return this;
  }

  open() {
    this.close();
    const url = new URL(this.#path, document.baseURI);
    for (const [name, value] of Object.entries(this.#params())) url.searchParams.set(name, value);
    // A new EventSource cannot send the header that the browser sends when it reconnects by itself.
    if (this.lastEventId) url.searchParams.set("lastEventId", this.lastEventId);
    const source = new EventSource(url);
    this.#source = source;
    this.#become("connecting");
    source.addEventListener("open", () => this.#opened());
    source.addEventListener("error", () => this.#failed(source));
    for (const [name, handler] of this.#handlers) {
      source.addEventListener(name, (event) => this.#heard(handler, event));
    }
  }

  /** Open another stream, which has other channels: it begins with its snapshot. */
  restart() {
    this.lastEventId = "";
    this.open();
  }

  close(state = "closed") {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
    this.#become(state);
  }

  #opened() {
    this.opens += 1;
    this.heardAt = performance.now();
    this.#become("live");
  }

  #heard(handler, event) {
    this.heardAt = performance.now();
    if (this.state === "silent") this.#become("live");
    if (event.lastEventId) this.lastEventId = event.lastEventId;
    handler(event.data ? parsed(event.data) : null, event);
  }

  #failed(source) {
    if (source !== this.#source) return;
    this.#become("reconnecting");
    if (source.readyState === EventSource.CLOSED) {
      // A status other than 200, such as a proxy's 502 while the server restarts: a browser would give up.
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.open(), RETRY * (0.75 + Math.random() / 2));
    }
  }

  #watch() {
    if (!this.connected) return;
    if (this.silentFor > this.#silence) this.open();
    else if (this.silentFor > 3500) this.#become("silent");
  }

  #become(state) {
    if (state === this.state) return;
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
}
