"""The fast path never says no where the full decode and the same rules would find something."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forwarder.detection.detector import Detector
from forwarder.detection.loader import load_rules
from forwarder.errors import MalformedEvent

LINES = Path("tests/data/control-plane/audit.log").read_bytes().splitlines()
BOTH = ["rules/friction.yaml", "rules/extended.yaml"]
DETECTOR = Detector(load_rules(BOTH))


def go_json(value: Any) -> bytes:
    """As Go's encoder writes it: no spaces, & < > escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e").encode("utf-8", "surrogatepass")


def finds(detector: Detector, line: bytes) -> bool:
    """The reference. A broken line that no rule could care about may pass unnoticed: only candidates are validated."""
    try:
        return bool(detector.detect(line))
    except MalformedEvent:
        return False


def agree(detector: Detector, line: bytes) -> None:
    said = detector.screen(line, 0, len(line))
    assert said or not finds(detector, line), line[:800]


def test_a_real_log_is_read_on_the_fast_path() -> None:
    """99 of 100 lines of a real kube-apiserver need no decode."""
    detector = Detector(load_rules(BOTH))
    for line in LINES:
        agree(detector, line)
    assert detector.screen.counts.fallback < 0.01 * len(LINES)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_line_is_read_in_place_in_any_buffer(kind: type) -> None:
    """What stands before and behind it does not matter."""
    detector = Detector(load_rules(BOTH))
    alone = [detector.screen(line, 0, len(line)) for line in LINES]
    buffer, spans = bytearray(b"\xdb\x00"), []
    for line in LINES:
        spans.append((len(buffer), len(buffer) + len(line)))
        buffer += line + b'","verb":"get"\x92'
    held = kind(buffer)
    assert [detector.screen(held, start, end) for start, end in spans] == alone
    assert any(alone)
    assert not all(alone)


text = st.text(alphabet=st.sampled_from('ab"\\{}[]:,/-. \n\u0026<>é\U0001f600'), max_size=12) | st.sampled_from(
    [
        'n"}',
        '"},"objectRef":{"resource":"pods"',
        '","verb":"get"',
        "system:node:x",
        "system:masters",
        "kube-system",
        "pods",
        "secrets",
        "\\",
    ]
)
value = text | st.sampled_from(["get", "list", "create", "patch", "exec", "alice", "shop", ""])
EVENT = st.fixed_dictionaries(
    {"stage": st.sampled_from(["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"]), "verb": st.sampled_from(["get", "list", "create", "patch", "delete", "watch"])},
    optional={
        "auditID": value,
        "requestURI": value,
        "userAgent": value,
        "user": st.fixed_dictionaries({"username": value}, optional={"uid": value, "groups": st.lists(value, max_size=2), "extra": st.dictionaries(value, st.lists(value, max_size=2), max_size=2)}),
        "impersonatedUser": st.none() | st.fixed_dictionaries({"username": value}),
        "sourceIPs": st.none() | st.lists(value, max_size=2),
        "objectRef": st.none() | st.fixed_dictionaries({}, optional={k: st.sampled_from(["pods", "secrets", "deployments", "nodes"]) if k == "resource" else st.sampled_from(["", "exec", "scale", "status"]) if k == "subresource" else value for k in ("resource", "namespace", "name", "uid", "apiGroup", "apiVersion", "resourceVersion", "subresource")}),
        "responseStatus": st.fixed_dictionaries({"code": st.sampled_from([101, 200, 201, 403, 404, 500])}),
        "requestObject": st.dictionaries(value, value, max_size=2) | value,
    },
)  # fmt: skip
ORDER = ("kind", "apiVersion", "level", "auditID", "stage", "requestURI", "verb", "user", "impersonatedUser", "sourceIPs", "userAgent",
         "objectRef", "responseStatus", "requestObject", "responseObject", "requestReceivedTimestamp", "stageTimestamp", "annotations")  # fmt: skip
REFERENCE_ORDER = ("resource", "namespace", "name", "uid", "apiGroup", "apiVersion", "resourceVersion", "subresource")


def canonical(fields: dict[str, Any], shuffle: list[str] | None = None) -> bytes:
    whole = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "requestReceivedTimestamp": "2026-03-02T10:15:01.000000Z",
        "auditID": "a",
        "requestURI": "/",
        "user": {"username": "alice"},
        "sourceIPs": ["10.0.0.7"],
        **fields,
    }
    if isinstance(whole.get("objectRef"), dict):
        whole["objectRef"] = {k: whole["objectRef"][k] for k in REFERENCE_ORDER if k in whole["objectRef"]}
    order = shuffle or [key for key in ORDER if key in whole]
    return go_json({key: whole[key] for key in order if key in whole})


@settings(max_examples=600, deadline=None)
@given(EVENT)
@example(
    {
        "stage": "ResponseComplete",
        "verb": "get",
        "objectRef": {"resource": "pods", "namespace": "shop", "name": 'n"}', "subresource": "exec"},
    }
)
def test_hostile_values_never_hide_an_event(fields: dict[str, Any]) -> None:
    """Escaped quotes, braces and whole fake fields inside strings; one shared memo, so that poisoning it would show."""
    agree(DETECTOR, canonical(fields))


@settings(max_examples=300, deadline=None)
@given(EVENT, st.permutations(ORDER))
def test_other_key_orders_never_hide_an_event(fields: dict[str, Any], order: list[str]) -> None:
    """What is not in kube-apiserver's order is decoded."""
    agree(DETECTOR, canonical(fields, list(order)))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(LINES), st.data())
def test_cut_and_corrupted_lines_never_hide_an_event(line: bytes, data: st.DataObject) -> None:
    """A cut anywhere, a byte changed anywhere in the head."""
    at = data.draw(st.integers(0, min(len(line), 1200) - 1))
    agree(DETECTOR, line[:at])
    changed = bytearray(line)
    changed[at] = data.draw(st.sampled_from(b'"\\{}[],:a\x00\xff'))
    agree(DETECTOR, bytes(changed))


def test_a_name_with_an_escaped_quote_does_not_poison_the_memo() -> None:
    """`n"}` must not end objectRef early and store `get secrets/<sub>` under the key of `get secrets`."""
    detector = Detector(load_rules(BOTH))
    reference = {"resource": "secrets", "namespace": "shop", "name": 'n"},"responseStatus":{}', "subresource": "status"}
    hostile = canonical({"stage": "ResponseComplete", "verb": "get", "objectRef": reference})
    detector.screen(hostile, 0, len(hostile))
    honest = canonical(
        {
            "stage": "ResponseComplete",
            "verb": "get",
            "objectRef": {"resource": "secrets", "namespace": "shop", "name": "n"},
        }
    )
    assert detector.screen(honest, 0, len(honest))


@pytest.mark.parametrize("url", ["/api/v1/namespaces/shop/secrets/db", "/apis/apps/v1/namespaces/shop/deployments/web"])
def test_a_cut_line_without_objectref_is_decoded_where_its_url_names_an_object(url: str) -> None:
    """Something on the way took the objectRef out, and the line was cut: the full decode reads the object from the URL."""
    line = canonical(
        {"stage": "ResponseComplete", "verb": "delete", "requestURI": url, "responseStatus": {"code": 200}}
    )
    for at in (len(line) - 1, line.index(b'"responseStatus":{') + 20, line.index(b'"responseStatus":{') + 18):
        assert DETECTOR.detect(line[:at])
        agree(DETECTOR, line[:at])
    version = canonical({"stage": "ResponseComplete", "verb": "get", "requestURI": "/version", "responseStatus": {}})
    before = DETECTOR.screen.counts.fallback
    assert not DETECTOR.screen(version, 0, len(version))
    assert DETECTOR.screen.counts.fallback == before


def test_an_impersonated_machine_leaves_the_fast_path() -> None:
    """The username alone would call it a machine's request; the person behind it acts."""
    detector = Detector(load_rules(BOTH))
    fields = {
        "stage": "ResponseComplete",
        "verb": "get",
        "objectRef": {"resource": "secrets", "namespace": "shop", "name": "db"},
    }
    line = canonical(
        fields | {"user": {"username": "system:serviceaccount:a:rancher"}, "impersonatedUser": {"username": "alice"}}
    )
    assert detector.screen(line, 0, len(line))
    plain = canonical(fields | {"user": {"username": "system:serviceaccount:a:rancher"}})
    assert not detector.screen(plain, 0, len(plain))


def test_the_memo_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever names an attacker invents."""
    monkeypatch.setattr("forwarder.detection.screen.MAX_REMEMBERED", 10)
    detector = Detector(load_rules(BOTH))
    for number in range(50):
        line = canonical(
            {"stage": "ResponseComplete", "verb": "list", "objectRef": {"resource": "pods", "namespace": f"n{number}"}}
        )
        assert not detector.screen(line, 0, len(line))
        screen = detector.screen
        assert len(screen._silent) + sum(1 + len(asker.answers) for asker in screen._askers.values()) <= 12


@pytest.mark.parametrize("place", ["namespace", "resource", "subresource", "user"])
def test_long_names_are_judged_but_not_remembered(place: str) -> None:
    """A request line holds a megabyte, and whoever may not even read may send one: 65,000 of them would be 60 GB."""
    detector = Detector(load_rules(BOTH))
    for number in range(3):
        name = "n" * 1000 + str(number)
        reference = {"resource": "pods", "namespace": "shop", "name": "x", "subresource": "exec"}
        fields = {"stage": "ResponseComplete", "verb": "get", "objectRef": reference}
        if place == "user":
            fields["user"] = {"username": name}
        else:
            reference[place] = name
        agree(detector, canonical(fields))
    askers = detector.screen._askers
    assert not any(len(key) > 999 for key in (*detector.screen._silent, *askers))
    assert not any(len(part or b"") > 999 for asker in askers.values() for asked in asker.answers for part in asked)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"not json",
        b"[]",
        b'{"kind":"EventList","items":[]}',
        b'{"kind":"Event","apiVersion":"forwarder.test/v1","verb":"create","auditID":"x"}',
    ],
)
def test_what_is_not_one_audit_event_is_for_detect_to_judge(line: bytes) -> None:
    """Broken lines must become dead letters, lists must be split, the doctor's event must pass."""
    assert DETECTOR.screen(line, 0, len(line))
