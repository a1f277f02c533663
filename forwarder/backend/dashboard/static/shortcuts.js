// Keys for people who live in a terminal. They can be switched off in the same list that explains them.
const PLACES = { h: "/", e: "/search", a: "/actors", r: "/rules", t: "/triage", s: "/status" };
const SETTING = "friction-shortcuts";

export function shortcuts({ switchTheme, remember }) {
  const help = document.querySelector("#keys");
  const enabled = document.querySelector("#keys-on");
  let going = 0;
  let row = -1;

  try {
    if (enabled && localStorage.getItem(SETTING) === "off") enabled.checked = false;
  } catch {
    // storage may be switched off; they are on then
  }
  enabled?.addEventListener("change", () => remember(SETTING, enabled.checked ? "on" : "off"));
  document.querySelector("#keys-open")?.addEventListener("click", () => help?.showModal());

  function move(step) {
    const rows = [...document.querySelectorAll("[data-row] a[data-open]")];
    if (!rows.length) return;
    const at = rows.indexOf(document.activeElement);
    row = Math.min(rows.length - 1, Math.max(0, (at < 0 ? row : at) + step));
    rows[row].focus();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.matches("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (help?.open || (enabled && !enabled.checked)) return;
    if (Date.now() - going < 1500) {
      going = 0;
      if (event.key in PLACES) location.assign(PLACES[event.key]);
      return;
    }
    const actions = {
      "/": () => document.querySelector("#find")?.focus(),
      "?": () => help?.showModal(),
      g: () => { going = Date.now(); },
      j: () => move(1),
      k: () => move(-1),
      t: switchTheme,
    };
    if (event.key in actions) {
      event.preventDefault();
      actions[event.key]();
    }
  });
}
