// The viewer: one stack of frames with masks, and what a reader does with it.

import { readAddress, writeAddress } from "./address.js";
import { Frames } from "./frames.js";
import { Masks } from "./masks.js";
import { Picture } from "./picture.js";
import { acrossFrame, acrossMasks } from "./reformat.js";
import { behind, edgeLetters, layoutOf, patientPoint, planesOf, stepOf } from "./planes.js";
import { firstWindow, presetsFor } from "./windowing.js";

/**
 * Events: "shown" after each change of what is seen, "finding" when one was chosen or left,
 * "message" with a sentence for the reader (empty: nothing to say), "hover" with what lies there.
 */
export class Viewer extends EventTarget {
  constructor(canvas, scene) {
    super();
    this.scene = scene;
    this.picture = new Picture(canvas);
    this.frames = new Frames(scene.frames_url, scene.frames);
    this.masks = Masks.none();
    this.asked = readAddress();
    this.planes = [{ key: "native", name: "", count: scene.frames }];
    this.plane = this.planes[0];
    this.index = Math.min(scene.frames - 1, this.asked.index ?? scene.start);
    this.finding = null;
    this.hidden = new Set(this.asked.hidden);
    this.style = { outlines: true, fill: 0.3, shown: true };
    this.window = null;
    this.box = null;
    this.turn = 0;
    this.stack = null; // step of the stack, once all of it is here
  }

  /** Show the first frame, then the masks, then what the address asks for. */
  async start() {
    // The image comes first: the node would decode it and unpack the masks at the same time.
    await this.show(this.index);
    if (this.first) await this.picture.drawn();
    if (this.scene.masks_url) {
      try {
        const came = await Masks.fetch(this.scene.masks_url);
        came.asModel = new Set(this.asked.asModel);
        this.setMasks(came);
      } catch (error) {
        this.say(`The masks cannot be shown: ${error.message}`);
      }
    }
    const { finding, plane } = this.asked;
    if (finding !== undefined && this.findingAt(finding)) this.choose(finding, { move: false });
    if (plane && plane !== "native") await this.setPlane(plane, this.asked.index);
  }

  /** Take other findings and masks of the same images; `stay`: what the reader chose stays. */
  async setScene(scene, { stay = false } = {}) {
    const masks = scene.masks_url ? await Masks.fetch(scene.masks_url) : Masks.none();
    this.scene = { ...scene, start: this.scene.start };
    if (stay) masks.asModel = this.masks.asModel;
    else this.hidden.clear();
    if (!stay || !this.findingAt(this.finding)) this.finding = null;
    this.setMasks(masks);
    this.dispatchEvent(new Event("finding"));
  }

  say(text) {
    this.dispatchEvent(new CustomEvent("message", { detail: text }));
  }

  setMasks(masks) {
    this.masks = masks;
    this.draw();
    this.dispatchEvent(new Event("masks"));
  }

  findingAt(position) {
    return this.scene.findings.find((one) => one.position === position);
  }

  get count() {
    return this.plane.count;
  }

  /** The frame of the stack that is shown, or of which a picture across the stack is made. */
  get frame() {
    return this.frames.peek(this.plane.key === "native" ? this.index : 0);
  }

  /** Go to a slice; what is asked for last is what stays. */
  async show(index) {
    const wanted = Math.min(this.count - 1, Math.max(0, index));
    const direction = wanted - this.index;
    this.index = wanted;
    this.turn += 1;
    const { turn } = this;
    if (this.plane.key !== "native") {
      this.draw();
      return;
    }
    try {
      const slow = setTimeout(() => turn === this.turn && this.say("Loading …"), 250);
      const frame = await this.frames.get(wanted).finally(() => clearTimeout(slow));
      if (turn !== this.turn) return;
      this.#know(frame);
      this.say("");
    } catch (error) {
      if (turn === this.turn) {
        this.picture.show(null);
        this.say(`Slice ${wanted + 1} cannot be shown: ${error.message}`);
      }
      return;
    }
    this.draw();
    this.picture.drawn().then(() => turn === this.turn && this.frames.prefetch(wanted, direction));
  }

  // What the first frame tells: window, planes.
  #know(frame) {
    if (this.first) return;
    this.first = frame;
    this.automatic = firstWindow(frame);
    this.window = { ...this.automatic, ...this.asked.window };
    this.planes = planesOf(frame, this.scene.frames, this.scene.volume);
    this.plane = this.planes[0];
    this.dispatchEvent(new Event("known"));
  }

  scroll(steps) {
    if (steps === -Infinity) this.show(0);
    else if (steps === Infinity) this.show(this.count - 1);
    else this.show(this.index + steps);
  }

  setWindow(low, high, inverted = this.window.inverted) {
    const least = this.first?.unit === "SUVbw" || this.first?.values instanceof Float32Array ? 0.01 : 1;
    this.window = { low, high: Math.max(high, low + least), inverted };
    this.draw();
  }

  /** Widen (right) and brighten (up) by a drag in CSS pixels. */
  dragWindow(x, y) {
    if (!this.window || this.first.samples > 1) return;
    const { low, high } = this.window;
    const { most } = this.first.range;
    const unit = Math.max(high - low, (most[1] - most[0]) / 20, 1e-6) / 250;
    const width = Math.max(1e-6, high - low + x * unit);
    const centre = (low + high) / 2 + y * unit;
    this.setWindow(centre - width / 2, centre + width / 2);
  }

  presets() {
    return this.first ? presetsFor(this.first) : [];
  }

  preset(number) {
    const chosen = this.presets()[number];
    if (chosen) this.setWindow(chosen[1], chosen[2]);
  }

  invert() {
    if (this.window) this.setWindow(this.window.low, this.window.high, !this.window.inverted);
  }

  setStyle(changes) {
    Object.assign(this.style, changes);
    this.draw();
  }

  /** Show a segment as a person edited it ("edited"), or as the model drew it ("model"). */
  setVersion(segment, version) {
    if (version === "model") this.masks.asModel.add(segment);
    else this.masks.asModel.delete(segment);
    this.setMasks(this.masks);
  }

  /** A segment's edits do not count any more. */
  dropEdits(segment) {
    for (const frame of this.masks.editedFrames(segment)) this.masks.setEdit(segment, frame);
    this.setMasks(this.masks);
  }

  setHidden(segment, hidden) {
    if (hidden) this.hidden.add(segment);
    else this.hidden.delete(segment);
    this.draw();
  }

  /** Choose a finding (or none): its slice, its mask marked. */
  choose(position, { move = true } = {}) {
    this.finding = position;
    const finding = position === null ? null : this.findingAt(position);
    if (finding?.segment_number) this.hidden.delete(finding.segment_number);
    if (finding && move && finding.key_frame !== null) {
      if (this.plane.key !== "native") this.setPlane("native", finding.key_frame);
      else this.show(finding.key_frame);
    }
    this.draw();
    this.dispatchEvent(new Event("finding"));
  }

  nextFinding(step) {
    const shown = this.scene.findings.filter((one) => one.segment_number);
    if (!shown.length) return;
    const now = shown.findIndex((one) => one.position === this.finding);
    const next = now < 0 ? (step > 0 ? 0 : shown.length - 1) : now + step;
    this.choose(shown[(next + shown.length) % shown.length].position);
  }

  /** Choose the finding whose mask lies under a point of the canvas; elsewhere none. */
  clickAt(point) {
    const place = this.placeAt(point);
    if (!place) return;
    const segments = this.masks
      .at(place.frame, place.row, place.column)
      .filter((segment) => !this.hidden.has(segment));
    const found = this.scene.findings.find((one) => one.segment_number === segments[0]);
    this.choose(found ? found.position : null, { move: false });
  }

  /** The pixel of the stack under a point of the canvas, or null outside. */
  placeAt(point) {
    const at = this.picture.pixelAt(point);
    if (!at || !this.shownFrame) return null;
    const [row, column] = [Math.floor(at.row), Math.floor(at.column)];
    const { rows, columns } = this.shownFrame;
    if (row < 0 || column < 0 || row >= rows || column >= columns) return null;
    return behind(this.plane, this.index, row, column, this.first, this.scene.frames);
  }

  /** What lies under a point: slice, row, column, value, place in the patient, segments. */
  describe(point) {
    const place = this.placeAt(point);
    if (!place) return null;
    const frame = this.frames.peek(place.frame);
    if (!frame) return null;
    return {
      ...place,
      value: frame.at(place.row, place.column),
      unit: frame.unit,
      patient: patientPoint(frame, place.row, place.column),
      segments: this.masks.at(place.frame, place.row, place.column),
    };
  }

  /** Look at the stack in another plane; fetches all of it first. */
  async setPlane(key, index) {
    const plane = this.planes.find((one) => one.key === key);
    if (!plane) return;
    if (plane.key !== "native" && !(await this.#wholeStack())) return;
    const stayed = plane === this.plane;
    this.plane = plane;
    this.picture.fit();
    this.dispatchEvent(new Event("known"));
    await this.show(index ?? (stayed ? this.index : this.#middleOf(plane)));
  }

  #middleOf(plane) {
    const key = this.finding === null ? null : this.findingAt(this.finding)?.key_frame;
    if (plane.key === "native") return key ?? Math.floor(plane.count / 2);
    const segment = this.finding === null ? null : this.findingAt(this.finding).segment_number;
    const bitmap = segment && key !== null ? this.masks.bitmap(segment, key) : null;
    if (!bitmap) return Math.floor(plane.count / 2);
    let [sum, count] = [0, 0];
    for (let i = 0; i < bitmap.length; i += 1) {
      if (!bitmap[i]) continue;
      sum += plane.key === "row" ? Math.floor(i / this.masks.columns) : i % this.masks.columns;
      count += 1;
    }
    return count ? Math.round(sum / count) : Math.floor(plane.count / 2);
  }

  nextPlane() {
    const place = this.planes.indexOf(this.plane);
    if (this.planes.length > 1) this.setPlane(this.planes[(place + 1) % this.planes.length].key);
  }

  async #wholeStack() {
    if (this.stack) return true;
    const { frames } = this.scene;
    try {
      await this.frames.all((done) => this.say(`Loading slice ${done} of ${frames} …`));
    } catch (error) {
      this.say(`Only the stored plane can be shown: ${error.message}`);
      return false;
    }
    const all = Array.from({ length: frames }, (_, index) => this.frames.peek(index));
    if (all.some((frame) => !frame)) {
      this.say("This series is too large for this browser to be shown in another plane.");
      return false;
    }
    const { step, even } = stepOf(all);
    if (!even) {
      this.planes = [this.planes[0]];
      this.say("The slices are not evenly spaced along a straight line: other planes would be distorted.");
      this.dispatchEvent(new Event("known"));
      return false;
    }
    this.stack = { frames: all, step };
    this.say("");
    return true;
  }

  /** Show what the state says. */
  draw() {
    if (!this.first) return;
    const native = this.plane.key === "native";
    const frame = native ? this.frames.peek(this.index) : acrossFrame(this);
    if (!frame) return;
    this.shownFrame = frame;
    const on = native ? this.masks.onFrame(this.index) : acrossMasks(this);
    const marked = this.finding === null ? null : this.findingAt(this.finding)?.segment_number;
    const layout = layoutOf(this.plane, this.first, this.scene.frames, this.stack?.step ?? 1);
    this.picture.show({
      frame,
      window: this.window,
      pixel: layout.spacing,
      overlays: this.style.shown
        ? on
            .filter(({ segment }) => !this.hidden.has(segment))
            .map(({ segment, bitmap }) => ({
              bitmap,
              colour: this.colourOf(segment),
              marked: segment === marked,
            }))
        : [],
      style: this.style,
      axes: this.#axesShown(native),
      box: native && this.box?.frame === this.index ? this.box : null,
    });
    this.dispatchEvent(new Event("shown"));
    const { low, high } = this.automatic;
    writeAddress({
      index: this.index,
      plane: this.plane.key,
      finding: this.finding,
      window: this.window,
      hidden: this.hidden,
      asModel: this.masks.asModel,
      asIs: low === this.window.low && high === this.window.high,
    });
  }

  // Long and short axis of the chosen finding, on its key slice.
  #axesShown(native) {
    const chosen = this.finding === null ? null : this.findingAt(this.finding);
    return native && this.style.shown && chosen?.key_frame === this.index ? chosen.axes : [];
  }

  colourOf(segment) {
    return this.masks.segments.find((one) => one.number === segment)?.colour ?? [0, 200, 180];
  }

  letters() {
    return this.plane.right ? edgeLetters(this.plane) : null;
  }

  /** mm per CSS pixel, or null where the header promises none. */
  scale() {
    return this.first?.spacing ? 1 / this.picture.placement().perUnit : null;
  }
}
