// Starts the viewer on its page: of a job, or of a series that may be asked about.

import { listenToKeys, Pointing } from "./pointing.js";
import { Panel } from "./panel.js";
import { Viewer } from "./viewer.js";
import { Drawing } from "./drawing.js";
import { FindingList } from "./findings.js";
import { Reviews } from "./reviews.js";
import { Asking } from "./asking.js";
import { sentenceOf } from "./frames.js";
import { request } from "../request.js";

// What the page brought along; without it, it is asked for.
const written = document.getElementById("scene");
const firstScene = written ? JSON.parse(written.textContent) : null;

async function fetchScene(address) {
  const answer = await request(address);
  if (!answer.ok) throw new Error(await sentenceOf(answer));
  return answer.json();
}

function tell(root, text) {
  const message = root.querySelector("[data-viewer=message]");
  message.textContent = text;
  message.hidden = false;
}

function begin(root, scene) {
  const canvas = root.querySelector("canvas");
  const viewer = new Viewer(canvas, scene);
  const panel = new Panel(root, viewer);
  const drawing = new Drawing(viewer, panel);
  const judged = Boolean(root.dataset.reviews);
  const list = new FindingList(panel.part.findings, viewer, { judged });
  const act = {
    scroll: (steps) => viewer.scroll(steps),
    zoom: (factor, point) => viewer.picture.zoomBy(factor, point),
    pan: (x, y) => viewer.picture.panBy(x, y),
    window: (x, y) => viewer.dragWindow(x, y),
    fit: () => viewer.picture.fit(),
    click: (point) => viewer.clickAt(point),
    hover: (point) => panel.hover(point),
    invert: () => viewer.invert(),
    preset: (number) => viewer.preset(number),
    toggleMasks: () => panel.toggleMasks(),
    toggleStyle: () => panel.toggleStyle(),
    opacity: (change) => panel.opacity(change),
    nextFinding: (step) => viewer.nextFinding(step),
    nextPlane: () => viewer.nextPlane(),
    drawStart: (kind, point) => drawing.start(kind, point),
    drawMove: (kind, point) => drawing.move(kind, point),
    drawEnd: (kind) => drawing.end(kind),
    cancelDraw: () => drawing.cancel(),
    escape: () => {
      drawing.cancel();
      drawing.setBox(null);
      panel.setTool("scroll");
      viewer.choose(null);
    },
    help: () => panel.part.keys.showModal(),
  };
  new Pointing(canvas, { tool: () => panel.tool, act });
  listenToKeys(document, act);
  if (judged) new Reviews(root, viewer, panel, drawing, list);
  if (root.dataset.questions) new Asking(root, viewer, panel, drawing, list);
  root.viewer = viewer; // for tests, and for whoever looks for a mistake
  return { viewer, panel, drawing, list };
}

async function start(root) {
  const empty = root.querySelector("[data-viewer=no-findings]");
  let parts = null;
  let version = null;

  async function look() {
    try {
      const scene = (version === null && firstScene) || (await fetchScene(root.dataset.scene));
      if (scene.version === version || parts?.drawing.edited.size) return;
      version = scene.version;
      if (empty) empty.hidden = scene.findings.length > 0;
      if (!scene.frames) {
        tell(root, root.dataset.without);
        return;
      }
      if (!parts) {
        parts = begin(root, scene);
        await parts.viewer.start();
        return;
      }
      // Results or verdicts came while the page was open; the reader's slice and window stay.
      await parts.viewer.setScene(scene, { stay: true });
      parts.list.render();
    } catch (error) {
      tell(root, `The images cannot be shown: ${error.message}`);
    }
  }

  const mark = document.getElementById("viewer-version");
  if (mark) new MutationObserver(look).observe(mark.parentElement, { childList: true });
  await look();
}

const root = document.querySelector("[data-viewer-root]");
if (root) start(root);
