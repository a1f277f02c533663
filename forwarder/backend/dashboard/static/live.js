// Live pages without a second way to draw them: when the server says that something happened, the page is fetched again
// and its live parts are exchanged. What an event holds never passes through this script, only through the templates.
const AT_MOST_EVERY_MS = 1000;
const SOON_MS = 150;

export function listen({ localTimes }) {
  const parts = () => [...document.querySelectorAll("[data-live]")];
  const state = document.querySelector("#live-state");
  if (!parts().length) return;
  let timer = 0;
  let last = 0;
  let running = false;
  let again = false;
  let paused = false;

  const show = (name, words) => {
    if (!state) return;
    state.dataset.state = name;
    state.textContent = words;
  };

  async function refresh() {
    timer = 0;
    if (parts().some((part) => part.dataset.live === "page")) {
      location.reload(); // the first event of all: the page becomes another one
      return;
    }
    if (running || paused || document.hidden) {
      again = true;
      return;
    }
    running = true;
    again = false;
    last = Date.now();
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
      if (!answer.ok) throw new Error(String(answer.status));
      exchange(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch {
      show("off", "not live: reload the page");
    } finally {
      running = false;
      if (again) soon();
    }
  }

  function exchange(fresh) {
    for (const part of parts()) {
      const replacement = fresh.getElementById(part.id);
      if (!replacement || replacement.innerHTML === part.innerHTML) continue;
      const known = new Set([...part.querySelectorAll("[data-key]")].map((each) => each.dataset.key));
      const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      const open = [...part.querySelectorAll("details[open][id]")].map((each) => each.id);
      part.replaceChildren(...document.importNode(replacement, true).childNodes);
      for (const each of part.querySelectorAll("[data-key]")) {
        if (!known.has(each.dataset.key)) each.classList.add("fresh");
      }
      for (const id of open) document.getElementById(id)?.setAttribute("open", "");
      if (focused) part.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
      localTimes(part);
    }
  }

  function soon() {
    if (timer) return;
    timer = setTimeout(refresh, Math.max(SOON_MS, last + AT_MOST_EVERY_MS - Date.now()));
  }

  const source = new EventSource("/api/v1/live");
  source.onopen = () => {
    if (!paused) show("live", "live");
    if (last) soon(); // what happened while the line was down
    last ||= Date.now();
  };
  for (const news of ["recorded", "updated", "gap"]) source.addEventListener(news, soon);
  source.onerror = () => show("off", source.readyState === EventSource.CLOSED ? "not live" : "reconnecting");
  addEventListener("pagehide", () => source.close());
  document.addEventListener("visibilitychange", () => again && soon());

  const pause = document.querySelector("#live-pause");
  pause?.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    show(paused ? "paused" : "live", paused ? "paused" : "live");
    if (!paused && again) soon();
  });
}
