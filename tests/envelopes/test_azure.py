"""AKS diagnostic records: only audit events, whole or cut, with the cluster's name and the record's time."""

import json

import pytest

from forwarder.events.audit import decode


def test_a_message_of_event_hubs(message, opened, friction):
    """Audit events count in whatever category they stand; klog text counts in none; both audit categories give one id."""
    contents = opened(message("aks-records.json"))
    assert len(contents.lines) == 5
    assert contents.bad == []
    assert contents.skipped == {"other_category": 2, "no_audit_text": 1}
    assert {found.cluster for found in contents.lines} == {"shop-prod-weu"}
    events = friction(contents)
    shells = [event for event in events if event.resource == "pods"]
    assert len({event.id for event in shells[:2]}) == 1
    assert {event.actor for event in events} == {"masterclient"}
    assert {event.type for event in events} >= {"kubectl-exec", "config-drift"}


def test_a_cut_event_keeps_who_what_and_where_and_takes_its_time_from_the_record(message, opened, friction):
    """AKS cuts at 16 KiB, before the timestamps."""
    contents = opened(message("aks-records.json"))
    cut = decode(contents.lines[-1].line)
    assert (cut.partial, cut.verb, cut.object_ref.name) == (True, "patch", "checkout")
    event = friction(contents)[-1]
    assert event.timestamp.startswith("2026-08-14T09:25:30.5")


def test_a_byte_order_mark_is_no_part_of_it(message, opened):
    """Event Hubs may put one in front."""
    assert len(opened(b"\xef\xbb\xbf" + message("aks-records.json")).lines) == 5


def test_a_single_record_and_a_list_of_them(message, opened):
    """Without `records` around them."""
    records = json.loads(message("aks-records.json"))["records"]
    assert len(opened(json.dumps(records[0]).encode()).lines) == 1
    assert len(opened(json.dumps(records).encode()).lines) == 5


def test_a_message_that_is_cut_keeps_its_complete_records(message, opened):
    """And the cut one is salvaged as far as it goes."""
    data = message("aks-records.json")
    contents = opened(data[: data.index(b"2d3a5e1c") + 300])
    assert [decode(found.line).audit_id[:8] for found in contents.lines] == ["8f2c1f6e", "8f2c1f6e", "2d3a5e1c"]


@pytest.mark.parametrize(
    ("properties", "lines"),
    [('{"log":{"kind":"Event","auditID":"a","verb":"get"}}', 1), ('"{\\"log\\":\\"{\\\\\\"auditID\\\\\\":\\\\\\"a\\\\\\"}\\"}"', 1), ("{}", 0), ("null", 0)],
    ids=["log is an object", "properties are text", "no log", "null"],
)  # fmt: skip
def test_odd_properties(opened, properties, lines):
    """Nothing of it is fatal."""
    contents = opened(('{"category":"kube-audit","properties":' + properties + "}").encode())
    assert len(contents.lines) == lines
    assert contents.bad == []
