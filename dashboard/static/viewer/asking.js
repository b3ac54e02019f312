// Ask the model about the images that are shown; the answer appears with its mask.

import { ask, localTime, say, send } from "../page.js";
import { Masks } from "./masks.js";
import { plain } from "./text.js";

const LOOK = 500; // ms between two looks at an answer that is under way
const OPEN = ["queued", "running"];
const STATES = {
  queued: "waits for the model",
  running: "the model is answering",
  answered: "answered",
  not_covered: "not covered",
  failed: "failed",
  cancelled: "taken back",
};

export class Asking {
  constructor(root, viewer, panel, drawing, list) {
    Object.assign(this, { root, viewer, panel, drawing, list });
    this.address = root.dataset.questions;
    this.form = root.querySelector("[data-ask-form]");
    this.history = root.querySelector("[data-viewer=questions]");
    this.template = document.getElementById("question-template");
    this.items = new Map();
    this.form.addEventListener("change", () => this.#kind());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    drawing.addEventListener("box", () => this.#box());
    this.#kind();
    this.#load();
  }

  get kind() {
    return new FormData(this.form).get("kind");
  }

  #kind() {
    const { kind, form } = this;
    for (const part of form.querySelectorAll("[data-for]")) {
      const wanted = part.dataset.for.split(" ").includes(kind);
      part.hidden = !wanted;
      for (const input of part.querySelectorAll("input")) input.required = wanted;
    }
    const boxed = kind.startsWith("region");
    if (boxed) this.panel.setTool("box");
    else if (this.panel.tool === "box") this.panel.setTool("scroll");
    this.#box();
  }

  #box() {
    const { box } = this.viewer;
    const said = this.form.querySelector("[data-box]");
    said.textContent = box
      ? `Slice ${box.frame + 1}, rows ${box.top + 1} to ${box.bottom}, columns ${box.left + 1} to ${box.right}.`
      : "Draw a box on the picture.";
    const boxed = this.kind.startsWith("region");
    this.form.querySelector("[data-submit]").disabled = boxed && !box;
  }

  #task() {
    const said = new FormData(this.form);
    const { kind } = this;
    if (kind === "segmentation") return { kind, targets: [said.get("target")] };
    if (kind.startsWith("region")) {
      const { top, left, bottom, right, frame } = this.viewer.box;
      return { kind, region: { frame, box: [top, left, bottom, right] } };
    }
    return { kind, question: said.get("question") };
  }

  async #ask() {
    try {
      this.#put(await send("POST", this.address, this.#task()), true);
    } catch (error) {
      say(error.message, true);
    }
  }

  async #load() {
    try {
      const answer = await send("GET", this.address);
      for (const question of answer.questions.toReversed()) this.#put(question, false);
    } catch (error) {
      say(`The earlier questions cannot be shown: ${error.message}`, true);
    }
  }

  #put(question, fresh) {
    let item = this.items.get(question.id);
    if (!item) {
      item = this.template.content.firstElementChild.cloneNode(true);
      this.items.set(question.id, item);
      this.history.prepend(item);
      item.querySelector("[data-question=show]").addEventListener("click", () => this.#show(item.question));
      item.querySelector("[data-question=cancel]").addEventListener("click", () => this.#cancel(item.question));
      item.querySelector("[data-question=send]").addEventListener("click", () => this.#send(item.question));
    }
    item.question = question;
    this.#fill(item, question);
    if (OPEN.includes(question.state)) setTimeout(() => this.#look(question.id, fresh), LOOK);
    else if (fresh && question.state === "answered") this.#show(question);
  }

  #fill(item, question) {
    const part = (name) => item.querySelector(`[data-question=${name}]`);
    const open = OPEN.includes(question.state);
    part("asked").textContent = plain(question.words);
    part("by").textContent = `${plain(question.asked_by)}, ${localTime(question.asked_at)}`;
    part("state").textContent = STATES[question.state];
    part("state").dataset.tone =
      { answered: "good", failed: "bad", not_covered: "wait" }[question.state] ?? (open ? "run" : "still");
    part("progress").hidden = question.state !== "running";
    part("progress").value = question.progress ?? 0;
    part("said").textContent = plain(
      question.error || question.findings.map((one) => one.text).join(" "),
    );
    part("cancel").hidden = !open;
    part("show").hidden = question.state !== "answered";
    part("send").hidden = question.state !== "answered" || question.job_id !== null;
    part("job").hidden = question.job_id === null;
    part("job").href = `/jobs/${question.job_id}`;
    part("job").textContent = `Sent as job ${question.job_id}`;
  }

  async #look(id, fresh) {
    try {
      this.#put(await send("GET", `/api/questions/${id}`), fresh);
    } catch (error) {
      say(`Question ${id}: ${error.message}`, true);
      setTimeout(() => this.#look(id, fresh), 5 * LOOK);
    }
  }

  async #show(question) {
    const { scene } = question;
    if (!scene) {
      say("This answer is about other images of the study.", true);
      return;
    }
    try {
      await this.viewer.setScene({ ...this.viewer.scene, ...scene });
      this.list.render();
      this.root.querySelector("[data-viewer=no-findings]").hidden = scene.findings.length > 0;
      const first = scene.findings.find((one) => one.segment_number);
      if (first) this.viewer.choose(first.position);
    } catch (error) {
      say(`The answer cannot be shown: ${error.message}`, true);
    }
  }

  async #cancel(question) {
    try {
      this.#put(await send("POST", `/api/questions/${question.id}/cancel`), false);
    } catch (error) {
      say(error.message, true);
    }
  }

  async #send(question) {
    const choice = this.panel.part.destination; // there where there is more than one
    const chosen = choice?.value;
    const toAll = choice?.selectedOptions[0].dataset.all !== undefined;
    if (choice && !chosen && !toAll) {
      say("Choose first where the answer is sent.", true);
      choice.focus();
      return;
    }
    const where = chosen || this.root.dataset.destinations;
    const text = `Write this answer as SEG and SR and send it to ${where}? They go the way of every result: encoded, checked, delivered, proven.`;
    if (!(await ask(text, "Send"))) return;
    try {
      const sent = await send("POST", `/api/questions/${question.id}/send`, {
        destinations: chosen ? [chosen] : null,
      });
      this.#put(sent, false);
      say(`Sent as job ${sent.job_id}.`);
    } catch (error) {
      say(error.message, true);
    }
  }
}
