"""The files beside the pages."""

import re

from fastapi.testclient import TestClient

from forwarder.backend.dashboard.desk import STATIC


def test_files(client: TestClient) -> None:
    """Each is served as what it is; a browser asks again and is told that nothing changed."""
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    for file in STATIC.iterdir():
        answer = client.get(f"/static/{file.name}")
        assert answer.headers["content-type"].startswith(kinds[file.suffix[1:]])
        assert answer.headers["cache-control"] == "no-cache"
        again = client.get(f"/static/{file.name}", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304


def test_nothing_from_elsewhere() -> None:
    """Styles and scripts load nothing from another server, and scripts never turn text into markup."""
    for file in STATIC.glob("*.[cj]s*"):
        text = file.read_text("utf-8")
        assert not re.search(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}/", text), file
        assert not re.search(
            r"\b(eval|innerHTML\s*=|outerHTML|insertAdjacentHTML|document\.write|Function)\b\s*\(?",
            text.replace("innerHTML ===", ""),
        ), file


def test_no_way_out(client: TestClient) -> None:
    """The folder beside the files is not served."""
    for path in ("/static/../desk.py", "/static/%2e%2e/desk.py", "/static/", "/static/..%2fdesk.py"):
        assert client.get(path).status_code in (404, 400)
