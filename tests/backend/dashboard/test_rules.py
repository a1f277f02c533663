"""Rules: what they detect and their tests, where their file is known; what they found, in any case."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from forwarder.backend.api import create_app
from forwarder.backend.dashboard.rulebook import RuleCard, RuleTest
from forwarder.backend.settings import BackendSettings
from forwarder.backend.store import Store
from tests.backend.conftest import BASE_URL, NOW_S
from tests.backend.dashboard.conftest import Look

Payload = Callable[..., dict[str, Any]]

CARD = RuleCard(
    name="kubectl-exec",
    description="{actor}",
    severity="high",
    points=10,
    workflow="deploy",
    words="Somebody opens a shell.",
    tags=("team",),
    file="friction.yaml",
    tests=(
        RuleTest(name="a shell", fires=True, event='{"verb": "<get>"}'),
        RuleTest(name="a robot", fires=False, event="{}", passed=False, reason="fires, but should not"),
    ),
)


@pytest.fixture
def known(store: Store) -> Iterator[TestClient]:
    """A client of a backend that knows one rule."""
    app = create_app(store, BackendSettings(), lambda: NOW_S, rules=lambda: {CARD.name: CARD})
    with TestClient(app, base_url=BASE_URL) as client:
        yield client


def test_list(known: TestClient, payload: Payload, look: Look) -> None:
    """Rules that fired and rules that are known; the figure leads to exactly their events."""
    text = look(known, "/rules").text
    assert "Somebody opens a shell." in text
    assert "never" in text
    known.post("/events", json=[payload(), payload(), payload(type="other-rule")])
    seen = look(known, "/rules")
    assert "Its rules file is not known here" in seen.text
    figure = next(address for address, words in seen.links if words == "2 events of kubectl-exec")
    assert "2 events" in look(known, figure).text


def test_one(known: TestClient, payload: Payload, look: Look) -> None:
    """What it detects, its tests with their audit events and whether they hold, who is noisiest, where."""
    known.post("/events", json=[payload(actor="jane"), payload(actor="joe"), payload(actor="joe")])
    seen = look(known, "/rule?name=kubectl-exec")
    for part in ("fired 3 times", "Somebody opens a shell.", "passed a shell: fires", "failed a robot: stays silent",
                 "fires, but should not", '{"verb": "<get>"}', "friction.yaml"):  # fmt: skip
        assert part in seen.text, part
    assert seen.text.index("joe 2") < seen.text.index("jane 1")


def test_unknown(known: TestClient, look: Look) -> None:
    """A rule that nobody knows has not fired."""
    text = look(known, "/rule?name=x").text
    assert "has not fired" in text
    assert "backend.rules" in text
    assert "No such page" in look(known, "/rule?name=x&cursor=y", 400).text


def test_severity_colours(known: TestClient, payload: Payload, look: Look) -> None:
    """Where the rule is known its severity colours it, by a class."""
    known.post("/events", json=payload())
    assert look(known, "/").having("a", **{"class": "tag high", "href": "/rule?name=kubectl-exec"})
