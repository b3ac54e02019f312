// Frames from the node: fetched once, kept within a bound, the next ones ahead of the reader.

import { LONG_SECONDS, request } from "../request.js";

const TYPES = { uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array, float32: Float32Array };
const MOST_BYTES = 600 * 1024 * 1024;
const AT_ONCE = 4;
const AHEAD = 12;
const BEHIND = 4;

/** A frame: what it is, and its values in `unit`, row by row. */
export class Frame {
  constructor(described, buffer) {
    Object.assign(this, described);
    this.values = new TYPES[described.type](buffer);
    const expected = this.rows * this.columns * this.samples;
    if (this.values.length !== expected) {
      throw new Error(`${this.values.length} values came, ${expected} were promised`);
    }
  }

  /** The value at a pixel, or null outside; colours as [red, green, blue]. */
  at(row, column) {
    if (row < 0 || column < 0 || row >= this.rows || column >= this.columns) return null;
    const place = (row * this.columns + column) * this.samples;
    return this.samples === 1 ? this.values[place] : [...this.values.subarray(place, place + 3)];
  }

  /** Lowest and highest value, and the bounds of all but half a percent at each end. */
  get range() {
    this.measured ??= measure(this.values);
    return this.measured;
  }
}

function measure(values) {
  const step = Math.max(1, Math.floor(values.length / 20000));
  const some = new values.constructor(Math.ceil(values.length / step));
  for (let i = 0; i < some.length; i += 1) some[i] = values[i * step];
  some.sort(); // by number, as typed arrays do
  const part = (share) => some[Math.min(some.length - 1, Math.floor(share * some.length))];
  return { low: some[0], high: some[some.length - 1], most: [part(0.005), part(0.995)] };
}

export class Frames extends EventTarget {
  /** `template` is an address with {frame}; `count` is the number of frames. */
  constructor(template, count) {
    super();
    this.template = template;
    this.count = count;
    this.kept = new Map();
    this.bytes = 0;
    this.waiting = new Map();
    this.wanted = [];
    this.running = 0;
  }

  /** The frame if it is here already. */
  peek(index) {
    const frame = this.kept.get(index);
    if (frame) {
      this.kept.delete(index);
      this.kept.set(index, frame);
    }
    return frame;
  }

  /** The frame, fetched before everything else that waits. */
  get(index) {
    const frame = this.peek(index);
    if (frame) return Promise.resolve(frame);
    return this.#want(index, true);
  }

  /** Fetch the frames around one, more of them in the direction in which the reader goes. */
  prefetch(index, direction) {
    this.wanted = this.wanted.filter((one) => one.urgent);
    const [ahead, behind] = direction < 0 ? [BEHIND, AHEAD] : [AHEAD, BEHIND];
    for (let step = 1; step <= Math.max(ahead, behind); step += 1) {
      if (step <= ahead) this.#foresee(index + step);
      if (step <= behind) this.#foresee(index - step);
    }
  }

  /** Fetch all frames; resolves when all are here. Tells `progress` the number so far. */
  async all(progress) {
    let done = 0;
    const one = async (index) => {
      await this.#want(index, false);
      done += 1;
      progress(done);
    };
    await Promise.all(Array.from({ length: this.count }, (_, index) => one(index)));
  }

  #foresee(index) {
    if (index < 0 || index >= this.count || this.kept.has(index)) return;
    this.#want(index, false).catch(() => {}); // Told when the reader comes to it.
  }

  #want(index, urgent) {
    if (this.kept.has(index)) return Promise.resolve(this.kept.get(index));
    let entry = this.waiting.get(index);
    if (!entry) {
      entry = { index, urgent };
      entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
      this.waiting.set(index, entry);
    }
    entry.urgent ||= urgent;
    if (!entry.started) {
      this.wanted = this.wanted.filter((one) => one !== entry);
      if (urgent) this.wanted.unshift(entry);
      else this.wanted.push(entry);
    }
    this.#go();
    return entry.promise;
  }

  #go() {
    while (this.running < AT_ONCE && this.wanted.length) {
      const entry = this.wanted.shift();
      entry.started = true;
      this.running += 1;
      this.#fetch(entry.index)
        .then(entry.resolve, entry.reject)
        .finally(() => {
          this.waiting.delete(entry.index);
          this.running -= 1;
          this.#go();
        });
    }
    this.#forgetUnwanted();
  }

  #forgetUnwanted() {
    for (const [index, entry] of this.waiting) {
      if (!entry.started && !this.wanted.includes(entry)) this.waiting.delete(index);
    }
  }

  async #fetch(index) {
    const address = this.template.replace("{frame}", String(index));
    const answer = await request(address, { seconds: LONG_SECONDS });
    if (!answer.ok) throw new Error(await sentenceOf(answer));
    const frame = new Frame(JSON.parse(answer.headers.get("X-Frame")), await answer.arrayBuffer());
    this.#keep(index, frame);
    this.dispatchEvent(new CustomEvent("frame", { detail: index }));
    return frame;
  }

  #keep(index, frame) {
    this.kept.set(index, frame);
    this.bytes += frame.values.byteLength;
    for (const [oldest, old] of this.kept) {
      if (this.bytes <= MOST_BYTES || oldest === index) break;
      this.kept.delete(oldest);
      this.bytes -= old.values.byteLength;
    }
  }
}

/** What the node says in an answer that is no success. */
export async function sentenceOf(answer) {
  try {
    const told = await answer.json();
    if (typeof told.detail === "string") return told.detail;
    if (Array.isArray(told.detail)) return told.detail.map((one) => one.msg).join("; ");
    return JSON.stringify(told);
  } catch {
    return `the node answered ${answer.status} ${answer.statusText}`;
  }
}
