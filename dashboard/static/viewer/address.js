// What is shown stands in the address, so that a link shows the same.

const KEYS = ["slice", "plane", "finding", "low", "high", "hidden", "model"];

/** Read what the address asks for; what it does not say is left out. */
export function readAddress() {
  const query = new URLSearchParams(location.search);
  const asked = {};
  if (query.has("slice")) asked.index = Math.max(0, (parseInt(query.get("slice"), 10) || 1) - 1);
  if (["native", "row", "column"].includes(query.get("plane"))) asked.plane = query.get("plane");
  if (query.has("finding")) asked.finding = parseInt(query.get("finding"), 10) - 1;
  const [low, high] = [parseFloat(query.get("low")), parseFloat(query.get("high"))];
  if (Number.isFinite(low) && high > low) asked.window = { low, high };
  const numbers = (key) => (query.get(key) ?? "").split(",").map(Number).filter((one) => one > 0);
  asked.hidden = numbers("hidden");
  asked.asModel = numbers("model");
  return asked;
}

let timer = 0;

/** Write it back, a moment after the last change: browsers limit how often. */
export function writeAddress({ index, plane, finding, window: shown, hidden, asModel, asIs }) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    const query = new URLSearchParams(location.search);
    for (const key of KEYS) query.delete(key);
    query.set("slice", String(index + 1));
    if (plane !== "native") query.set("plane", plane);
    if (finding !== null) query.set("finding", String(finding + 1));
    if (!asIs) {
      query.set("low", String(Math.round(shown.low * 100) / 100));
      query.set("high", String(Math.round(shown.high * 100) / 100));
    }
    if (hidden.size) query.set("hidden", [...hidden].join(","));
    if (asModel.size) query.set("model", [...asModel].join(","));
    history.replaceState(null, "", `${location.pathname}?${query}${location.hash}`);
  }, 200);
}
