"""Events by every filter, and hostile text in every field of one."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.backend.dashboard.conftest import Look, Seen

Payload = Callable[..., dict[str, Any]]

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% include '/etc/passwd' %}",
    "javascript:alert(1)//",
    "</title></textarea></style><svg onload=alert(1)>",
    "&lt;b&gt; &amp;amp;",
    "\u202egnp.exe\u2066",
    "\U0001f4a9" * 40,
    "a\x00b\x1b[31mc\r\nd",
    "x" * 200,
]
FIELDS = ("actor", "description", "cluster", "workflow", "namespace", "service", "verb", "resource", "subresource", "name",
          "container", "node", "acting_as", "via", "user_agent", "command", "stage", "audit_id")  # fmt: skip


def send(client: TestClient, *events: dict[str, Any]) -> None:
    assert client.post("/events", json=list(events)).status_code == 200


def harmless(seen: Seen) -> None:
    """No element and no attribute that our templates do not have, and no address that leads out of here."""
    for tag, attributes in seen.tags:
        assert tag not in ("img", "iframe", "object", "embed", "style", "base"), tag
        assert not any(name.startswith("on") or name == "style" for name in attributes), attributes
        for name in ("href", "src", "action"):
            assert attributes.get(name, "/").startswith(("/", "#")), attributes
        assert not attributes.get("href", "").startswith("//")
    scripts = [attributes.get("src") for tag, attributes in seen.tags if tag == "script"]
    assert scripts == ["/static/theme.js", "/static/app.js"]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text(client: TestClient, payload: Payload, look: Look, text: str) -> None:
    """Whatever stands in an event is text on every page, and the pages stay what they are."""
    hostile = {name: text[:64] if name == "stage" else text for name in FIELDS}
    send(client, payload(**hostile, source_ips=[text], tags=[text, f"team:{text}"], id="a"))
    shown = "".join(char if char.isprintable() else " " for char in text).split()[0]
    form = {"actor": text, "author": text, "reason": text, "until": "2027-01-01"}
    client.post("/triage", data=form, follow_redirects=False)
    paths = ["/", "/search", "/event?id=a", "/actors", "/service?ref=component:shop/payments-api", "/rule?name=kubectl-exec",
             "/triage", "/status", "/rules"]  # fmt: skip
    for path in paths:
        harmless(look(client, path))
    event = look(client, "/event?id=a")
    assert shown in event.text
    actor = next(address for address in event.addresses() if address.startswith("/actor?"))
    harmless(look(client, actor))
    assert client.get(actor).text.count("kubectl-exec") >= 1


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("name", ["q", "entity", "actor", "cluster", "namespace", "object", "since", "rule"])
def test_hostile_address(client: TestClient, look: Look, name: str, text: str) -> None:
    """What stands in the address is text on the page."""
    for path in ("/search", "/", "/triage", "/actors"):
        answer = client.get(path, params={name: text}, headers={"Accept": "text/html"})
        assert answer.status_code == 200
        harmless(Seen(answer.text))


def test_words(client: TestClient, payload: Payload, look: Look) -> None:
    """Words find events; names that contain them are offered as well."""
    send(client, payload(command="psql -c vacuum"), payload(actor="vacuum-cleaner"), payload(command="env"))
    seen = look(client, "/search?q=vacuum")
    assert "2 events" in seen.text
    assert "/actor?name=vacuum-cleaner" in seen.addresses()
    assert "env" not in seen.text.split()


def test_problems_are_told(client: TestClient, payload: Payload, look: Look) -> None:
    """A field that makes no sense is named and left out."""
    send(client, payload())
    seen = look(client, "/search?hour=99")
    assert "hour must be 0 to 23; it was left out" in seen.text
    assert "1 event" in seen.text


def test_pages(client: TestClient, payload: Payload, look: Look) -> None:
    """Older events follow, none twice and none left out."""
    send(client, *[payload(id=f"e{number}") for number in range(120)])
    found: list[str] = []
    path = "/search?rule=kubectl-exec"
    for _ in range(3):
        seen = look(client, path)
        found += [address for address, _ in seen.links if address.startswith("/event?")]
        path = next((address for address, words in seen.links if words == "Older"), "")
    assert path == ""
    assert sorted(found) == sorted(f"/event?id=e{number}" for number in range(120))
    assert "No such page" in look(client, "/search?cursor=x", 400).text


def test_event(client: TestClient, payload: Payload, look: Look) -> None:
    """One event with all that is known, and the ways to mark it."""
    send(client, payload(id="a", actor="jane", user_agent="kubectl/1.34", node="n1", tty=True, command="sh"))
    seen = look(client, "/event?id=a")
    for part in ("kubectl/1.34", "node n1", "on a terminal", "10 points", "revision 0"):
        assert part in seen.text
    assert "/triage?event=a#new" in seen.addresses()


def test_no_event(client: TestClient, look: Look) -> None:
    """One that is not there is a 404 with a word."""
    assert "older than this backend keeps events" in look(client, "/event?id=x", 404).text
    look(client, "/event", 404)


def test_test_event(client: TestClient, payload: Payload, look: Look) -> None:
    """A test of doctor says that it is one."""
    send(client, payload(id="a", test=True))
    assert "never scored" in look(client, "/event?id=a").text
