// Drawing on the picture: a box around something, and a brush that mends a mask.

import { runsOf } from "./masks.js";

const LEAST = 2; // pixels of a box's side

/** Box and brush; the brush works on the mask of the chosen finding. */
export class Drawing extends EventTarget {
  constructor(viewer, panel) {
    super();
    Object.assign(this, { viewer, panel });
    this.size = 6;
    this.erasing = false;
    this.edited = new Map(); // "segment:frame" -> saved run lengths, or undefined: the model's
  }

  start(kind, point) {
    if (this.viewer.plane.key !== "native") {
      this.viewer.say("Draw in the plane in which the images are stored.");
      return;
    }
    const at = this.viewer.picture.pixelAt(point);
    if (!at) return;
    if (kind === "box") {
      this.corner = at;
      this.before = this.viewer.box;
    } else {
      this.last = at;
      this.#stroke(at);
    }
  }

  move(kind, point) {
    const at = this.viewer.picture.pixelAt(point);
    if (kind === "box" && this.corner) this.#stretch(at);
    if (kind === "brush" && this.last) {
      const steps = Math.ceil(Math.hypot(at.row - this.last.row, at.column - this.last.column));
      for (let step = 1; step <= steps; step += 1) {
        this.#stroke({
          row: this.last.row + ((at.row - this.last.row) * step) / steps,
          column: this.last.column + ((at.column - this.last.column) * step) / steps,
        });
      }
      this.last = at;
    }
  }

  end(kind) {
    if (kind === "box" && this.corner) {
      const { box } = this.viewer;
      this.corner = null;
      if (!box || box.bottom - box.top < LEAST || box.right - box.left < LEAST) this.setBox(null);
      else this.setBox(box);
    }
    if (kind === "brush") this.last = null;
  }

  /** A second finger came: what was begun is taken back. */
  cancel() {
    if (this.corner) this.setBox(this.before ?? null);
    this.corner = null;
    this.last = null;
  }

  setBox(box) {
    this.viewer.box = box && { ...box, frame: this.viewer.index };
    this.viewer.draw();
    this.dispatchEvent(new Event("box"));
  }

  #stretch(at) {
    const { rows, columns } = this.viewer.first;
    const bound = (value, most) => Math.min(most, Math.max(0, Math.round(value)));
    this.viewer.box = {
      top: bound(Math.min(at.row, this.corner.row), rows),
      bottom: bound(Math.max(at.row, this.corner.row), rows),
      left: bound(Math.min(at.column, this.corner.column), columns),
      right: bound(Math.max(at.column, this.corner.column), columns),
      frame: this.viewer.index,
    };
    this.viewer.draw();
  }

  #stroke(at) {
    const { viewer } = this;
    const segment = viewer.finding === null ? null : viewer.findingAt(viewer.finding)?.segment_number;
    if (!segment) {
      viewer.say("Choose the sentence whose mask you want to mend first.");
      return;
    }
    const { rows, columns } = viewer.masks;
    const key = `${segment}:${viewer.index}`;
    const old = viewer.masks.bitmap(segment, viewer.index) ?? new Uint8Array(rows * columns);
    if (!this.edited.has(key)) this.edited.set(key, viewer.masks.edit(segment, viewer.index));
    const bitmap = old.slice();
    const radius = this.size / 2;
    for (let row = Math.floor(at.row - radius); row <= at.row + radius; row += 1) {
      for (let column = Math.floor(at.column - radius); column <= at.column + radius; column += 1) {
        const inside = Math.hypot(row + 0.5 - at.row, column + 0.5 - at.column) <= Math.max(radius, 0.71);
        const within = row >= 0 && column >= 0 && row < rows && column < columns;
        if (inside && within) bitmap[row * columns + column] = this.erasing ? 0 : 1;
      }
    }
    viewer.masks.setEdit(segment, viewer.index, runsOf(bitmap));
    viewer.draw();
    this.dispatchEvent(new Event("edited"));
  }

  /** Frames of a segment that were painted on. */
  framesOf(segment) {
    return [...this.edited.keys()]
      .map((key) => key.split(":").map(Number))
      .filter(([one]) => one === segment)
      .map(([, frame]) => frame)
      .sort((a, b) => a - b);
  }

  /** Take back all strokes on a segment that were not saved. */
  undo(segment) {
    for (const frame of this.framesOf(segment)) {
      this.viewer.masks.setEdit(segment, frame, this.edited.get(`${segment}:${frame}`));
      this.edited.delete(`${segment}:${frame}`);
    }
    this.viewer.draw();
    this.dispatchEvent(new Event("edited"));
  }

  /** Strokes were saved: they are what is kept now. */
  forget(segment) {
    for (const frame of this.framesOf(segment)) this.edited.delete(`${segment}:${frame}`);
    this.dispatchEvent(new Event("edited"));
  }
}
