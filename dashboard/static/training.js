// Tells how far the export of training data is, which the browser takes as a download.

import { request } from "./request.js";

const LOOK = 1000;
const button = document.getElementById("export");
const part = document.getElementById("export-part");
const words = document.getElementById("export-words");
let patience = 0;

function told(one) {
  const size = `${(one.bytes / 1e6).toFixed(1)} MB`;
  const left = Object.entries(one.left_out).map(([why, count]) => `${count} left out: ${why}`);
  const rest = left.length ? ` (${left.join("; ")})` : "";
  if (one.ended_at === null) return `${one.done} of ${one.findings} findings, ${size}${rest}`;
  if (one.whole) return `Done: ${one.done} findings, ${size}${rest}`;
  return `Broken off after ${one.done} of ${one.findings} findings: the archive is of no use.`;
}

async function asked() {
  try {
    const response = await request("/api/training-data", { headers: { "X-Live": "1" } });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

async function look() {
  const answer = await asked();
  if (answer === null) {
    words.textContent = "The node does not answer; the download may go on.";
    return setTimeout(look, LOOK);
  }
  const { export: last } = answer;
  if (last !== null) {
    part.hidden = last.ended_at !== null;
    part.value = last.findings ? last.done / last.findings : 0;
    words.textContent = told(last);
  }
  const runs = last !== null && last.ended_at === null;
  if (runs) patience = 0;
  if (runs || patience-- > 0) setTimeout(look, LOOK);
}

button.addEventListener("click", () => {
  patience = 5; // the node needs a moment to begin
  words.textContent = "";
  setTimeout(look, LOOK);
});
look();
