// The sentences beside the picture: what was found, how sure, how large, and what a person says.

import { localTime } from "../page.js";
import { plain } from "./text.js";

const PRESENCE = { present: "present", absent: "not seen", uncertain: "uncertain" };

export class FindingList extends EventTarget {
  /** `judged` tells whether the reader may accept, edit and reject. */
  constructor(list, viewer, { judged = false } = {}) {
    super();
    Object.assign(this, { list, viewer, judged });
    this.template = document.getElementById("finding-template");
    viewer.addEventListener("finding", () => this.#chosen());
    viewer.addEventListener("masks", () => {
      this.#colours();
      this.#versions();
    });
    viewer.addEventListener("shown", () => this.#switches());
    this.render();
  }

  render() {
    this.items = new Map();
    this.list.replaceChildren();
    for (const finding of this.viewer.scene.findings) {
      const item = this.template.content.firstElementChild.cloneNode(true);
      this.items.set(finding.position, item);
      this.#fill(item, finding);
      this.list.append(item);
    }
    this.#colours();
    this.#versions();
    this.#chosen();
  }

  #fill(item, finding) {
    const part = (name) => item.querySelector(name);
    item.dataset.finding = String(finding.position);
    const sentence = part(".sentence");
    sentence.textContent = plain(finding.text);
    sentence.disabled = !finding.segment_number;
    if (finding.segment_number) {
      sentence.title = `Slice ${finding.key_frame + 1} shows it best`;
      sentence.addEventListener("click", () => this.viewer.choose(finding.position));
      part(".switch input").addEventListener("change", (event) =>
        this.viewer.setHidden(finding.segment_number, !event.target.checked),
      );
      part(".switch .hidden").textContent = `Show the mask of: ${plain(finding.target)}`;
    } else {
      part(".switch").remove();
      part(".swatch").classList.add("none");
    }
    for (const button of item.querySelectorAll("[data-version]")) {
      button.addEventListener("click", () =>
        this.viewer.setVersion(finding.segment_number, button.dataset.version),
      );
    }
    const sure = `${PRESENCE[finding.presence] ?? finding.presence}, probability ${finding.confidence.toFixed(2)}`;
    const overlap =
      finding.predicted_iou === null ? "" : ` · the model's own estimate of its mask ${finding.predicted_iou.toFixed(2)}`;
    part(".sure").textContent = `${sure}${overlap}`;
    part(".mark-urgent").hidden = !finding.critical;
    part(".sure").title = `Asked: ${plain(finding.prompt)}`;
    part(".judge").hidden = !this.judged;
    for (const button of item.querySelectorAll("[data-verdict]")) {
      const { verdict } = button.dataset;
      if (button.tagName !== "BUTTON") continue;
      if (verdict === "edited" && !finding.segment_number) button.remove();
      button.addEventListener("click", () =>
        this.dispatchEvent(new CustomEvent("verdict", { detail: { finding, verdict } })),
      );
    }
    this.verdict(finding);
  }

  /** Write what a person said of a finding. */
  verdict(finding) {
    const item = this.items.get(finding.position);
    const line = item.querySelector(".verdict");
    const { review } = finding;
    const edited = review?.verdict === "edited";
    item.querySelector(".versions").hidden = !edited;
    item.querySelector(".numbers").textContent = [
      ...finding.measured,
      ...(edited && finding.measured.length ? ["measured on the model's mask"] : []),
    ].join(" · ");
    if (!review) return;
    line.dataset.verdict = review.verdict;
    const when = localTime(review.at);
    const share = review.dice === null ? "" : `, Dice ${review.dice.toFixed(3)} with the model's mask`;
    const remark = review.remark ? `: ${plain(review.remark)}` : "";
    line.textContent = `${review.verdict} by ${plain(review.account)}, ${when}${share}${remark}`;
  }

  #colours() {
    for (const finding of this.viewer.scene.findings) {
      const item = this.items.get(finding.position);
      if (!finding.segment_number || !item) continue; // Another answer: `render` comes next.
      const colour = `rgb(${this.viewer.colourOf(finding.segment_number).join(" ")})`;
      item.querySelector(".swatch").style.background = colour;
      item.style.borderLeftColor = colour;
    }
  }

  #versions() {
    for (const finding of this.viewer.scene.findings) {
      const item = this.items.get(finding.position);
      const shown = this.viewer.masks.asModel.has(finding.segment_number) ? "model" : "edited";
      for (const button of item?.querySelectorAll("[data-version]") ?? []) {
        button.setAttribute("aria-pressed", String(button.dataset.version === shown));
      }
    }
  }

  #switches() {
    for (const finding of this.viewer.scene.findings) {
      const box = this.items.get(finding.position)?.querySelector(".switch input");
      if (box) box.checked = !this.viewer.hidden.has(finding.segment_number);
    }
  }

  #chosen() {
    for (const [position, item] of this.items) {
      const chosen = position === this.viewer.finding;
      item.classList.toggle("chosen", chosen);
      item.querySelector(".sentence").setAttribute("aria-pressed", String(chosen));
      // Within the list only: the page itself stays where the reader put it.
      if (chosen && this.list.parentElement.scrollHeight > this.list.parentElement.clientHeight) {
        this.list.parentElement.scrollTop = item.offsetTop - this.list.parentElement.offsetTop - 60;
      }
    }
  }
}
