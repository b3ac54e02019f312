// Asks for the first slice at once, while the other scripts are on their way.

const root = document.querySelector("[data-viewer-root]");

function begin(address) {
  const answer = fetch(address);
  answer.catch(() => {}); // Told by whoever takes it.
  return answer;
}

const written = document.getElementById("scene");

/** The description that the page brought along; null where it has to be asked for. */
export const firstScene = written ? JSON.parse(written.textContent) : null;

const first = root?.dataset.first ? begin(root.dataset.first) : null;

let taken = false;

/** The answer with the frame of this address, where the page asked for it at its start. */
export function firstFrame(address) {
  if (taken || !first || address !== root.dataset.first) return null;
  taken = true;
  return first;
}
