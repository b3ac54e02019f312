// Where a picture lies in the patient: letters at its edges, and slices across the stack.
// Coordinates are those of DICOM: x to the left, y to the back, z to the head (PS3.3 C.7.6.2).

const LETTERS = [
  ["L", "R"],
  ["P", "A"],
  ["H", "F"],
];
const NAMES = ["sagittal", "coronal", "axial"];
const LONGEST_LETTERS = 2;

export const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
export const cross = (a, b) => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];
const times = (a, s) => a.map((x) => x * s);
const plus = (a, b) => a.map((x, i) => x + b[i]);

const main = (v) => [0, 1, 2].reduce((best, i) => (Math.abs(v[i]) > Math.abs(v[best]) ? i : best), 0);

/** The letters of a direction, the strongest first: "L", "AL". */
export function letters(direction) {
  return [0, 1, 2]
    .filter((axis) => Math.abs(direction[axis]) > 0.3)
    .sort((a, b) => Math.abs(direction[b]) - Math.abs(direction[a]))
    .slice(0, LONGEST_LETTERS)
    .map((axis) => LETTERS[axis][direction[axis] > 0 ? 0 : 1])
    .join("");
}

/** What is seen in a picture whose axes point in these directions (to the right, and down). */
export function edgeLetters({ right, down }) {
  return {
    right: letters(right),
    left: letters(times(right, -1)),
    bottom: letters(down),
    top: letters(times(down, -1)),
  };
}

/** axial, coronal or sagittal: what the plane with this normal is nearest to. */
export const nameOf = (normal) => NAMES[main(normal)];

/** The planes that a stack can be shown in; the first is that of its images. */
export function planesOf(frame, count, even) {
  if (!frame.orientation) return [{ key: "native", name: "as stored", count }];
  const row = frame.orientation.slice(0, 3);
  const column = frame.orientation.slice(3);
  const normal = cross(row, column);
  const native = { key: "native", name: nameOf(normal), count, right: row, down: column };
  if (count < 3 || !even || frame.samples > 1) return [native];
  return [
    native,
    { ...acrossOf("row", row, normal, column), count: frame.rows },
    { ...acrossOf("column", column, normal, row), count: frame.columns },
  ];
}

// A plane that fixes one in-plane index: `inPlane` stays in it, the frames are its other axis.
function acrossOf(key, inPlane, normal, through) {
  const [a, b] = [main(inPlane), main(normal)];
  // Left to right runs x, else y; the other axis runs down: to the back, or to the feet.
  const framesDown = a < b;
  const right = framesDown ? inPlane : normal;
  const down = framesDown ? normal : inPlane;
  const flipRight = right[main(right)] < 0;
  const flipDown = main(down) === 2 ? down[2] > 0 : down[main(down)] < 0;
  return {
    key,
    name: nameOf(through),
    framesDown,
    flipRight,
    flipDown,
    right: times(right, flipRight ? -1 : 1),
    down: times(down, flipDown ? -1 : 1),
  };
}

/** Whether the places of the frames are even enough to be looked at from the side. */
export function stepOf(frames) {
  const normal = cross(frames[0].orientation.slice(0, 3), frames[0].orientation.slice(3));
  const places = frames.map((frame) => dot(frame.position, normal));
  const gaps = places.slice(1).map((place, i) => place - places[i]);
  const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
  const even = gaps.every((gap) => Math.abs(gap - mean) <= 0.05 * Math.abs(mean));
  const path = plus(frames.at(-1).position, times(frames[0].position, -1));
  const length = Math.hypot(...path);
  const straight = Math.abs(dot(path, normal)) >= 0.99996 * length;
  return { step: Math.abs(mean), even: even && straight && mean !== 0 };
}

/** Size of a picture in a plane, and mm per pixel: [down, right]. */
export function layoutOf(plane, frame, count, step) {
  if (plane.key === "native") {
    return { rows: frame.rows, columns: frame.columns, spacing: frame.spacing };
  }
  const [length, mm] =
    plane.key === "row"
      ? [frame.columns, frame.spacing[1]]
      : [frame.rows, frame.spacing[0]];
  return plane.framesDown
    ? { rows: count, columns: length, spacing: [step, mm] }
    : { rows: length, columns: count, spacing: [mm, step] };
}

/** Calls `put(place in the picture, frame, place in the frame)` for each pixel of a plane. */
export function across(plane, index, frame, count, put) {
  const length = plane.key === "row" ? frame.columns : frame.rows;
  const columns = plane.framesDown ? length : count;
  const rows = plane.framesDown ? count : length;
  for (let row = 0; row < rows; row += 1) {
    const down = plane.flipDown ? rows - 1 - row : row;
    for (let column = 0; column < columns; column += 1) {
      const right = plane.flipRight ? columns - 1 - column : column;
      const [k, along] = plane.framesDown ? [down, right] : [right, down];
      const place =
        plane.key === "row" ? index * frame.columns + along : along * frame.columns + index;
      put(row * columns + column, k, place);
    }
  }
}

/** The pixel of the stack (frame, row, column) behind a pixel of a plane. */
export function behind(plane, index, row, column, frame, count) {
  if (plane.key === "native") return { frame: index, row, column };
  const length = plane.key === "row" ? frame.columns : frame.rows;
  const rows = plane.framesDown ? count : length;
  const columns = plane.framesDown ? length : count;
  const down = plane.flipDown ? rows - 1 - row : row;
  const right = plane.flipRight ? columns - 1 - column : column;
  const [k, along] = plane.framesDown ? [down, right] : [right, down];
  return plane.key === "row"
    ? { frame: k, row: index, column: along }
    : { frame: k, row: along, column: index };
}

/** The place in the patient, mm, of a pixel of a frame. */
export function patientPoint(frame, row, column) {
  if (!frame.position || !frame.spacing) return null;
  const right = times(frame.orientation.slice(0, 3), column * frame.spacing[1]);
  const down = times(frame.orientation.slice(3), row * frame.spacing[0]);
  return plus(frame.position, plus(right, down));
}
