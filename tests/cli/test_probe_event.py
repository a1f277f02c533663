"""The event that `doctor --send` makes."""

import json

from forwarder.cli.probe_event import RULE, _holds, make_test_event
from forwarder.detection.detector import TEST_API_VERSION, TEST_RULE, Detector
from forwarder.detection.loader import load_rules
from forwarder.settings import shipped


def test_the_detector_takes_it_for_what_it_is() -> None:
    """It passes the screen, gives one event marked as a test, and its auditID is the one that is looked for."""
    detector = Detector(load_rules([shipped("rules/friction.yaml")]), cluster="prod")
    event = make_test_event()
    assert detector.screen(event.line, 0, len(event.line))
    (found,) = detector.detect(event.line)
    assert (found.test, found.type, found.audit_id) == (True, TEST_RULE, event.audit_id)
    assert RULE == TEST_RULE
    assert json.loads(event.line)["apiVersion"] == TEST_API_VERSION


def test_each_is_new() -> None:
    """Two runs are two events: the outbox would swallow a repeated one."""
    assert make_test_event().audit_id != make_test_event().audit_id


def test_it_is_known_by_its_audit_id() -> None:
    """Only its own counts; an answer that is no list counts for nothing."""
    event = make_test_event()
    assert _holds(json.dumps([{"audit_id": "x"}, {"audit_id": event.audit_id}]).encode(), event)
    for body in (b"[]", b"{", b"{}", b'[{"audit_id":"x"}]', b"[1]"):
        assert not _holds(body, event)
