// The editor: line numbers, a tab that indents, and a file that can be dropped.

import { say } from "./page.js";

const MOST = 64 * 1024 * 1024;
const editor = document.querySelector("#editor textarea");
const lines = document.querySelector("#editor .lines");
const drop = document.querySelector("[data-drop]");

function number() {
  const marked = new Set([...document.querySelectorAll(".problem")].map((one) => Number(one.textContent.match(/rules\.yaml:(\d+)/)?.[1])));
  lines.replaceChildren(...editor.value.split("\n").map((_, index) => {
    const line = document.createElement("span");
    line.textContent = index + 1;
    if (marked.has(index + 1)) line.dataset.bad = "";
    return line;
  }));
  lines.scrollTop = editor.scrollTop;
}

editor.addEventListener("input", number);
editor.addEventListener("scroll", () => { lines.scrollTop = editor.scrollTop; });
number();

if (drop) {
  const input = drop.querySelector("input");
  const said = drop.querySelector("[data-drop-said]");
  const look = () => {
    const file = input.files[0];
    if (!file) return;
    if (file.size > MOST) {
      input.value = "";
      said.textContent = `${file.name} is larger than 64 MiB. Any one image of the series will do.`;
      return say(said.textContent, true);
    }
    said.textContent = `${file.name} is looked at and kept nowhere.`;
    editor.form.requestSubmit(editor.form.querySelector("[formaction='/rules/try']"));
  };
  input.addEventListener("change", look);
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => { event.preventDefault(); drop.dataset.over = ""; });
  }
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => { delete drop.dataset.over; });
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length === 0) return;
    input.files = event.dataTransfer.files;
    look();
  });
  drop.dataset.ready = "";
}
