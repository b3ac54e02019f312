// Accept, edit or reject a finding: kept by the node with name and time.

import { send, say } from "/static/page.js";
import { runsOf } from "./masks.js";

export class Reviews {
  constructor(root, viewer, panel, drawing, list) {
    Object.assign(this, { root, viewer, panel, drawing, list });
    this.address = root.dataset.reviews;
    this.editing = null;
    list.addEventListener("verdict", ({ detail }) => this.#judge(detail));
    const { part } = panel;
    for (const button of part.brush.querySelectorAll("[data-brush]")) {
      button.addEventListener("click", () => this.#brush(button.dataset.brush));
    }
    part["brush-size"].addEventListener("input", () => {
      drawing.size = part["brush-size"].valueAsNumber;
    });
    drawing.addEventListener("edited", () => this.#told());
    viewer.addEventListener("finding", () => {
      if (this.editing !== null && viewer.finding !== this.editing) this.#leave();
    });
  }

  async #judge({ finding, verdict }) {
    if (verdict === "edited") {
      this.viewer.choose(finding.position);
      this.editing = finding.position;
      this.panel.part.brush.hidden = false;
      this.panel.setTool("brush");
      this.#told();
      return;
    }
    await this.#keep(finding, { verdict });
  }

  async #brush(what) {
    const { drawing, panel, viewer } = this;
    if (what === "paint" || what === "erase") {
      drawing.erasing = what === "erase";
      for (const button of panel.part.brush.querySelectorAll("[aria-pressed]")) {
        button.setAttribute("aria-pressed", String(button.dataset.brush === what));
      }
      panel.setTool("brush");
      return;
    }
    const finding = viewer.findingAt(this.editing);
    const segment = finding.segment_number;
    if (what === "undo") {
      drawing.undo(segment);
      this.#leave();
      return;
    }
    const frames = drawing.framesOf(segment);
    if (!frames.length) {
      say("Paint or erase something first; to keep the mask as it is, accept it.", true);
      return;
    }
    const edits = Object.fromEntries(
      frames.map((frame) => [frame, [...runsOf(viewer.masks.bitmap(segment, frame))]]),
    );
    if (await this.#keep(finding, { verdict: "edited", edits })) {
      drawing.forget(segment);
      this.#leave();
    }
  }

  #leave() {
    this.editing = null;
    this.panel.part.brush.hidden = true;
    if (this.panel.tool === "brush") this.panel.setTool("scroll");
  }

  #told() {
    if (this.editing === null) return;
    const segment = this.viewer.findingAt(this.editing).segment_number;
    const count = this.drawing.framesOf(segment).length;
    this.panel.part["brush-frames"].textContent = count
      ? `${count} slice${count > 1 ? "s" : ""} changed`
      : "nothing changed yet";
  }

  async #keep(finding, said) {
    try {
      finding.review = await send("POST", `${this.address}/${finding.position}/review`, said);
      this.list.verdict(finding);
      say(`Finding ${finding.position + 1}: ${said.verdict}.`);
      return true;
    } catch (error) {
      say(`Not kept: ${error.message}`, true);
      return false;
    }
  }
}
