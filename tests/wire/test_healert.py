"""What the answers of a backend mean."""

import json

import pytest

from forwarder.wire.healert import MAX_WORDS_CHARS, Health, Recorded, answer, words
from forwarder.wire.http_client import Fault, Reply


def reply(status: int, body: object) -> Reply:
    return Reply(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def test_an_answer_with_more_than_we_know_is_understood() -> None:
    """Backends grow."""
    health = answer(reply(200, {"status": "ok", "version": "v9", "new": {"a": 1}}), Health)
    assert health == Health(status="ok", version="v9")


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(reply(200, b"<html>It works!</html>"), id="a-web-page"),
        pytest.param(reply(200, b""), id="nothing"),
        pytest.param(reply(200, {"ok": True}), id="another-services-json"),
        pytest.param(reply(200, [1]), id="a-list"),
        pytest.param(reply(200, b"[" * 100_000), id="nested-too-deep"),
        pytest.param(reply(200, b'{"status": "\xff"}'), id="not-utf-8"),
        pytest.param(reply(202, {"status": "ok"}), id="accepted-is-not-recorded"),
        pytest.param(reply(500, {"status": "ok"}), id="an-error"),
        pytest.param(Fault("refused"), id="no-answer"),
    ],
)
def test_nothing_else_passes_for_an_answer(given) -> None:
    """What stands between us and the backend may answer 200 too; that delivers nothing."""
    assert answer(given, Recorded) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param({"detail": "no such entity"}, "422: no such entity", id="a-text"),
        pytest.param(
            {"detail": [{"loc": ["body", "actor"], "msg": "too long", "input": "SECRET"}, {"msg": "odd"}]},
            "422: actor: too long; odd",
            id="fastapi",
        ),
        pytest.param({"detail": [{"loc": ["body", 3, "type"]}]}, "422: 3.type: refused", id="without-words"),
        pytest.param({"error": "Rate limit exceeded"}, "422: Rate limit exceeded", id="slowapi"),
        pytest.param({"detail": []}, "422: no reason given", id="an-empty-list"),
        pytest.param({"detail": {"a": "SECRET"}}, "422: no reason given", id="an-unknown-shape"),
        pytest.param([[["SECRET"]]], "422: no reason given", id="a-list"),
        pytest.param(b"Bad\r\nRequest\x1b[2J", "422: Bad  Request [2J", id="plain-text"),
        pytest.param(b"", "422: no reason given", id="nothing"),
        pytest.param(b"[" * 100_000, "422: " + "[" * (MAX_WORDS_CHARS - 5), id="nested-too-deep"),
        pytest.param(b'"\xff\xfe"', '422: "��"', id="not-utf-8"),
        pytest.param({"detail": "x" * 10_000}, "422: " + "x" * (MAX_WORDS_CHARS - 5), id="a-long-one"),
    ],
)
def test_the_reason_of_a_refusal(body, expected) -> None:
    """Short, printable, with its status; never the part of a validation error that quotes the event."""
    assert words(reply(422, body)) == expected
