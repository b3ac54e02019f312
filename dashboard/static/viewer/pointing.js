// Wheel, mouse, pen, fingers and keys: what they mean to the viewer.

const WHEEL_STEP = 40; // of a wheel's delta, for one slice
const DRAG_STEP = 8; // CSS pixels of a drag, for one slice

/** Calls the viewer's actions for pointers on the canvas. */
export class Pointing {
  /** `tool` tells what the main button does; `act` has the actions. */
  constructor(canvas, { tool, act }) {
    Object.assign(this, { canvas, tool, act });
    this.pointers = new Map();
    this.turned = 0;
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.#up(event));
    }
    canvas.addEventListener("pointerleave", () => act.hover(null));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => act.fit());
  }

  #point(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  #wheel(event) {
    event.preventDefault();
    if (event.ctrlKey) {
      this.act.zoom(Math.exp(-event.deltaY / 300), this.#point(event));
      return;
    }
    const lines = event.deltaMode === 1 ? event.deltaY * WHEEL_STEP : event.deltaY;
    this.turned += lines;
    const steps = Math.trunc(this.turned / WHEEL_STEP);
    this.turned -= steps * WHEEL_STEP;
    if (steps) this.act.scroll(steps);
  }

  #down(event) {
    if (event.pointerType === "mouse" && event.button > 2) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus({ preventScroll: true });
    const point = this.#point(event);
    this.pointers.set(event.pointerId, point);
    if (this.pointers.size === 2) {
      this.act.cancelDraw();
      this.drag = { kind: "pinch", ...this.#pinch() };
      return;
    }
    const kind = event.button === 1 ? "pan" : event.button === 2 ? "zoom" : this.tool();
    this.drag = { kind, start: point, last: point, moved: false, rest: 0 };
    if (kind === "box" || kind === "brush") this.act.drawStart(kind, point);
  }

  #pinch() {
    const [a, b] = [...this.pointers.values()];
    return {
      length: Math.hypot(a.x - b.x, a.y - b.y),
      centre: { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 },
    };
  }

  #move(event) {
    const point = this.#point(event);
    if (!this.pointers.has(event.pointerId)) {
      this.act.hover(point);
      return;
    }
    this.pointers.set(event.pointerId, point);
    if (this.drag?.kind === "pinch") {
      if (this.pointers.size < 2) return;
      const now = this.#pinch();
      this.act.zoom(now.length / Math.max(1, this.drag.length), now.centre);
      this.act.pan(now.centre.x - this.drag.centre.x, now.centre.y - this.drag.centre.y);
      Object.assign(this.drag, now);
      return;
    }
    if (this.drag) this.#dragTo(point);
    this.act.hover(point);
  }

  #dragTo(point) {
    const { drag } = this;
    const [x, y] = [point.x - drag.last.x, point.y - drag.last.y];
    if (Math.hypot(point.x - drag.start.x, point.y - drag.start.y) > 3) drag.moved = true;
    drag.last = point;
    if (drag.kind === "box" || drag.kind === "brush") this.act.drawMove(drag.kind, point);
    else if (!drag.moved) return;
    else if (drag.kind === "pan") this.act.pan(x, y);
    else if (drag.kind === "zoom") this.act.zoom(Math.exp(-y / 150), drag.start);
    else if (drag.kind === "window") this.act.window(x, y);
    else if (drag.kind === "scroll") {
      drag.rest += y;
      const steps = Math.trunc(drag.rest / DRAG_STEP);
      drag.rest -= steps * DRAG_STEP;
      if (steps) this.act.scroll(steps);
    }
  }

  #up(event) {
    const { drag } = this;
    this.pointers.delete(event.pointerId);
    if (!drag) return;
    if (drag.kind === "box" || drag.kind === "brush") this.act.drawEnd(drag.kind);
    else if (drag.kind !== "pinch" && !drag.moved && event.type === "pointerup") {
      this.act.click(drag.start);
    }
    if (this.pointers.size === 0) this.drag = null;
  }
}

const KEYS = {
  ArrowUp: (act) => act.scroll(-1),
  ArrowLeft: (act) => act.scroll(-1),
  ArrowDown: (act) => act.scroll(1),
  ArrowRight: (act) => act.scroll(1),
  PageUp: (act) => act.scroll(-10),
  PageDown: (act) => act.scroll(10),
  Home: (act) => act.scroll(-Infinity),
  End: (act) => act.scroll(Infinity),
  "+": (act) => act.zoom(1.25),
  "=": (act) => act.zoom(1.25),
  "-": (act) => act.zoom(0.8),
  0: (act) => act.fit(),
  i: (act) => act.invert(),
  m: (act) => act.toggleMasks(),
  o: (act) => act.toggleStyle(),
  "[": (act) => act.opacity(-0.1),
  "]": (act) => act.opacity(0.1),
  n: (act) => act.nextFinding(1),
  p: (act) => act.nextFinding(-1),
  a: (act) => act.nextPlane(),
  Escape: (act) => act.escape(),
  "?": (act) => act.help(),
};

const TYPING = "input:not([type=checkbox], [type=radio], [type=range]), textarea, select, dialog";
const MOVING = "input[type=range], input[type=radio]"; // these use the keys that move for themselves
const MOVES = new Set(["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "PageDown"]);

/** Keys work on the whole page, except where somebody types, and within sliders and lists. */
export function listenToKeys(root, act) {
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.(TYPING)) return;
    if (event.target.closest?.(MOVING) && MOVES.has(event.key)) return;
    const button = event.target.closest?.("button, a, [role=button]");
    if (button && ["Enter", " "].includes(event.key)) return;
    const action = KEYS[event.key] ?? presetOf(event.key);
    if (!action) return;
    event.preventDefault();
    action(act);
  });
}

function presetOf(key) {
  const number = "123456789".indexOf(key);
  return number < 0 || key.length !== 1 ? null : (act) => act.preset(number);
}
