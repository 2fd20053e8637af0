// Proves that nothing is lost or doubled: every event has a number within its channel and worker.

export class Ledger extends EventTarget {
  events = 0;
  gaps = 0;
  doubled = 0;
  resets = 0;
  reconnects = 0;
  #last = new Map(); // channel -> worker -> the last number
  #told = new Map(); // channel -> {seen: worker -> the number up to which a snapshot told, at: when}

  /** Count an event; false if the page has had it. */
  note(channel, worker, number, born = 0) {
    this.events += 1;
    const last = this.#last.get(channel) ?? new Map();
    // A worker that is younger than the snapshot begins at 1; of an older one nobody can tell what came before.
    const told = this.#told.get(channel);
    const before = last.get(worker) ?? (told && born > told.at ? 0 : number - 1);
    this.#last.set(channel, last);
    const fresh = number > before;
    if (fresh) {
      this.gaps += number - before - 1;
      last.set(worker, number);
    } else if (number > (told?.seen[worker] ?? 0)) {
      // What a snapshot told may follow once more: its position was taken first.
      this.doubled += 1;
    }
    this.changed();
    return fresh;
  }

  /** Take note of what a snapshot has told. */
  snapshot({ channel, seen, at }) {
    this.#told.set(channel, { seen, at });
    this.#last.set(channel, new Map(Object.entries(seen)));
  }

  /** Take note that the server said that events are missing; snapshots follow. */
  reset() {
    this.resets += 1;
    this.#last.clear();
    this.#told.clear();
    this.changed();
  }

  reconnected() {
    this.reconnects += 1;
    this.changed();
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}
