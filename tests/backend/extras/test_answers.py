"""Moments and refusals as the API tells them."""

import msgspec
import pytest
from fastapi import HTTPException

from forwarder.backend.extras.answers import moment, told
from forwarder.backend.store.triage import FOREVER_US


class Inner(msgspec.Struct):
    last_us: int


class Outer(msgspec.Struct):
    seen_us: int
    until_us: int
    inner: list[Inner]


def test_told() -> None:
    """Every `_us`, however deep, becomes a moment; never and for ever are null."""
    assert told(Outer(1_780_000_000_000_000, FOREVER_US, [Inner(0)])) == {
        "seen": "2026-05-28T20:26:40.000000Z",
        "until": None,
        "inner": [{"last": None}],
    }


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "1" * 41])
def test_no_moment(text: str) -> None:
    """What is no moment is refused by the parameter's name."""
    with pytest.raises(HTTPException) as caught:
        moment("since", text)
    assert caught.value.status_code == 422
    assert caught.value.detail[0]["loc"] == ["query", "since"]


def test_moment() -> None:
    """A zone-less one is UTC; none is none."""
    assert moment("since", "1970-01-01T00:00:01") == 1_000_000
    assert moment("since", "") is moment("since", None) is None
