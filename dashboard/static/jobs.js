// The list of jobs by keyboard, and the buttons that act on ticked rows.

const form = document.getElementById("orders");
const ticked = document.getElementById("ticked");

function rows() {
  return [...document.querySelectorAll("#job-list tbody tr[id]")];
}

function count() {
  if (!ticked) return;
  const chosen = form.querySelectorAll("input[name=job]:checked").length;
  const text = chosen ? `${chosen} ticked` : "Tick jobs to act on them";
  // The observer below would hear of each change that is none, too.
  if (ticked.textContent !== text) ticked.textContent = text;
  for (const button of form.querySelectorAll(".orders button")) button.disabled = chosen === 0;
}

function select(row) {
  for (const one of rows()) one.removeAttribute("aria-selected");
  row.setAttribute("aria-selected", "true");
  row.scrollIntoView({ block: "nearest" });
}

function move(step) {
  const all = rows();
  if (!all.length) return;
  const now = all.findIndex((row) => row.getAttribute("aria-selected") === "true");
  select(all[Math.max(0, Math.min(all.length - 1, now < 0 ? 0 : now + step))]);
}

form.addEventListener("change", (event) => {
  if (event.target.id === "tick-all") {
    for (const box of form.querySelectorAll("input[name=job]")) box.checked = event.target.checked;
  }
  count();
});
new MutationObserver(count).observe(form, { childList: true, subtree: true });

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input:not([type=checkbox]), textarea, select, dialog")) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const row = rows().find((one) => one.getAttribute("aria-selected") === "true");
  if (event.key === "j") move(1);
  else if (event.key === "k") move(-1);
  else if (event.key === "x" && row) row.querySelector("input[name=job]")?.click();
  else if (event.key === "Enter" && row && event.target === document.body) row.querySelector("a.open").click();
  else return;
  event.preventDefault();
});

// Choosing is enough; the button is for those without a mouse or without this script.
for (const choice of document.querySelectorAll(".filters select")) {
  choice.addEventListener("change", () => choice.form.requestSubmit());
}
count();
