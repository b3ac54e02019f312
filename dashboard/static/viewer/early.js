// Asks for the description and the first slice at once, while the other scripts are on their way.

const root = document.querySelector("[data-viewer-root]");

function begin(address) {
  const answer = fetch(address);
  answer.catch(() => {}); // Told by whoever takes it.
  return answer;
}

/** The answer about the scene; taken once. */
export const scene = root ? begin(root.dataset.scene) : null;
const first = root?.dataset.first ? begin(root.dataset.first) : null;

let taken = false;

/** The answer with the frame of this address, where the page asked for it at its start. */
export function firstFrame(address) {
  if (taken || !first || address !== root.dataset.first) return null;
  taken = true;
  return first;
}
