"""Pages as a person meets them: the first visit, live events, figures that lead on, triage, hostile text, no script."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browser.conftest import SHOP, Backend, event

Visit = Callable[..., Page]
Start = Callable[..., Backend]

PATHS = [
    "/", "/search", f"/service?ref={SHOP}", "/actors", "/actor?name=person1@corp.example", "/rules", "/rule?name=kubectl-exec",
    "/triage", "/status", "/sign-in", "/event?id=past-0", "/event?id=hostile", f"/embed/{SHOP}", f"/table?entity={SHOP}",
    "/table?actor=person1@corp.example", "/service?ref=nonsense",
]  # fmt: skip


def live(page: Page) -> None:
    """Wait until the page listens."""
    expect(page.locator("#live-state")).to_have_text("live")


def test_first_visit_and_first_event(start: Start, visit: Visit) -> None:
    """An empty backend says how to begin; the first event turns the page into the list, without a hand on it."""
    backend = start()
    page = visit(f"{backend.url}/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing has come in yet")
    expect(page.locator("pre").first).to_contain_text(f"curl {backend.url}/events")
    live(page)
    backend.send(event())
    expect(page.get_by_role("row", name=re.compile("checkout"))).to_be_visible()


def test_events_arrive_live(start: Start, visit: Visit) -> None:
    """A new event is in the feed, in the list and in its service's page without a reload; what one has opened stays open."""
    backend = start()
    backend.send(event(actor="before"))
    home, service = visit(f"{backend.url}/"), visit(f"{backend.url}/service?ref={SHOP}")
    for page in (home, service):
        live(page)
        page.evaluate("window.same = true")
    service.get_by_text("What each rule and day adds").click()
    expect(home.locator("#feed li")).to_have_count(1)
    backend.send(event(actor="jane", command="psql", stage="ResponseStarted", id="s", revision=0))
    expect(home.locator("#feed li").first).to_contain_text("jane")
    expect(home.locator("#feed li").first).to_contain_text("open")
    expect(home.locator(".score-number").first).to_have_text("40")
    expect(service.locator(".gauge-number")).to_have_text("40")
    expect(service.locator("#open")).to_contain_text("psql")
    backend.send(event(actor="jane", command="psql", stage="ResponseComplete", id="s", revision=1, duration_s=65.0))
    expect(service.locator("#open")).not_to_contain_text("psql")
    expect(service.locator("#timeline")).to_contain_text("1 min 5 s")
    expect(service.locator("#score-parts")).to_have_attribute("open", "")
    assert [page.evaluate("window.same") for page in (home, service)] == [True, True]


def test_pause(start: Start, visit: Visit) -> None:
    """A paused page stands still, and catches up when it goes on."""
    backend = start()
    backend.send(event(actor="before"))
    page = visit(f"{backend.url}/")
    live(page)
    page.get_by_role("button", name="Pause").click()
    backend.send(event(actor="meanwhile"))
    page.wait_for_timeout(1500)
    expect(page.locator("#feed li")).to_have_count(1)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#feed li")).to_have_count(2)


def test_backend_goes_and_comes(start: Start, visit: Visit) -> None:
    """A page whose backend stops says that it is not live any more."""
    backend = start()
    backend.send(event())
    page = visit(f"{backend.url}/", quiet=False)
    live(page)
    backend.process.terminate()
    expect(page.locator("#live-state")).to_have_attribute("data-state", "off")


def test_heatmap_cell_leads_to_its_events(backend: Backend, visit: Visit) -> None:
    """A click on a cell lists exactly as many events as the cell says."""
    page = visit(f"{backend.url}/service?ref={SHOP}")
    for picture in ("svg.week", "svg.days"):
        cell = page.locator(f"{picture} a").first
        count = re.search(r"(\d+) event", cell.get_attribute("aria-label") or "")
        assert count
        address = cell.get_attribute("href") or ""
        cell.click()
        expect(page).to_have_url(re.compile(r"/search\?"))
        assert page.url.endswith(address)
        expect(page.locator("#events li.event")).to_have_count(int(count[1]))
        page.go_back()


def test_a_search_goes_on_by_itself(start: Start, visit: Visit) -> None:
    """Where the first pages find nothing, what stands further back is shown without a click; so is the end."""
    backend = start()
    begin = datetime.now(UTC) - timedelta(days=2)
    backend.send(event(actor="jane", severity="low", id="rare", timestamp=begin.isoformat()))
    for batch in range(2):
        moments = [begin + timedelta(seconds=60 + batch * 1000 + number) for number in range(1000)]
        backend.send(*[event(actor="jane", severity="high", timestamp=moment.isoformat()) for moment in moments])
    page = visit(f"{backend.url}/search?actor=jane&severity=low")
    expect(page.locator("#events li.event")).to_have_count(1)
    expect(page).to_have_url(re.compile("cursor="))
    page.goto(f"{backend.url}/search?actor=jane&severity=medium")
    expect(page.locator("#events .empty")).to_have_text("No event fits.")
    page.reload()
    expect(page.locator("#events .empty")).to_have_text("No event fits.")


def test_triage_and_undo(start: Start, visit: Visit) -> None:
    """From an event to a mark, to a lower score, and back."""
    backend = start()
    backend.send(event(actor="jane", id="a"), event(actor="joe", id="b"))
    page = visit(f"{backend.url}/event?id=a")
    page.get_by_role("link", name="All like it").click()
    page.get_by_label("Why it is expected").fill("on call this week")
    page.get_by_label("You").fill("the platform team")
    page.get_by_role("button", name="Mark as expected").click()
    expect(page.get_by_role("status").filter(has_text="Marked as expected")).to_be_visible()
    page.get_by_role("link", name="shop/checkout").click()
    expect(page.locator(".gauge-number")).to_have_text("20")
    expect(page.get_by_text("“on call this week”, says the platform team")).to_be_visible()
    page.get_by_role("link", name="See the mark").click()
    page.get_by_role("button", name="Undo: on call this week").click()
    expect(page.get_by_role("status").filter(has_text="Undone")).to_be_visible()
    page.goto(f"{backend.url}/service?ref={SHOP}")
    expect(page.locator(".gauge-number")).to_have_text("40")


def test_nothing_runs_and_nothing_is_refused(backend: Backend, visit: Visit) -> None:
    """No page runs what stands in an event; none needs what the policy forbids (the console would say so)."""
    page = visit(f"{backend.url}/")
    for path in PATHS[:-1]:  # the last one is a 400, which the console tells
        page.goto(f"{backend.url}{path}")
        page.wait_for_timeout(100)
        assert page.evaluate("window.pwned") is None, path
        assert page.locator("img").count() == 0, path


@pytest.mark.parametrize("width", [320, 375, 768, 1920])
def test_fits_every_width(backend: Backend, visit: Visit, width: int) -> None:
    """From a small phone to a wide screen nothing sticks out to the side."""
    page = visit(f"{backend.url}/", width=width, quiet=False)
    for path in PATHS:
        page.goto(f"{backend.url}{path}")
        content, window = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert content <= window, path


def test_filters(backend: Backend, visit: Visit) -> None:
    """A choice applies itself, and the address says what was chosen."""
    page = visit(f"{backend.url}/")
    page.get_by_label("Namespace").select_option("payments")
    expect(page).to_have_url(f"{backend.url}/?namespace=payments")
    expect(page.locator("#services tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Clear").click()
    expect(page.locator("#services tbody tr")).to_have_count(4)


def test_without_script(backend: Backend, visit: Visit) -> None:
    """Filters, lists, pictures and search work where scripts are switched off, and nothing useless is shown."""
    page = visit(f"{backend.url}/", java_script_enabled=False)
    page.get_by_label("Namespace").select_option("payments")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#services tbody tr")).to_have_count(1)
    page.get_by_role("link", name="ledger", exact=True).click()
    expect(page.locator("svg.gauge")).to_be_visible()
    assert page.locator("#theme").is_hidden()
    page.get_by_role("searchbox", name="Search all events").fill("vacuum")
    page.get_by_role("searchbox", name="Search all events").press("Enter")
    expect(page.locator("#events li.event").first).to_be_visible()


def test_theme(backend: Backend, visit: Visit) -> None:
    """The system's theme holds until one is chosen; a choice holds from then on."""
    page = visit(f"{backend.url}/", theme="dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch between light and dark").click()
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != light
    page.goto(f"{backend.url}/actors")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == light
