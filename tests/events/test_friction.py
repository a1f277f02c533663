"""The friction event and its id."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from forwarder.events.friction import NAMESPACE, POINTS, FrictionEvent, decode, encode, event_id


def event(**changes: object) -> FrictionEvent:
    fields = {
        "entity_ref": "component:shop/web", "type": "kubectl-exec", "severity": "high", "actor": "alice", "workflow": "deploy",
        "description": "x", "timestamp": "2026-03-02T10:15:01.000000Z", "points": 10, "id": "i", "revision": 1, "audit_id": "a",
        "verb": "get", "resource": "pods",
    }  # fmt: skip
    return FrictionEvent(**(fields | changes))


def test_an_event_comes_back_as_it_was_stored() -> None:
    """JSON, with defaults left out."""
    whole = event(source_ips=("10.0.0.1",), duration_s=1.5, tags=("access",), partial=True, tty=True)
    assert decode(encode(whole)) == whole
    assert decode(encode(event())) == event()
    assert b"duration_s" not in encode(event())


def test_a_field_of_a_newer_version_is_ignored() -> None:
    """An outbox may hold events that a newer forwarder wrote before it was rolled back."""
    assert decode(encode(event())[:-1] + b',"new_field":1}') == event()


def test_an_id_is_a_uuid_of_version_5() -> None:
    """Made as RFC 9562 says, from length-prefixed parts."""
    made = event_id("c", "a", "t", "r")
    assert uuid.UUID(made).version == 5
    assert made == str(uuid.uuid5(NAMESPACE, "1:c1:a1:t1:r"))


texts = st.text(max_size=8)


@given(st.lists(texts, min_size=4, max_size=4), st.lists(texts, min_size=4, max_size=4))
def test_different_requests_have_different_ids(one: list[str], other: list[str]) -> None:
    """A length before each part: `ab` + `c` is not `a` + `bc`, whatever a client writes into its Audit-ID."""
    assert (event_id(*one) == event_id(*other)) is (one == other)


def test_points_follow_severity() -> None:
    """As Healert's do."""
    assert POINTS == {"high": 10, "medium": 6, "low": 3}
