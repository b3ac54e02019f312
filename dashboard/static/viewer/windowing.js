// From values to shades of grey: window and level (PS3.3 C.11.2.1.2, linear exact).

const CT_PRESETS = [
  ["Soft tissue", -160, 240],
  ["Lung", -1350, 150],
  ["Bone", -450, 1050],
  ["Brain", 0, 80],
  ["Liver", -15, 125],
  ["Mediastinum", -125, 275],
];
const PET_PRESETS = [
  ["SUV 0 to 5", 0, 5],
  ["SUV 0 to 10", 0, 10],
  ["SUV 0 to 20", 0, 20],
];

/** Named windows for images like this frame: [name, low, high]. */
export function presetsFor(frame) {
  if (frame.samples > 1) return [];
  const named = [];
  if (frame.window) named.push(["As in the header", ...frame.window]);
  if (frame.unit === "HU") named.push(...CT_PRESETS);
  if (frame.unit === "SUVbw") named.push(...PET_PRESETS);
  const { low, high, most } = frame.range;
  named.push(["Automatic", ...atLeast(most)], ["All values", ...atLeast([low, high])]);
  return named;
}

function atLeast([low, high]) {
  return high > low ? [low, high] : [low - 0.5, low + 0.5];
}

/** The window that a frame is first shown in: the header's, unless nearly all would be dark. */
export function firstWindow(frame) {
  if (frame.samples > 1) return { low: 0, high: 255, inverted: false };
  const inverted = frame.unit === "SUVbw";
  const [low, high] = atLeast(frame.range.most);
  if (inverted) return { low: 0, high: Math.max(high, 1), inverted };
  const stated = frame.window;
  if (stated && high - low >= (stated[1] - stated[0]) / 3) {
    return { low: stated[0], high: stated[1], inverted };
  }
  if (frame.unit === "HU") return { low: CT_PRESETS[0][1], high: CT_PRESETS[0][2], inverted };
  return { low, high, inverted };
}

/** Draw a frame's values into pixels (RGBA as one 32-bit number each). */
export function shade(frame, { low, high, inverted }, pixels) {
  const out = new Uint32Array(pixels.data.buffer);
  if (frame.samples > 1) return colours(frame.values, out);
  const scale = 255 / Math.max(high - low, 1e-9);
  if (frame.values instanceof Float32Array) {
    for (let i = 0; i < out.length; i += 1) {
      out[i] = grey((frame.values[i] - low) * scale, inverted);
    }
    return undefined;
  }
  const { table, first } = tableFor(frame.values, low, scale, inverted);
  for (let i = 0; i < out.length; i += 1) out[i] = table[frame.values[i] - first];
  return undefined;
}

function tableFor(values, low, scale, inverted) {
  const [first, last] = { 1: [0, 255], 2: [-32768, 65535] }[values.BYTES_PER_ELEMENT];
  const from = values instanceof Uint16Array ? 0 : first;
  const to = values instanceof Int16Array ? 32767 : last;
  const table = new Uint32Array(to - from + 1);
  for (let value = from; value <= to; value += 1) {
    table[value - from] = grey((value - low) * scale, inverted);
  }
  return { table, first: from };
}

function grey(shade, inverted) {
  const bounded = shade < 0 ? 0 : shade > 255 ? 255 : shade;
  const level = Math.round(inverted ? 255 - bounded : bounded);
  return (0xff000000 | (level << 16) | (level << 8) | level) >>> 0;
}

function colours(values, out) {
  for (let i = 0, j = 0; i < out.length; i += 1, j += 3) {
    out[i] = (0xff000000 | (values[j + 2] << 16) | (values[j + 1] << 8) | values[j]) >>> 0;
  }
}
