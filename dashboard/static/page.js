// What every page does: theme, questions before what cannot be undone, keys.

import { LONG_SECONDS, request } from "./request.js";

function remember(name, value) {
  document.cookie = `${name}=${value}; path=/; max-age=31536000; samesite=lax`;
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Say something at the foot of the page, for eyes and screen readers. */
export function say(text, bad = false) {
  const line = document.createElement("p");
  line.textContent = text;
  if (bad) line.className = "bad";
  document.getElementById("said").append(line);
  setTimeout(() => line.remove(), bad ? 9000 : 4500);
}

const zone = document.querySelector("meta[name=zone]").content;

/** A time as the pages write it: 2026-11-27 04:05, in the site's zone. */
export function localTime(at) {
  // Without a named zone the page has an offset, which not every browser takes for a zone.
  const [, sign, hours, minutes] = zone.match(/^([+-])(\d\d):(\d\d)$/) ?? [];
  const ahead = sign ? Number(`${sign}1`) * (Number(hours) * 60 + Number(minutes)) * 60_000 : 0;
  const form = { timeZone: sign ? "UTC" : zone, dateStyle: "short", timeStyle: "short" };
  return new Date(Date.parse(at) + ahead).toLocaleString("sv-SE", form);
}

/** Ask before something is done; resolves to whether it should be. */
export function ask(text, yes = "Do it") {
  const dialog = document.getElementById("ask");
  document.getElementById("ask-text").textContent = text;
  document.getElementById("ask-yes").textContent = yes;
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    dialog.returnValue = "no";
    dialog.showModal();
  });
}

/** Send JSON to the node as this page; resolves to its answer, rejects with its sentence. */
export async function send(method, address, content) {
  const headers = { "X-CSRF-Token": document.querySelector("meta[name=csrf]").content };
  if (content !== undefined) headers["Content-Type"] = "application/json";
  const response = await request(address, {
    method,
    seconds: LONG_SECONDS,
    headers,
    body: content === undefined ? undefined : JSON.stringify(content),
  });
  const answer = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) throw new Error(answer?.detail ?? `The node answered ${response.status}.`);
  return answer;
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-theme-button]")) {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    remember("theme", theme);
  }
  for (const menu of document.querySelectorAll(".person[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

document.addEventListener("submit", async (event) => {
  const form = event.target;
  // Back to the slice and filter of now, not to those that the page began with.
  if (form.matches("[data-back]")) form.elements.back.value = location.pathname + location.search;
  const question = event.submitter?.dataset.ask ?? form.dataset.ask;
  if (!question || form.dataset.asked) return;
  event.preventDefault();
  const submitter = event.submitter;
  if (await ask(question, submitter?.textContent.trim() || "Do it")) {
    form.dataset.asked = "yes";
    form.requestSubmit(submitter);
    delete form.dataset.asked;
  }
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    document.getElementById("find")?.focus();
  }
  if (event.key === "Escape") {
    for (const menu of document.querySelectorAll(".person[open]")) menu.open = false;
  }
});

// Said by the request before, such as "Job 7 is looked at at once."
const told = document.cookie.match(/(?:^|; )said=([^;]*)/);
if (told) {
  document.cookie = "said=; path=/; max-age=0; samesite=strict";
  const text = decodeURIComponent(told[1]);
  say(text.replace(/^!/, ""), text.startsWith("!"));
}
