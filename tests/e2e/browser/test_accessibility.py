"""For everybody: axe finds nothing serious on any page in either theme, and a keyboard alone reaches everything."""

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.e2e.browser.conftest import SHOP, Backend, event
from tests.e2e.browser.test_pages import PATHS

Visit = Callable[..., Page]
Start = Callable[..., Backend]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe(backend: Backend, visit: Visit, theme: str) -> None:
    """WCAG 2.2 A and AA and axe's own best practices: nothing serious, with everything that folds unfolded."""
    page = visit(f"{backend.url}/", theme=theme, quiet=False)
    serious = []
    for path in (*PATHS, "/nowhere", "/events?limit=many"):
        page.goto(f"{backend.url}{path}")
        if page.locator("[data-fragment]").count():
            expect(page.locator("[data-fragment] svg").first).to_be_visible()
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        serious += [f"{path} {words}" for words in violations(page)]
    assert serious == []


def violations(page: Page) -> list[str]:
    """What axe finds that is more than minor: rule, element and why."""
    return [
        f"{rule['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
        for rule in Axe().run(page).response["violations"]
        if rule["impact"] in ("moderate", "serious", "critical")
        for node in rule["nodes"][:3]
    ]


def test_axe_on_a_phone(backend: Backend, visit: Visit) -> None:
    """The narrow layout too: tables that fold into cards keep their names."""
    page = visit(f"{backend.url}/", width=360, quiet=False)
    assert violations(page) == []


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement?.textContent?.trim() || document.activeElement?.id || ''"))


def test_skip_link(backend: Backend, visit: Visit) -> None:
    """The first Tab offers a way past the navigation, visibly, and it leads there."""
    page = visit(f"{backend.url}/")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_shortcuts(backend: Backend, visit: Visit) -> None:
    """Search, rows, places and help by single keys, which do nothing while one is typing."""
    page = visit(f"{backend.url}/")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Search all events")).to_be_focused()
    page.keyboard.type("jg?/")
    expect(page.get_by_role("searchbox", name="Search all events")).to_have_value("jg?/")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    first = focused(page)
    page.keyboard.press("j")
    assert focused(page) != first
    page.keyboard.press("k")
    assert focused(page) == first
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(first)
    page.wait_for_load_state()  # the heading is there before the scripts are
    page.keyboard.press("g")
    page.keyboard.press("t")
    expect(page).to_have_url(f"{backend.url}/triage")


def test_shortcuts_can_be_switched_off(backend: Backend, visit: Visit) -> None:
    """For those whose voice or hand presses keys by accident; the choice is kept."""
    page = visit(f"{backend.url}/")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.get_by_label("use single-key shortcuts").uncheck()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.reload()
    page.keyboard.press("?")
    page.wait_for_timeout(200)
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="Keyboard shortcuts").click()
    expect(page.get_by_label("use single-key shortcuts")).not_to_be_checked()


def test_heatmap_by_keyboard(backend: Backend, visit: Visit) -> None:
    """Tab reaches a heatmap once, arrows move between its cells with events, Enter opens one."""
    page = visit(f"{backend.url}/service?ref={SHOP}")
    cells = page.locator("svg.week a")
    expect(cells.first).to_be_visible()
    assert cells.count() > 3
    cells.first.focus()
    before = page.evaluate("document.activeElement.getAttribute('data-cell')")
    for key in ("ArrowDown", "ArrowRight", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    after = page.evaluate("document.activeElement.getAttribute('data-cell')")
    assert after
    assert after != before
    assert page.locator("svg.week a[tabindex='0']").count() == 1
    page.keyboard.press("Tab")
    expect(page.locator("#week-table")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("table", name="Events by weekday and hour")).to_be_visible()
    page.go_back()
    cells.first.focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/search\?"))


def test_triage_by_keyboard_alone(start: Start, visit: Visit) -> None:
    """From the list to a mark without a mouse."""
    backend = start()
    backend.send(event(actor="jane", id="a"))
    page = visit(f"{backend.url}/search")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{backend.url}/event?id=a")
    for _ in range(60):
        page.keyboard.press("Tab")
        if focused(page) == "Mark this one as expected":
            break
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/triage"))
    page.get_by_label("Why it is expected").focus()
    page.keyboard.type("a drill")
    page.keyboard.press("Tab")
    for _ in range(6):
        if page.evaluate("document.activeElement.name") == "author":
            break
        page.keyboard.press("Tab")
    page.keyboard.type("me")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="Marked as expected")).to_be_visible()
