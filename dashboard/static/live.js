// Keeps the parts of a page that carry data-live as they are on the server.
//
// An event says only that something changed. The page then asks for itself once more and puts in
// those parts that differ; what a person has ticked, opened or typed elsewhere stays.

import { request } from "./request.js";

const lamp = document.querySelector("#alive .dot");
const words = document.querySelector("#alive span:last-child");
const SHORTEST = 900;
let last = 0;
let waiting = null;
let busy = false;

function show(tone, text) {
  lamp.dataset.tone = tone;
  if (words.textContent !== text) words.textContent = text;
}

function put(old, fresh) {
  const ticked = new Set([...old.querySelectorAll("input:checked")].map((box) => box.id));
  const open = new Set([...old.querySelectorAll("details[open][id]")].map((one) => one.id));
  const typed = old.querySelectorAll("input[id]:not([type=checkbox], [type=hidden]), select[id]");
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  const selected = old.querySelector("[aria-selected=true]")?.id;
  for (const box of fresh.querySelectorAll("input[type=checkbox]")) {
    if (ticked.has(box.id)) box.checked = true;
  }
  for (const one of fresh.querySelectorAll("details[id]")) if (open.has(one.id)) one.open = true;
  for (const one of typed) {
    const place = fresh.querySelector(`#${CSS.escape(one.id)}`);
    if (place) place.value = one.value;
  }
  if (selected) fresh.querySelector(`#${CSS.escape(selected)}`)?.setAttribute("aria-selected", "true");
  old.replaceWith(fresh);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

async function refresh() {
  // Without such parts there is nothing to ask for, and a page that answers a form has no address.
  if (!document.querySelector("[data-live]")) return;
  if (busy) return later();
  busy = true;
  last = Date.now();
  try {
    const response = await request(location.href, { headers: { "X-Live": "1" } });
    if (response.status === 401) return location.reload();
    if (!response.ok) return show("bad", "the node does not answer");
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const old of document.querySelectorAll("[data-live]")) {
      const fresh = page.getElementById(old.id);
      const editing = old.contains(document.activeElement) &&
        document.activeElement.matches("input:not([type=checkbox]), textarea, select");
      if (fresh && !editing && fresh.outerHTML !== old.dataset.html) {
        const html = fresh.outerHTML;
        put(old, fresh);
        fresh.dataset.html = html;
      }
    }
    show("good", "live");
  } catch {
    show("bad", "the node does not answer");
  } finally {
    busy = false;
  }
}

function later() {
  if (waiting !== null) return;
  waiting = setTimeout(() => {
    waiting = null;
    refresh();
  }, Math.max(50, SHORTEST - (Date.now() - last)));
}

function concerns(jobs) {
  const job = document.querySelector("[data-job]")?.dataset.job;
  return job === undefined || jobs.includes(Number(job));
}

// What stands here may be old: said above the content, where the small lamp would not be seen.
function stale(reason, outcome = "the page goes on by itself") {
  const banner = document.getElementById("stale");
  banner.hidden = reason === "";
  const words = reason && `${reason} What stands here is how it was; ${outcome}.`;
  if (banner.textContent !== words) banner.textContent = words;
}

function isTyped() {
  const fields = document.querySelectorAll("textarea, input:is([type=text], [type=search], :not([type]))");
  return [...fields].some((one) => one.value !== one.defaultValue);
}

const AGAIN = 3000;
let source = null;
let broken = false;

function listen() {
  source = new EventSource("/live");
  source.addEventListener("open", () => {
    show("good", "live");
    stale("");
    if (broken) later();
    broken = false;
  });
  source.addEventListener("error", () => {
    broken = true;
    show("bad", "the node does not answer");
    stale("The node does not answer.");
    // After an answer other than 200 (the database was away, a proxy had nobody behind it) a
    // browser gives up for good.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN);
  });
  source.addEventListener("away", () => {
    show("bad", "the database is away");
    stale("The database does not answer. What is received stays in the archive; nothing is lost.");
  });
  source.addEventListener("back", () => {
    show("good", "live");
    stale("");
    later();
  });
  source.addEventListener("over", () => {
    // Logged out, or in another role now. What was typed is left for its owner to copy.
    source.close();
    // Not a reload: a page that answers a form would ask whether to send it again.
    if (!isTyped()) return location.assign(location.pathname + location.search);
    show("bad", "not logged in");
    stale("You are not logged in any more, or in another role now.", "load the page again");
  });
  source.addEventListener("jobs", (event) => {
    const { jobs } = JSON.parse(event.data);
    document.dispatchEvent(new CustomEvent("node:jobs", { detail: jobs }));
    if (concerns(jobs)) later();
  });
}

listen();
// Ages grow and clocks go on without any event.
setInterval(() => {
  if (!document.hidden) later();
}, 15000);
addEventListener("pagehide", () => source.close());
