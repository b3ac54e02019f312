// What stands around the picture: tools, slider, sentences, letters, coordinates.

const SCALES = [1, 2, 5, 10, 20, 50, 100, 200];

/** Connects a viewer with the elements of its page, found by their data-viewer attribute. */
export class Panel {
  constructor(root, viewer) {
    this.root = root;
    this.viewer = viewer;
    this.tool = "scroll";
    this.part = Object.fromEntries(
      [...root.querySelectorAll("[data-viewer]")].map((one) => [one.dataset.viewer, one]),
    );
    this.#listen();
    viewer.addEventListener("known", () => this.#known());
    viewer.addEventListener("masks", () => this.#marks());
    viewer.addEventListener("shown", () => this.#shown());
    viewer.addEventListener("message", (event) => this.#say(event.detail));
    viewer.picture.canvas.addEventListener("drawn", () => this.#scale());
  }

  #say(text) {
    this.part.message.textContent = text;
    this.part.message.hidden = !text;
  }

  #listen() {
    const { part, viewer, root } = this;
    for (const button of root.querySelectorAll("[data-tool]")) {
      button.addEventListener("click", () => this.setTool(button.dataset.tool));
    }
    const buttons = {
      fit: () => viewer.picture.fit(),
      "zoom-in": () => viewer.picture.zoomBy(1.25),
      "zoom-out": () => viewer.picture.zoomBy(0.8),
      invert: () => viewer.invert(),
      help: () => part.keys.showModal(),
      save: () => this.save(),
    };
    for (const [name, action] of Object.entries(buttons)) {
      root.querySelector(`[data-do="${name}"]`)?.addEventListener("click", action);
    }
    part.slider.addEventListener("input", () => viewer.show(part.slider.valueAsNumber - 1));
    part.preset.addEventListener("change", () => viewer.preset(part.preset.selectedIndex - 1));
    part.opacity.addEventListener("input", () =>
      viewer.setStyle({ fill: part.opacity.valueAsNumber / 100 }),
    );
    part.outlines.addEventListener("change", () =>
      viewer.setStyle({ outlines: part.outlines.checked }),
    );
    part.masks.addEventListener("change", () => viewer.setStyle({ shown: part.masks.checked }));
    part.planes.addEventListener("change", (event) => viewer.setPlane(event.target.value));
  }

  setTool(tool) {
    this.tool = tool;
    for (const button of this.root.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    }
    this.viewer.picture.canvas.dataset.cursor = tool;
  }

  toggleMasks() {
    this.part.masks.checked = !this.part.masks.checked;
    this.viewer.setStyle({ shown: this.part.masks.checked });
  }

  toggleStyle() {
    this.part.outlines.checked = !this.part.outlines.checked;
    this.viewer.setStyle({ outlines: this.part.outlines.checked });
  }

  opacity(change) {
    const { opacity } = this.part;
    opacity.value = String(opacity.valueAsNumber + Math.round(100 * change));
    this.viewer.setStyle({ fill: opacity.valueAsNumber / 100 });
  }

  // The first frame is here: which windows and planes there are.
  #known() {
    const { part, viewer } = this;
    const presets = viewer.presets().map(([name]) => new Option(name));
    part.preset.replaceChildren(new Option("Window …"), ...presets);
    part.preset.disabled = !presets.length;
    part.planes.replaceChildren(
      ...viewer.planes.map((plane) => new Option(plane.name, plane.key, false, plane === viewer.plane)),
    );
    part.planes.disabled = viewer.planes.length < 2;
    part.slider.max = String(viewer.count);
    part.slider.disabled = viewer.count < 2;
    this.#marks();
  }

  // Along the slider: where each finding lies.
  #marks() {
    const { part, viewer } = this;
    part.marks.replaceChildren();
    if (viewer.plane.key !== "native" || viewer.count < 2) return;
    const last = viewer.count - 1;
    for (const { number } of viewer.masks.segments) {
      const frames = viewer.masks.framesOf(number);
      for (const [first, end] of stretches(frames)) {
        const mark = document.createElement("span");
        mark.style.left = `${(100 * first) / last}%`;
        mark.style.width = `${Math.max(0.6, (100 * (end - first)) / last)}%`;
        mark.style.background = `rgb(${viewer.colourOf(number).join(" ")})`;
        part.marks.append(mark);
      }
    }
  }

  #shown() {
    const { part, viewer } = this;
    part.slider.value = String(viewer.index + 1);
    part.slice.textContent = `${viewer.index + 1} / ${viewer.count}`;
    part.slider.setAttribute("aria-valuetext", `slice ${viewer.index + 1} of ${viewer.count}`);
    const { low, high } = viewer.window;
    const fine = high - low < 20;
    const text = (value) => (fine ? value.toFixed(2) : String(Math.round(value)));
    const colour = viewer.first.samples > 1;
    part.window.textContent = colour
      ? "colour"
      : `W ${text(high - low)}  L ${text((low + high) / 2)}`;
    const named = viewer.presets().findIndex((one) => one[1] === low && one[2] === high);
    part.preset.selectedIndex = named + 1;
    const letters = viewer.letters();
    for (const edge of ["top", "bottom", "left", "right"]) {
      part[edge].textContent = letters ? letters[edge] : "";
    }
    const names = viewer.scene.findings
      .filter((one) => one.segment_number && viewer.masks.bitmap(one.segment_number, viewer.index))
      .map((one) => one.target);
    const seen = viewer.plane.key === "native" && names.length ? `; masks: ${names.join(", ")}` : "";
    viewer.picture.canvas.setAttribute(
      "aria-label",
      `${viewer.plane.name} slice ${viewer.index + 1} of ${viewer.count}${seen}`,
    );
  }

  /** Write what lies under the pointer. */
  hover(point) {
    const found = point ? this.viewer.describe(point) : null;
    this.part.pointer.textContent = found ? describe(found) : "";
  }

  #scale() {
    const perPixel = this.viewer.scale();
    const bar = this.part.scale;
    bar.hidden = perPixel === null;
    if (perPixel === null) return;
    const length = [...SCALES].reverse().find((mm) => mm / perPixel <= 120) ?? SCALES[0];
    bar.style.width = `${length / perPixel}px`;
    bar.textContent = length >= 10 ? `${length / 10} cm` : `${length} mm`;
  }

  /** Save what is seen, with masks and without letters, as PNG. */
  save() {
    const { canvas } = this.viewer.picture;
    this.viewer.picture.draw();
    canvas.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${this.viewer.scene.name}-slice-${this.viewer.index + 1}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    }, "image/png");
  }
}

function describe({ frame, row, column, value, unit, patient }) {
  const shown = Array.isArray(value)
    ? `RGB ${value.join(" ")}`
    : `${Number.isInteger(value) ? value : value.toFixed(2)}${unit === "arbitrary" ? "" : ` ${unit}`}`;
  const place = patient ? `  x ${patient.map((mm) => mm.toFixed(1)).join("  ")} mm` : "";
  return `${shown}  ·  slice ${frame + 1}, row ${row + 1}, column ${column + 1}${place}`;
}

function stretches(frames) {
  const found = [];
  for (const frame of frames) {
    const last = found.at(-1);
    if (last && frame === last[1] + 1) last[1] = frame;
    else found.push([frame, frame]);
  }
  return found;
}
