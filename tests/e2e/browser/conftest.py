"""The dashboard in a real Chromium, driven by Playwright, in front of a real backend process on loopback.

Chromium is what CHROMIUM names, or `chromium` or `google-chrome` on PATH. The browser speaks to nothing but the backend.
"""

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.ports import free_port

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--disable-quic"]  # fmt: skip
DEADLINE_S = 30.0  # for what takes a second or two; a shared machine may be slow

SHOP = "component:shop/checkout"
HOSTILE = '"><script>window.pwned = 1</script><img src=x onerror="window.pwned = 1">'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = pytest.mark.skip(reason="needs Chromium: install it, or name it in CHROMIUM")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if not CHROMIUM:
                item.add_marker(missing)


class Backend:
    """A backend process. url: where it listens. key: what it asks for, "" for nothing."""

    def __init__(self, folder: Path, *, key: str = "", reads: bool = True, origins: str = "") -> None:
        self.folder, self.key = folder, key
        self.url = f"http://127.0.0.1:{free_port()}"
        lines = [f"listen: '{self.url.removeprefix('http://')}'", f"database: '{folder}/backend.db'"]
        lines += [f"api_key: {key}"] if key else []
        lines += [] if reads else ["anonymous_reads: false"]
        lines += [f"allowed_origins: ['{origins}']"] if origins else []
        (folder / "backend.yaml").write_text("backend: {" + ", ".join(lines) + "}\n")
        self._log = (folder / "backend.log").open("wb")
        command = [sys.executable, "-m", "forwarder", "backend", "--config", str(folder / "backend.yaml")]
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + DEADLINE_S
        while not self._answers():
            said = (folder / "backend.log").read_text()
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)

    def send(self, *events: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(f"{self.url}/events", json.dumps(events).encode(), headers)
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            results = json.load(answer)["results"]
        assert {result["status"] for result in results} <= {"recorded", "updated"}, results

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE_S)
        self._log.close()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=1):
                return True
        except OSError:
            return False


def event(**fields: Any) -> dict[str, Any]:
    """An event as a receiver sends it."""
    return {"entity_ref": SHOP, "type": "kubectl-exec", "severity": "high", "actor": "jane@corp.example", **fields}


def history() -> list[dict[str, Any]]:
    """Some weeks of a few services, an open session, and hostile text in every field of one event."""
    now = dt.datetime.now(dt.UTC)
    found = []
    for number in range(60):
        service = ("shop/checkout", "shop/cart", "payments/ledger", "search/indexer")[number % 4]
        rule, severity = (("kubectl-exec", "high"), ("port-forward", "medium"), ("config-drift", "low"))[number % 3]
        found.append(
            event(
                entity_ref=f"component:{service}", type=rule, severity=severity, cluster=("prod-eu-1", "prod-us-2")[number % 2],
                timestamp=(now - dt.timedelta(hours=number * 7)).isoformat(), verb="get", resource="pods", subresource="exec",
                name=f"{service.rpartition('/')[2]}-7d9f-{number}", namespace=service.partition("/")[0], command="psql -c vacuum",
                actor=f"person{number % 5}@corp.example", source_ips=["10.0.0.7"], duration_s=12.5, id=f"past-{number}",
                tags=[f"team:{('checkout', 'money')[number % 2]}"],
            )
        )  # fmt: skip
    found.append(event(stage="ResponseStarted", command="sh", id="open", acting_as="deployer", container="app"))
    names = (
        "actor",
        "description",
        "cluster",
        "command",
        "user_agent",
        "acting_as",
        "via",
        "verb",
        "resource",
        "name",
        "node",
    )
    found.append(event(id="hostile", **dict.fromkeys(names, HOSTILE), tags=[HOSTILE, f"team:{'x' * 60}"]))
    return found


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A backend with a history, for tests that do not change it."""
    started = Backend(tmp_path_factory.mktemp("backend"))
    try:
        started.send(*history())
        yield started
    finally:
        started.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Backend]]:
    """`start(key="k")`: an empty backend of the test's own."""
    running: list[Backend] = []

    def begin(**settings: Any) -> Backend:
        running.append(Backend(tmp_path, **settings))
        return running[-1]

    yield begin
    for one in running:
        one.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser process; its sandbox is off where we are root, who cannot have one.

    It ends with its file: Playwright keeps an event loop running in the main thread, and no other test could have one.
    """
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET + root)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """`visit(url, width=375, theme="dark")`: a page in a profile of its own.

    Whatever the console says (a refused script, a missing file, an error) fails the test that caused it.
    """
    contexts: list[BrowserContext] = []
    said: list[str] = []

    def begin(url: str, *, width: int = 1280, theme: str = "light", quiet: bool = True, **options: Any) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=theme, **options)  # type: ignore[arg-type]
        context.set_default_timeout(DEADLINE_S * 1000)
        contexts.append(context)
        page = context.new_page()
        if quiet:
            page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(url)
        return page

    yield begin
    for context in contexts:
        context.close()
    assert said == []
