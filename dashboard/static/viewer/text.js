// Text of foreign origin: shown as text, without characters that trick the eye.

const TRICKS = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]/g;
const LONGEST = 2000;

/** The text without control characters and changes of direction, bounded. */
export function plain(text) {
  const shown = String(text ?? "").replaceAll(/[\r\n\t]+/g, " ").replaceAll(TRICKS, "\ufffd");
  return shown.length > LONGEST ? `${shown.slice(0, LONGEST)}…` : shown;
}
