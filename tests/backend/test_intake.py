"""What a body may hold: bounds, times of all shapes, hostile text, and refusals that quote nothing."""

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.backend.intake import (
    MAX_BATCH_EVENTS,
    MAX_TEXT_CHARS,
    NewEvent,
    Refusal,
    format_timestamp,
    parse_body,
    parse_timestamp,
    read_event,
)
from forwarder.events.friction import FrictionEvent

VALID = {"entity_ref": "component:shop/payments-api", "type": "kubectl-exec", "severity": "high"}
NOON_US = 1_769_860_800_000_000  # 2026-01-31T12:00:00Z


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("2026-01-31T12:00:00Z", NOON_US),
        ("2026-01-31t12:00:00z", NOON_US),
        ("2026-01-31T12:00:00", NOON_US),
        ("2026-01-31 12:00", NOON_US),
        ("20260131T120000Z", NOON_US),
        ("2026-01-31T13:30:00+01:30", NOON_US),
        ("2026-01-31T07:00:00-0500", NOON_US),
        ("2026-01-31T12:00:00.000001Z", NOON_US + 1),
        ("2026-01-31T12:00:00.123456789Z", NOON_US + 123_456),
        ("2026-01-31T12:00:00,5Z", NOON_US + 500_000),
        (" 2026-01-31T12:00:00Z ", NOON_US),
        ("2026-01-31", NOON_US - 43_200_000_000),
        ("1969-12-31T23:59:59Z", -1_000_000),
        ("", None),
        ("yesterday", None),
        ("1769860800", None),
        ("2026-02-30T12:00:00Z", None),
        ("2026-01-31T12:00:60Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("2026-01-31T12:00:00+99:00", None),
    ],
)
def test_timestamps(text: str, time_us: int | None) -> None:
    """Every ISO 8601 shape becomes UTC, one without a zone is UTC already, anything else is no time."""
    assert parse_timestamp(text) == time_us


@given(st.datetimes(), st.sampled_from(["", "Z", "+14:00", "-12:00", "+05:30"]))
def test_timestamp_round_trip(moment: datetime, zone: str) -> None:
    """What was read can be written, and reads the same again, over the whole calendar."""
    time_us = parse_timestamp(moment.isoformat() + zone)
    if time_us is not None:
        assert parse_timestamp(format_timestamp(time_us)) == time_us


@given(st.text(max_size=40))
def test_timestamp_of_anything(text: str) -> None:
    """No text raises."""
    parse_timestamp(text)


def test_defaults() -> None:
    """A plain Healert event gets an id of its own, the points of its severity, and no time."""
    first, second = read_event(VALID), read_event(VALID)
    assert isinstance(first, NewEvent)
    assert isinstance(second, NewEvent)
    assert first.id != second.id
    assert (first.revision, first.points, first.occurred_us, first.test, first.details) == (0, 10, None, False, {})


def test_null_is_absent() -> None:
    """`null` in an optional field is as good as no field; unknown fields are ignored."""
    event = read_event({**VALID, "actor": None, "points": None, "id": None, "timestamp": None, "colour": {"a": [1]}})
    assert isinstance(event, NewEvent)
    assert (event.actor, event.points) == ("", 10)


def test_every_field_of_a_friction_event() -> None:
    """Each field that a receiver sends has a column or a place in `details`: none is lost."""
    known = {*NewEvent.__struct_fields__} - {"occurred_us", "details"} | {"timestamp"}
    marks: dict[str, Any] = {"source_ips": ["10.0.0.1"], "tags": ["a"], "tty": True, "partial": True, "test": True}
    fields = FrictionEvent.__struct_fields__
    values = {name: marks.get(name, "mark") for name in fields if name not in known or name == "test"}
    event = read_event({**VALID, **values})
    assert isinstance(event, NewEvent)
    assert event.details == {name: value for name, value in values.items() if name != "test"}
    assert event.test


BOUNDS: list[tuple[str, Any, bool]] = [
    ("entity_ref", "a:b/c", True),
    ("entity_ref", "Component:a_b/c.d-e_F", True),
    ("entity_ref", "c:" + "n" * 97 + "/" + "x" * 100, True),
    ("entity_ref", "c:" + "n" * 98 + "/" + "x" * 100, False),
    ("entity_ref", "a:b/", False),
    ("entity_ref", "a:b/c\n", False),
    ("entity_ref", "a:b/c/d", False),
    ("entity_ref", "component:default/system:kube-scheduler", False),
    ("entity_ref", 7, False),
    ("type", "abc", True),
    ("type", "a" * 50, True),
    ("type", "ab", False),
    ("type", "a" * 51, False),
    ("type", "Kubectl-Exec", False),
    ("type", "abc\n", False),
    ("severity", "low", True),
    ("severity", "critical", False),
    ("actor", "a" * 200, True),
    ("actor", "a" * 201, False),
    ("description", "d" * 500, True),
    ("description", "d" * 501, False),
    ("points", 1, True),
    ("points", 100, True),
    ("points", 0, False),
    ("points", 101, False),
    ("points", 2.5, False),
    ("points", "7", False),
    ("points", True, False),
    ("timestamp", "2026-01-31T12:00:00.000000000000+00:00", True),
    ("timestamp", "2026-01-31T12:00:00.0000000000000000+00:00", False),
    ("timestamp", 1769860800, False),
    ("id", "0b2f5c0e-7d0e-5c5e-8a39-1d0a2b6a9d11", True),
    ("id", "", False),
    ("id", "a b", False),
    ("id", "a" * 65, False),
    ("revision", -1, False),
    ("revision", 2**70, False),
    ("outcome", "denied", True),
    ("outcome", "maybe", False),
    ("duration_s", 0, True),
    ("duration_s", -0.1, False),
    ("tty", "yes", False),
    ("tags", ["a", 1], False),
]


@pytest.mark.parametrize(("field", "value", "accepted"), BOUNDS)
def test_bounds(field: str, value: Any, accepted: bool) -> None:
    """Each bound holds at its last good value and at its first bad one, and the refusal names the field."""
    event = read_event({**VALID, field: value})
    assert isinstance(event, NewEvent) == accepted
    if isinstance(event, Refusal):
        assert event.field == field


@pytest.mark.parametrize(
    "field", ["entity_ref", "type", "severity", "points", "timestamp", "id", "outcome", "tty", "revision"]
)
def test_refusal_quotes_nothing(field: str) -> None:
    """A refused value is not repeated: it may be a secret that went into the wrong field."""
    event = read_event({**VALID, field: "hunter2 hunter2"})
    assert isinstance(event, Refusal)
    assert "hunter2" not in str(event)
    assert str(event).startswith(f"{field}: must be ")


def test_missing() -> None:
    """A missing field is named."""
    assert str(read_event({"type": "abc", "severity": "low"})) == "entity_ref: is missing"


@pytest.mark.parametrize("item", [None, 1, "text", [], [VALID], True])
def test_not_an_object(item: Any) -> None:
    """An item that is no object is refused by itself."""
    assert str(read_event(item)) == "an event must be an object"


def test_hostile_text() -> None:
    """Control characters and marks that reverse text become spaces; other text stays as it is."""
    event = read_event({**VALID, "actor": "a\x00b\x1b[2Jc\u202ed\x85e", "command": "cat\n/etc/passwd ✓ 😀"})
    assert isinstance(event, NewEvent)
    assert event.actor == "a b [2Jc d e"
    assert event.details["command"] == "cat /etc/passwd ✓ 😀"


def test_long_text_is_cut() -> None:
    """A text that only we know is cut where it is too long; the event still counts."""
    event = read_event({**VALID, "command": "x" * (MAX_TEXT_CHARS + 1), "tags": ["t"] * 1000})
    assert isinstance(event, NewEvent)
    assert len(event.details["command"]) == MAX_TEXT_CHARS
    assert event.details["command"].endswith("x…")
    assert len(event.details["tags"]) == 64


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not valid JSON"),
        (b"{", "the body is not valid JSON"),
        (b"\xff\xfe", "the body is not valid JSON"),
        (b'"\\ud800"', "the body is not valid JSON"),
        (b'"\xed\xa0\x80"', "the body is not valid JSON"),
        (b"1" * 5000, "the body is not valid JSON"),
        (b"[" * 100_000, "the body is nested too deeply"),
        (b'{"a":' * 100_000, "the body is nested too deeply"),
        (b"7", "the body must be an event or a list of events"),
        (b"[" + b"{}," * MAX_BATCH_EVENTS + b"{}]", "at most 1000 events at once; send them in parts"),
    ],
    ids=[
        "empty",
        "cut",
        "no utf-8",
        "lone surrogate",
        "raw surrogate",
        "long number",
        "deep list",
        "deep object",
        "number",
        "too many",
    ],
)
def test_bad_bodies(body: bytes, message: str) -> None:
    """A body that cannot be read is refused in words, whatever it holds."""
    assert str(parse_body(body)) == message
