// A search that has found nothing so far looks further back by itself, page by page, until it finds something, comes to
// the end, or is left. Without a script there is the link.
const PAUSE_MS = 20; // others want answers too

const further = (place) => place.querySelector("#events a[data-further]");

export async function lookFurther({ localTimes }) {
  const list = document.querySelector("#events");
  const words = list?.querySelector(".empty");
  let link = further(document);
  if (!link || !words) return;
  let left = false;
  addEventListener("pagehide", () => (left = true));
  words.textContent = "Nothing so far, looking further back…";
  words.setAttribute("role", "status");
  while (link && !left) {
    const address = link.href;
    const answer = await fetch(address, { headers: { Accept: "text/html" }, redirect: "error" }).catch(() => null);
    if (!answer?.ok || !list.contains(words)) return; // the link stays
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    link = further(fresh);
    list.querySelector("a[data-further]")?.setAttribute("href", link?.getAttribute("href") ?? address);
    if (!link) {
      history.replaceState(null, "", address);
      list.replaceChildren(...document.importNode(fresh.getElementById("events"), true).childNodes);
      localTimes(list);
    }
    await new Promise((next) => setTimeout(next, PAUSE_MS));
  }
}
