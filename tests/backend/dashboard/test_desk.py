"""The frame around every page: landmarks, navigation, who is signed in."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from forwarder.backend.access.visitors import Access
from forwarder.backend.dashboard import desk as module
from forwarder.backend.dashboard.desk import PLACES, Desk, Loose, Places, by_day
from forwarder.backend.dashboard.rulebook import no_rules
from forwarder.backend.guard import HEADERS
from forwarder.backend.intake import NewEvent
from forwarder.backend.settings import BackendSettings
from forwarder.backend.store import Store
from tests.backend.conftest import NOW_S, NOW_US
from tests.backend.dashboard.conftest import Look

Connect = Callable[..., TestClient]
PATHS = [path for path, _, _ in PLACES] + ["/sign-in", "/actor?name=x", "/rule?name=x", "/service?ref=component:a/b"]


@pytest.mark.parametrize("path", PATHS)
def test_frame(client: TestClient, look: Look, path: str) -> None:
    """One h1, one main, a way past the navigation, a language, and every control has a name."""
    seen = look(client, path)
    tags = [tag for tag, _ in seen.tags]
    assert (tags.count("h1"), tags.count("main"), tags.count("nav") >= 1) == (1, 1, True)
    assert seen.having("html", lang="en")
    assert seen.links[0] == ("#main", "Skip to the content")
    assert seen.having("main", id="main")
    ids = [found["id"] for _, found in seen.tags if "id" in found]
    assert len(ids) == len(set(ids))
    for found in seen.having("button"):
        assert "aria-label" in found or found.get("type") in ("submit", "button")


@pytest.mark.parametrize("path", PATHS)
def test_policy(client: TestClient, path: str) -> None:
    """Every page has the strict policy, and needs nothing that it forbids."""
    answer = client.get(path, headers={"Accept": "text/html"})
    assert answer.headers["content-security-policy"] == HEADERS["content-security-policy"]
    assert " style=" not in answer.text
    assert "<style" not in answer.text
    assert " onclick" not in answer.text
    assert answer.text.count("<script") == 2
    assert "https://" not in answer.text


@pytest.mark.parametrize(("path", "name"), [(path, words) for path, _, words in PLACES])
def test_here(client: TestClient, look: Look, path: str, name: str) -> None:
    """The navigation says where one is."""
    current = look(client, path).having("a", **{"aria-current": "page"})
    assert [found["href"] for found in current] == [path]


def test_sign_in_is_offered(connect: Connect, look: Look) -> None:
    """Where there are keys one can sign in; where there are none it would lead nowhere."""
    assert "/sign-in" not in look(connect(), "/").addresses()
    assert "/sign-in" in look(connect(api_key="k"), "/").addresses()


def test_places(store: Store, event: Callable[..., NewEvent], monkeypatch: pytest.MonkeyPatch) -> None:
    """What lists can be filtered by, read anew when it is no longer fresh; an event without a cluster adds none."""
    desk = Desk(store, BackendSettings(), Access(store.database, BackendSettings()), no_rules, lambda: NOW_S)
    store.record([event(cluster="eu", tags=["team:a"]), event(cluster="")], NOW_US)
    assert desk.places() == Places(clusters=("eu",), namespaces=("shop",), teams=("a",))
    store.record([event(cluster="us")], NOW_US)
    assert desk.places().clusters == ("eu",)
    monkeypatch.setattr(module, "FRESH_S", 0.0)
    assert desk.places().clusters == ("eu", "us")


def test_days(store: Store, event: Callable[..., NewEvent]) -> None:
    """Neighbours of one day stand under its name."""
    times = ["2026-05-28T00:00:01Z", "2026-05-27T23:59:59Z", "2026-05-27T01:00:00Z"]
    store.record([event(timestamp=time) for time in times], NOW_US)
    groups = by_day(store.latest(10))
    assert [(name, len(group)) for name, group in groups] == [
        ("Thursday, 28 May 2026", 1),
        ("Wednesday, 27 May 2026", 2),
    ]


def test_loose() -> None:
    """A field that an event does not have is empty."""
    assert (Loose({"a": 1})["a"], Loose({})["b"]) == (1, "")
