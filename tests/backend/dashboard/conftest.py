"""Pages as their readers see them: text, links and forms, taken from the HTML by a parser."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from fastapi.testclient import TestClient

VOID = {"meta", "link", "input", "br", "img", "rect", "path", "circle", "polyline", "polygon"}


class Seen(HTMLParser):
    """What is on a page. text: all of it, blanks joined. links: (address, text). tags: every element's name and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html
        self.links: list[tuple[str, str]] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._open: list[str] = []
        self._words: list[str] = []
        self._link: list[Any] | None = None
        self.feed(html)
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self._words))

    def addresses(self) -> set[str]:
        return {address for address, _ in self.links}

    def having(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        return [found for name, found in self.tags if name == tag and wanted.items() <= found.items()]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "a" and "href" in attributes:
            self._link = [attributes["href"], ""]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        # A <li>, <p> and the like may be left open in HTML; ours are not.
        assert self._open.pop() == tag, f"</{tag}> closes something else"
        if tag == "a" and self._link:
            self.links.append((self._link[0], self._link[1].strip()))
            self._link = None

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            return
        self._words.append(data)
        if self._link:
            self._link[1] += data


Look = Callable[..., Seen]


@pytest.fixture
def look() -> Look:
    """`look(client, "/path", status=200)`: that page."""

    def get(client: TestClient, path: str, status: int = 200) -> Seen:
        answer = client.get(path, headers={"Accept": "text/html"})
        assert answer.status_code == status, answer.text[:500]
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        return Seen(answer.text)

    return get
