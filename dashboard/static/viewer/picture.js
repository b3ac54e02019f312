// The canvas: a picture with masks, boxes and strokes on it, at any zoom.

import { outline } from "./masks.js";
import { shade } from "./windowing.js";

const SMALLEST = 0.1;
const LARGEST = 40;
const SHARP_FROM = 4; // device pixels per pixel, from which single pixels may be seen as squares

/**
 * Draws what `show` was given last. Sizes are in pixels of the picture unless named otherwise;
 * `pixel` is [height, width] of a pixel in any unit, so that a millimetre is as wide as high.
 */
export class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.zoom = 1;
    this.pan = { x: 0, y: 0 };
    this.content = null;
    this.paths = new WeakMap();
    this.pending = false;
    new ResizeObserver(() => this.redraw()).observe(canvas);
  }

  /** content: frame, window, overlays [{bitmap, colour, marked}], style, box, pixel. */
  show(content) {
    this.content = content;
    this.redraw();
  }

  redraw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.draw();
    });
  }

  /** Resolves when what was asked for is drawn. */
  drawn() {
    if (!this.pending) return Promise.resolve();
    return new Promise((resolve) => this.canvas.addEventListener("drawn", resolve, { once: true }));
  }

  /** Put the whole picture into the canvas. */
  fit() {
    this.zoom = 1;
    this.pan = { x: 0, y: 0 };
    this.redraw();
  }

  /** Zoom by a factor around a point of the canvas (CSS pixels); without one, its centre. */
  zoomBy(factor, point) {
    const zoom = Math.min(LARGEST, Math.max(SMALLEST, this.zoom * factor));
    const { width, height } = this.canvas.getBoundingClientRect();
    const at = point ?? { x: width / 2, y: height / 2 };
    const from = { x: at.x - width / 2 - this.pan.x, y: at.y - height / 2 - this.pan.y };
    const grown = zoom / this.zoom;
    this.pan = { x: this.pan.x - from.x * (grown - 1), y: this.pan.y - from.y * (grown - 1) };
    this.zoom = zoom;
    this.redraw();
  }

  panBy(x, y) {
    this.pan = { x: this.pan.x + x, y: this.pan.y + y };
    this.redraw();
  }

  /** Where the picture lies in the canvas: CSS pixels per pixel, and its upper left corner. */
  placement() {
    const { frame, pixel } = this.content;
    const { width, height } = this.canvas.getBoundingClientRect();
    const [tall, wide] = pixel ?? [1, 1];
    const fitting = Math.min(width / (frame.columns * wide), height / (frame.rows * tall));
    const scaleX = fitting * wide * this.zoom;
    const scaleY = fitting * tall * this.zoom;
    return {
      scaleX,
      scaleY,
      left: (width - frame.columns * scaleX) / 2 + this.pan.x,
      top: (height - frame.rows * scaleY) / 2 + this.pan.y,
      perUnit: fitting * this.zoom,
    };
  }

  /** The pixel under a point of the canvas (CSS pixels), fractional: 0 is a pixel's edge. */
  pixelAt(point) {
    if (!this.content) return null;
    const { scaleX, scaleY, left, top } = this.placement();
    return { row: (point.y - top) / scaleY, column: (point.x - left) / scaleX };
  }

  draw() {
    const { canvas, context, content } = this;
    const ratio = window.devicePixelRatio || 1;
    const { width, height } = canvas.getBoundingClientRect();
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, wide, high);
    if (!content) return;
    const place = this.placement();
    context.setTransform(
      place.scaleX * ratio, 0, 0, place.scaleY * ratio, place.left * ratio, place.top * ratio,
    );
    const perPixel = Math.min(place.scaleX, place.scaleY) * ratio;
    context.imageSmoothingEnabled = perPixel < SHARP_FROM;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.#shaded(content), 0, 0);
    this.#overlays(content, perPixel);
    if (content.axes?.length && content.style.outlines) this.#axes(content.axes, perPixel);
    if (content.box) this.#box(content.box, perPixel);
    canvas.dispatchEvent(new Event("drawn"));
  }

  #shaded({ frame, window: chosen }) {
    const key = `${chosen.low}:${chosen.high}:${chosen.inverted}`;
    if (this.shadedFrame === frame && this.shadedKey === key) return this.surface;
    this.surface ??= document.createElement("canvas");
    Object.assign(this.surface, { width: frame.columns, height: frame.rows });
    const painter = this.surface.getContext("2d");
    const pixels = painter.createImageData(frame.columns, frame.rows);
    shade(frame, chosen, pixels);
    painter.putImageData(pixels, 0, 0);
    [this.shadedFrame, this.shadedKey] = [frame, key];
    return this.surface;
  }

  #overlays({ frame, overlays, style }, perPixel) {
    const { context } = this;
    if (style.fill > 0) {
      context.imageSmoothingEnabled = false;
      context.drawImage(this.#filled(frame, overlays, style), 0, 0);
    }
    if (!style.outlines) return;
    for (const { bitmap, colour, marked } of overlays) {
      let path = this.paths.get(bitmap);
      if (!path) this.paths.set(bitmap, (path = outline(bitmap, frame.columns)));
      context.lineWidth = (marked ? 3.5 : 2) / perPixel;
      if (marked) {
        context.strokeStyle = "rgba(0, 0, 0, 0.75)";
        context.lineWidth = 6 / perPixel;
        context.stroke(path);
        context.lineWidth = 3 / perPixel;
      }
      context.strokeStyle = `rgb(${colour.join(" ")})`;
      context.stroke(path);
    }
  }

  #filled(frame, overlays, style) {
    this.veil ??= document.createElement("canvas");
    Object.assign(this.veil, { width: frame.columns, height: frame.rows });
    const painter = this.veil.getContext("2d");
    const pixels = painter.createImageData(frame.columns, frame.rows);
    const out = new Uint32Array(pixels.data.buffer);
    for (const { bitmap, colour, marked } of overlays) {
      const share = Math.min(1, style.fill * (marked ? 1.35 : 1));
      const alpha = Math.round(255 * share);
      const value = ((alpha << 24) | (colour[2] << 16) | (colour[1] << 8) | colour[0]) >>> 0;
      for (let i = 0; i < out.length; i += 1) if (bitmap[i]) out[i] = value;
    }
    painter.putImageData(pixels, 0, 0);
    return this.veil;
  }

  #axes(axes, perPixel) {
    const { context } = this;
    for (const [width, colour] of [[4, "rgba(0, 0, 0, 0.7)"], [1.5, "#ffffff"]]) {
      context.lineWidth = width / perPixel;
      context.strokeStyle = colour;
      for (const { start, end } of axes) {
        context.beginPath();
        context.moveTo(...start);
        context.lineTo(...end);
        context.stroke();
      }
    }
  }

  #box({ top, left, bottom, right }, perPixel) {
    const { context } = this;
    for (const [width, colour] of [[4, "rgba(0, 0, 0, 0.8)"], [2, "#ffd43b"]]) {
      context.lineWidth = width / perPixel;
      context.strokeStyle = colour;
      context.strokeRect(left, top, right - left, bottom - top);
    }
  }
}
