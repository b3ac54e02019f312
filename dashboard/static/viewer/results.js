// Structured Reports as trees that open and close.

import { plain } from "./text.js";
import { sentenceOf } from "./frames.js";
import { request } from "../request.js";

const OPEN_DEPTH = 2;

function branch(item, depth) {
  const element = document.createElement("li");
  const line = document.createElement("span");
  line.className = "sr-line";
  const put = (text, name) => {
    if (!text) return;
    const span = document.createElement("span");
    span.className = name;
    span.textContent = plain(text);
    line.append(span, " ");
  };
  put(item.relationship.toLowerCase(), "sr-relationship");
  put(item.name || item.type.toLowerCase(), "sr-name");
  put(item.value, "sr-value");
  for (const { class: kind, frames, segments } of item.references) {
    const place = [
      segments.length ? `segment ${segments.join(", ")}` : "",
      frames.length ? `frame ${frames.join(", ")}` : "",
    ].filter(Boolean);
    put(`${kind}${place.length ? ` (${place.join("; ")})` : ""}`, "sr-value");
  }
  line.title = plain([item.type, item.code].filter(Boolean).join("  "));
  if (!item.children.length) {
    element.append(line);
    return element;
  }
  const details = document.createElement("details");
  details.open = depth < OPEN_DEPTH;
  const summary = document.createElement("summary");
  summary.append(line);
  const children = document.createElement("ul");
  children.append(...item.children.map((child) => branch(child, depth + 1)));
  details.append(summary, children);
  element.append(details);
  return element;
}

async function open(details) {
  const place = details.querySelector(".sr-tree");
  if (place.dataset.filled) return;
  place.dataset.filled = "yes";
  place.textContent = "Loading …";
  try {
    const answer = await request(details.dataset.tree);
    if (!answer.ok) throw new Error(await sentenceOf(answer));
    const list = document.createElement("ul");
    list.append(branch(await answer.json(), 0));
    place.replaceChildren(list);
  } catch (error) {
    place.textContent = `The report cannot be shown: ${error.message}`;
    delete place.dataset.filled;
  }
}

document.addEventListener(
  "toggle",
  (event) => {
    if (event.target.matches?.("details[data-tree]") && event.target.open) open(event.target);
  },
  true,
);
// Live updates put closed trees in the place of open ones: fill those that are opened again.
const results = document.getElementById("results");
if (results) {
  new MutationObserver(() => {
    for (const details of document.querySelectorAll("details[data-tree][open]")) open(details);
  }).observe(results.parentElement, { childList: true });
}
