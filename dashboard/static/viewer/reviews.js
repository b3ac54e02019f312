// Accept, edit or reject a finding: kept by the node with name and time.

import { send, say } from "../page.js";

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
      this.viewer.setVersion(finding.segment_number, "edited");
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
    if (!drawing.framesOf(segment).length) {
      say("Paint or erase something first; to keep the mask as it is, accept it.", true);
      return;
    }
    // The last verdict counts alone, so it brings along what was edited before.
    const edits = Object.fromEntries(
      viewer.masks.editedFrames(segment).map((frame) => [frame, [...viewer.masks.edit(segment, frame)]]),
    );
    if (await this.#keep(finding, { verdict: "edited", edits })) this.#leave();
  }

  #leave() {
    const { segment_number: segment } = this.viewer.findingAt(this.editing);
    if (this.drawing.framesOf(segment).length) {
      say("Your strokes are not saved yet: press Edit again, then save or discard them.", true);
    }
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
      this.drawing.forget(finding.segment_number);
      if (said.verdict !== "edited") this.viewer.dropEdits(finding.segment_number);
      this.list.verdict(finding);
      say(`Finding ${finding.position + 1}: ${said.verdict}.`);
      return true;
    } catch (error) {
      say(`Not kept: ${error.message}`, true);
      return false;
    }
  }
}
