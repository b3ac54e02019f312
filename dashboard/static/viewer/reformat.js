// Pictures across the stack: made of the frames that are here, kept until another one is asked for.

import { Frame } from "./frames.js";
import { across, layoutOf } from "./planes.js";

const made = new WeakMap();

/** The values of the stack in the viewer's plane, as a frame. */
export function acrossFrame(viewer) {
  const kept = made.get(viewer);
  const { plane, index, first, stack } = viewer;
  if (kept?.plane === plane && kept.index === index) return kept.frame;
  const { rows, columns, spacing } = layoutOf(plane, first, stack.frames.length, stack.step);
  const values = new first.values.constructor(rows * columns);
  across(plane, index, first, stack.frames.length, (place, k, from) => {
    values[place] = stack.frames[k].values[from];
  });
  const described = { ...first, rows, columns, spacing, measured: undefined };
  delete described.values;
  const frame = new Frame({ ...described, type: first.type }, values.buffer);
  made.set(viewer, { plane, index, frame });
  return frame;
}

/** The masks in the viewer's plane: number and bitmap of each segment that is there. */
export function acrossMasks(viewer) {
  const { plane, index, first, stack, masks } = viewer;
  const count = stack.frames.length;
  const { rows, columns } = layoutOf(plane, first, count, stack.step);
  const found = [];
  for (const { number } of masks.segments) {
    if (viewer.hidden.has(number)) continue;
    const bitmaps = stack.frames.map((_, k) => masks.bitmap(number, k));
    const bitmap = new Uint8Array(rows * columns);
    let any = 0;
    across(plane, index, first, count, (place, k, from) => {
      if (bitmaps[k]?.[from]) any = bitmap[place] = 1;
    });
    if (any) found.push({ segment: number, bitmap });
  }
  return found;
}
