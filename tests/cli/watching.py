"""Messages as a feed sends them, for the tests of `forwarder watch`."""

from typing import Any

from forwarder.events.audit import decode
from forwarder.events.friction import FrictionEvent
from forwarder.feed import mapping, schema
from forwarder.feed.client import Seen


def alert(target: str = "feed:1", **more: Any) -> Seen:
    """Somebody opens a shell in a pod."""
    fields: dict[str, Any] = {
        "entity_ref": "component:payments/web", "type": "kubectl-exec", "severity": "high", "actor": "alice@corp.example",
        "workflow": "debug", "description": "x", "timestamp": "2026-03-01T10:00:00.250000Z", "points": 10, "id": "i",
        "revision": 0, "audit_id": "a", "verb": "create", "resource": "pods", "subresource": "exec", "name": "web-0",
        "namespace": "payments", "service": "web", "cluster": "eu-1", "command": "sh -c id", "stage": "ResponseStarted",
        "response_code": 101,
    }  # fmt: skip
    encoded = mapping.alert(FrictionEvent(**(fields | more)))
    return Seen(target, "alerts", schema.Alert.FromString(encoded))


def log(username: str = "bob") -> Seen:
    """Somebody lists secrets."""
    line = (
        b'{"auditID":"a","verb":"list","stage":"ResponseComplete","user":{"username":"%s"},"responseStatus":{"code":403},'
        b'"objectRef":{"resource":"secrets","namespace":"shop"},"requestReceivedTimestamp":"2026-03-01T10:00:00.25Z"}'
    )
    encoded = mapping.log(decode(line % username.encode()), "eu-1")
    return Seen("feed:1", "logs", schema.Log.FromString(encoded))


def message(text: str = "rules loaded again", level: str = "INFO") -> Seen:
    """The receiver says something."""
    return Seen("feed:1", "messages", schema.Message.FromString(mapping.message(level, text, "eu-1", 1772359200.0)))


def loss(count: int = 7) -> Seen:
    """Events were left out."""
    return Seen("feed:1", "alerts", schema.Alert.FromString(mapping.dropped("alerts", count, "eu-1")))
