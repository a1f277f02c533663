"""Signing in with a real browser: its cookie, its forms, and pages of other sites that try to use it."""

import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.browser.conftest import SHOP, Backend, event

Visit = Callable[..., Page]
Start = Callable[..., Backend]


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, dict[str, str]]]:
    """Another site on this machine: its address, and the page that it shows (to be set under `html`)."""
    page = {"html": ""}

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page["html"].encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, name="elsewhere")
    thread.start()
    yield f"http://localhost:{server.server_port}", page  # another name, so another site
    server.shutdown()
    server.server_close()
    thread.join()


def test_sign_in_and_out(start: Start, visit: Visit) -> None:
    """A closed page leads to the form, the form back to the page; signed out, the way back is closed again."""
    backend = start(key="the-right-key", reads=False)
    backend.send(event())
    page = visit(f"{backend.url}/service?ref={SHOP}", quiet=False)
    expect(page.get_by_label("Your key")).to_be_focused()
    page.keyboard.type("a wrong key")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("That key is not in force.")
    page.get_by_label("Your key").fill("the-right-key")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{backend.url}/service?ref={SHOP}")
    expect(page.locator("#live-state")).to_have_text("live")
    cookie = page.context.cookies()[0]
    assert (cookie.get("httpOnly"), cookie.get("sameSite")) == (True, "Lax")
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out").click()
    page.goto(f"{backend.url}/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_a_key_made_and_revoked_meanwhile(start: Start, visit: Visit) -> None:
    """A key that `forwarder keys` makes works without a restart, and its sessions end when it is revoked."""
    backend = start(key="k", reads=False)
    backend.send(event())

    def keys(*arguments: str) -> None:
        command = [
            sys.executable,
            "-m",
            "forwarder",
            "keys",
            *arguments,
            "--config",
            str(backend.folder / "backend.yaml"),
        ]
        subprocess.run(command, check=True, capture_output=True, cwd=backend.folder)

    keys("create", "jane", "--may", "read", "--may", "change")
    page = visit(f"{backend.url}/triage", quiet=False)
    page.wait_for_timeout(1100)
    page.get_by_label("Your key").fill((backend.folder / "jane.key").read_text())
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_label("You")).to_have_value("jane")
    keys("revoke", "jane")
    page.wait_for_timeout(2100)
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_forms_of_other_sites(start: Start, visit: Visit, elsewhere: tuple[str, dict[str, str]]) -> None:
    """A page elsewhere that posts a form in the visitor's name is refused, signed in or on an open backend."""
    url, site = elsewhere
    for number, settings in enumerate(({"key": "k", "reads": False}, {})):
        backend = start(**settings)
        page = visit(f"{backend.url}/sign-in", quiet=False)
        if settings:
            page.get_by_label("Your key").fill("k")
            page.get_by_role("button", name="Sign in").click()
            expect(page.get_by_role("heading", level=1)).to_have_text("Nothing has come in yet")
        site["html"] = f"""<form method="post" action="{backend.url}/triage"><input name="actor" value="jane">
            <input name="reason" value="x"><input name="author" value="x"><input name="until" value="2099-01-01">
            <button>go</button></form>"""
        page.goto(url)
        page.get_by_role("button").click()
        expect(page.locator("body")).to_contain_text("from a page elsewhere")
        page.goto(f"{backend.url}/triage")
        expect(page.get_by_text("Nothing is expected")).to_be_visible()
        backend.stop() if number == 0 else None
        (backend.folder / "backend.db").unlink() if number == 0 else None


def test_frames(start: Start, visit: Visit, elsewhere: tuple[str, dict[str, str]]) -> None:
    """A listed origin may show the card in a frame; no page may be framed, and by others not even the card."""
    url, site = elsewhere
    backend = start(origins=url)
    backend.send(event())
    site["html"] = f'<iframe src="{backend.url}/embed/{SHOP}"></iframe>'
    page = visit(url, quiet=False)
    expect(page.frame_locator("iframe").locator(".gauge-number")).to_have_text("20")
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    site["html"] = f'<iframe src="{backend.url}/"></iframe>'
    page.goto(url)
    page.wait_for_timeout(500)
    assert any(re.search("frame-ancestors", text) for text in refused), refused


def test_badge_shows_in_a_page_elsewhere(start: Start, visit: Visit, elsewhere: tuple[str, dict[str, str]]) -> None:
    """An image that a README can have."""
    url, site = elsewhere
    backend = start()
    backend.send(event())
    site["html"] = f'<img alt="friction" src="{backend.url}/badge/{SHOP}.svg">'
    page = visit(url, quiet=False)
    assert page.evaluate("document.images[0].naturalWidth") > 80
