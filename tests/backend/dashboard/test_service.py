"""A service's page: the score as a sum that adds up, figures that lead to their events, the timeline."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from forwarder.backend.dashboard.service import adding_up, sentence
from forwarder.backend.store import Store
from tests.backend.conftest import ENTITY, NOW_S, NOW_US
from tests.backend.dashboard.conftest import Look

Payload = Callable[..., dict[str, Any]]
PAGE = f"/service?ref={ENTITY}"


def at(days: float = 0.0, hours: float = 0.0) -> str:
    """That long before the clock of these tests."""
    return (datetime.fromtimestamp(NOW_S, UTC) - timedelta(days=days, hours=hours)).isoformat()


def send(client: TestClient, *events: dict[str, Any]) -> None:
    assert client.post("/events", json=list(events)).status_code == 200


def test_sentence(client: TestClient, store: Store, payload: Payload) -> None:
    """The score is told as the sum that it is, largest part first."""
    send(client, payload(), payload(), payload(type="port-forward", severity="medium", timestamp=at(7)))
    assert sentence(store.scores.explain(ENTITY, NOW_US), NOW_US) == (
        "46 = 40 from 2 kubectl-exec today + 6 from 1 port-forward 7 days ago."
    )


def test_sentence_of_many(client: TestClient, store: Store, payload: Payload) -> None:
    """Beyond three parts the rest is one; beyond 100 it says that a score ends there."""
    send(client, *[payload(timestamp=at(day)) for day in range(9)])
    words = sentence(store.scores.explain(ENTITY, NOW_US), NOW_US)
    assert "from 1 kubectl-exec yesterday" in words
    assert "from 6 others" in words
    assert words.endswith("; a score ends at 100.")


def test_sentence_of_nothing(store: Store) -> None:
    """Nothing to explain."""
    assert sentence(store.scores.explain(ENTITY, NOW_US), NOW_US) == (
        "Nobody went around the platform here in the last 30 days."
    )


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=6))
def test_parts_add_up(shares: list[float]) -> None:
    """The whole numbers in the sentence have the score as their sum, and none is off by more than one."""
    whole = round(sum(shares))
    parts = adding_up(shares, whole)
    assert sum(parts) == whole or sum(map(int, shares)) > whole
    assert all(abs(part - share) < 1.000001 for part, share in zip(parts, shares, strict=True))


def test_heatmap_cells_lead_to_their_events(client: TestClient, payload: Payload, look: Look) -> None:
    """Every cell of both pictures, which the page fetches, has exactly as many events behind it as it says."""
    send(
        client,
        *[payload(timestamp=at(days, hours)) for days, hours in [(0, 1), (0, 1), (3, 5), (10, 0), (20, 2)]],
        payload(type="port-forward", timestamp=at(3, 5)),
    )
    [charts] = look(client, PAGE).having("div", **{"class": "charts"})
    seen = look(client, charts["data-fragment"])
    cells = seen.having("a", tabindex="0") + seen.having("a", tabindex="-1")
    cells = [cell for cell in cells if "data-cell" in cell]
    assert len(cells) >= 8
    for cell in cells:
        count = cell["aria-label"].rpartition(": ")[2]
        assert f"{count}" in look(client, cell["href"]).text, cell["aria-label"]
    assert len([cell for cell in cells if cell["tabindex"] == "0"]) == 2


def test_timeline(client: TestClient, payload: Payload, look: Look) -> None:
    """Who, acting as whom, what, where, with which command, from where, how it ended, how long it took."""
    send(
        client,
        payload(
            actor="jane", acting_as="deployer", via="rancher", verb="get", resource="pods", subresource="exec",
            name="payments-api-7d9-x", namespace="shop", container="app", command="psql", cluster="prod",
            source_ips=["10.0.0.7"], outcome="denied", response_code=403, duration_s=125.0, stage="ResponseComplete",
            partial=True, id="a", revision=1,
        ),
    )  # fmt: skip
    text = look(client, PAGE).text
    for part in ("jane", "as deployer", "via rancher", "get pods/exec", "payments-api-7d9-x", "container app", "psql",
                 "prod", "from 10.0.0.7", "denied (403)", "2 min 5 s", "read from a cut line"):  # fmt: skip
        assert part in text, part


def test_open_session(client: TestClient, payload: Payload, look: Look) -> None:
    """A session is live until its end arrives; then it has a duration, in the same place."""
    opened = payload(actor="jane", stage="ResponseStarted", id="a", revision=0, timestamp=at(hours=0.1))
    send(client, opened)
    seen = look(client, PAGE)
    assert "Open now 1 session" in seen.text
    assert "open, 6 min" in seen.text
    send(client, opened | {"stage": "ResponseComplete", "revision": 1, "duration_s": 300.0})
    text = look(client, PAGE).text
    assert "Open now" not in text
    assert "5 min" in text


def test_who_changed_this(client: TestClient, payload: Payload, look: Look) -> None:
    """Each object with who touched it last, and its story behind it."""
    change = {"verb": "patch", "resource": "deployments", "name": "payments-api", "namespace": "shop"}
    send(client, payload(actor="joe", timestamp=at(1), **change), payload(actor="jane", **change))
    seen = look(client, PAGE)
    assert "deployments/payments-api patch by jane just now" in seen.text
    story = next(address for address, words in seen.links if words == "2 times")
    assert {"jane", "joe"} <= set(look(client, story).text.split())


def test_unknown(client: TestClient, look: Look) -> None:
    """A service that nothing is known of has a page without events, as its API has a score of 0."""
    assert "No event of this service is stored" in look(client, "/service?ref=component:a/unknown").text


@pytest.mark.parametrize("path", ["/service", "/service?ref=x", f"{PAGE}&cursor=x", "/service?ref=component:a/<b>"])
def test_no_such_page(client: TestClient, look: Look, path: str) -> None:
    """What is no reference or no page is told in a page."""
    assert "No such" in look(client, path, 400).text
