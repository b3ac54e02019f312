// Masks: run lengths from the node, bitmaps and outlines when they are drawn.

import { LONG_SECONDS, request } from "../request.js";
import { sentenceOf } from "./frames.js";

const MOST_BITMAPS = 400;

/**
 * The masks of one result: where each segment lies on each frame.
 *
 * A segment may have frames that a person painted on; those are shown instead of the model's unless
 * the segment is in `asModel`.
 */
export class Masks {
  constructor(described, runs) {
    this.rows = described.rows;
    this.columns = described.columns;
    this.segments = described.segments;
    const placed = (entries) =>
      new Map(
        entries.map(([segment, frame, start, count]) => [
          `${segment}:${frame}`,
          runs.subarray(start, start + count),
        ]),
      );
    this.model = placed(described.masks);
    this.edits = placed(described.edits);
    this.asModel = new Set();
    this.bitmaps = new Map(); // run lengths -> bitmap
  }

  static none() {
    return new Masks({ rows: 0, columns: 0, segments: [], masks: [], edits: [] }, new Uint32Array(0));
  }

  static async fetch(address) {
    const answer = await request(address, { seconds: LONG_SECONDS });
    if (!answer.ok) throw new Error(await sentenceOf(answer));
    return Masks.parse(await answer.arrayBuffer());
  }

  static parse(buffer) {
    const mark = new TextDecoder().decode(buffer.slice(0, 4));
    if (mark !== "RLE1") throw new Error("the masks came in a form that this page does not know");
    const length = new DataView(buffer).getUint32(4, true);
    const text = new TextDecoder().decode(new Uint8Array(buffer, 8, length));
    return new Masks(JSON.parse(text), new Uint32Array(buffer, 8 + length));
  }

  // The run lengths that are shown; one run alone is a frame without a pixel inside.
  #runs(segment, frame) {
    const key = `${segment}:${frame}`;
    const edited = this.asModel.has(segment) ? undefined : this.edits.get(key);
    const runs = edited ?? this.model.get(key);
    return runs && runs.length > 1 ? runs : null;
  }

  /** Frames on which a segment lies, in order. */
  framesOf(segment) {
    return framesIn([...this.model.keys(), ...this.edits.keys()], segment).filter((frame) =>
      this.#runs(segment, frame),
    );
  }

  /** Frames of a segment that a person painted on, saved or not, in order. */
  editedFrames(segment) {
    return framesIn([...this.edits.keys()], segment);
  }

  /** Segments on a frame: number and bitmap (1 inside), row by row. */
  onFrame(frame) {
    return this.segments
      .map(({ number }) => ({ segment: number, bitmap: this.bitmap(number, frame) }))
      .filter(({ bitmap }) => bitmap);
  }

  /** The bitmap of a segment on a frame, or null where it is not. */
  bitmap(segment, frame) {
    const runs = this.#runs(segment, frame);
    if (!runs) return null;
    let bitmap = this.bitmaps.get(runs);
    if (!bitmap) {
      bitmap = filled(runs, this.rows * this.columns);
      this.bitmaps.set(runs, bitmap);
      if (this.bitmaps.size > MOST_BITMAPS) this.bitmaps.delete(this.bitmaps.keys().next().value);
    }
    return bitmap;
  }

  /** The run lengths of an edit, or undefined where the frame is as the model drew it. */
  edit(segment, frame) {
    return this.edits.get(`${segment}:${frame}`);
  }

  /** Put an edit in place; without run lengths the frame is the model's again. */
  setEdit(segment, frame, runs) {
    if (runs) this.edits.set(`${segment}:${frame}`, runs);
    else this.edits.delete(`${segment}:${frame}`);
  }

  /** Numbers of the segments at a pixel, the smallest first: it is the one that was meant. */
  at(frame, row, column) {
    if (row < 0 || column < 0 || row >= this.rows || column >= this.columns) return [];
    const place = row * this.columns + column;
    return this.onFrame(frame)
      .filter(({ bitmap }) => bitmap[place])
      .map(({ segment, bitmap }) => ({ segment, area: bitmap.reduce((sum, bit) => sum + bit, 0) }))
      .sort((a, b) => a.area - b.area)
      .map(({ segment }) => segment);
  }
}

function framesIn(keys, segment) {
  const frames = keys
    .map((key) => key.split(":").map(Number))
    .filter(([one]) => one === segment)
    .map(([, frame]) => frame);
  return [...new Set(frames)].sort((a, b) => a - b);
}

function filled(runs, size) {
  const bitmap = new Uint8Array(size);
  let place = 0;
  for (let i = 0; i < runs.length; i += 1) {
    if (i % 2) bitmap.fill(1, place, place + runs[i]);
    place += runs[i];
  }
  return bitmap;
}

/** Run lengths of a bitmap, beginning with the pixels outside. */
export function runsOf(bitmap) {
  const runs = [];
  let inside = 0;
  let length = 0;
  for (const bit of bitmap) {
    if (bit === inside) length += 1;
    else {
      runs.push(length);
      inside = bit;
      length = 1;
    }
  }
  runs.push(length);
  return Uint32Array.from(runs);
}

/** The border of a bitmap along the edges of its pixels, in pixel coordinates. */
export function outline(bitmap, columns) {
  const path = new Path2D();
  const rows = bitmap.length / columns;
  const inside = (row, column) =>
    row >= 0 && row < rows && column >= 0 && column < columns ? bitmap[row * columns + column] : 0;
  for (let row = 0; row <= rows; row += 1) {
    let start = -1;
    for (let column = 0; column <= columns; column += 1) {
      const edge = column < columns && inside(row - 1, column) !== inside(row, column);
      if (edge && start < 0) start = column;
      if (!edge && start >= 0) {
        path.moveTo(start, row);
        path.lineTo(column, row);
        start = -1;
      }
    }
  }
  for (let column = 0; column <= columns; column += 1) {
    let start = -1;
    for (let row = 0; row <= rows; row += 1) {
      const edge = row < rows && inside(row, column - 1) !== inside(row, column);
      if (edge && start < 0) start = row;
      if (!edge && start >= 0) {
        path.moveTo(column, start);
        path.lineTo(column, row);
        start = -1;
      }
    }
  }
  return path;
}
