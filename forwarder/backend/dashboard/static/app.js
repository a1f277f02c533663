// What a script adds to pages that work without one: the theme switch, filters that apply themselves, arrow keys in
// heatmaps, local times as tooltips.
import { lookFurther } from "./further.js";
import { listen } from "./live.js";
import { shortcuts } from "./shortcuts.js";

const root = document.documentElement;

export function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // storage may be switched off; the choice holds for this page
  }
}

export function switchTheme() {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  remember("friction-theme", root.dataset.theme);
}

document.querySelector("#theme")?.addEventListener("click", switchTheme);

for (const form of document.querySelectorAll("form[data-apply]")) {
  form.addEventListener("change", (event) => {
    if (event.target.matches("select, input[type=checkbox]")) form.requestSubmit();
  });
  // Fields that say nothing stay out of the address.
  form.addEventListener("formdata", (event) => {
    for (const [name, value] of [...event.formData]) if (value === "") event.formData.delete(name);
  });
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const place = (cell) => cell.dataset.cell.split(",").map(Number);

// The cell with events that is nearest in the direction of an arrow: straight ahead before aside.
function nextCell(cell, [down, right]) {
  const [row, column] = place(cell);
  let best;
  for (const each of cell.closest("svg").querySelectorAll("a[data-cell]")) {
    const [rows, columns] = [place(each)[0] - row, place(each)[1] - column];
    const ahead = down ? rows * down : columns * right;
    if (ahead <= 0) continue;
    const distance = ahead + 10 * Math.abs(down ? columns : rows);
    if (!best || distance < best.distance) best = { distance, each };
  }
  return best?.each;
}

// In a heatmap arrows move, Tab leaves: one of its cells stands in the tab order.
document.addEventListener("keydown", (event) => {
  const cell = event.target.closest?.("a[data-cell]");
  const step = STEPS[event.key];
  if (!cell || !step) return;
  event.preventDefault();
  const next = nextCell(cell, step);
  if (!next) return;
  cell.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
});

// Pictures come after the page that they stand on: until then, and without a script, there is a link to their numbers.
for (const part of document.querySelectorAll("[data-fragment]")) {
  fetch(part.dataset.fragment, { headers: { Accept: "text/html" }, redirect: "error" })
    .then((answer) => (answer.ok ? answer.text() : Promise.reject(new Error(String(answer.status)))))
    .then((text) => part.replaceChildren(...new DOMParser().parseFromString(text, "text/html").body.childNodes))
    .catch(() => {}); // the link stays
}

export function localTimes(scope) {
  for (const time of scope.querySelectorAll("time[datetime]")) {
    time.title = `${new Date(time.dateTime).toLocaleString()} (your time)`;
  }
}

localTimes(document);
shortcuts({ switchTheme, remember });
listen({ localTimes });
lookFurther({ localTimes });
