"""The scanner by itself: spans, texts, and what counts as lost."""

import pytest

from forwarder.events.scan import Scanner


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (b'"a\\"b" x', 6),
        (b"-12.5e+3,", 8),
        (b"true]", 4),
        (b'{"a":[{"]":"}"}]} ', 17),
        (b"[]", 2),
        (b"", -1),
        (b"12x", -1),
        (b"tru", -1),
        (b'"abc', -1),
        (b'{"a":1', -1),
        (b"x", -1),
    ],
)
def test_skip_finds_the_end_of_a_value(text: bytes, end: int) -> None:
    """Or -1 where it is cut or no JSON; a bracket inside a string is none."""
    assert Scanner(text).skip(0) == end


def test_members_and_items_come_in_order() -> None:
    """Each with its span; white space is skipped, nothing is lost."""
    text = b'{ "a" : 1 , "\\u0062":[ 2 , "x"]}'
    scanner = Scanner(text)
    found = {key: text[start:end] for key, (start, end, _) in scanner.members(0)}
    assert found == {"a": b"1", "b": b'[ 2 , "x"]'}
    items = [text[start:end] for start, end, _ in scanner.items(text.index(b"["))]
    assert items == [b"2", b'"x"']
    assert not scanner.lost


@pytest.mark.parametrize("text", [b'{"a":1', b'{"a":1 "b":2}', b'{"a"', b'{"a":', b"{x}", b'{"a":1,"b":"x'])
def test_a_broken_object_is_lost(text: bytes) -> None:
    """Whatever stops the walk before the closing bracket is noticed."""
    scanner = Scanner(text)
    assert all(key in ("a", "b") for key, _ in scanner.members(0))
    assert scanner.lost


def test_other_values_have_no_members() -> None:
    """Asking the wrong kind of value gives nothing and loses nothing."""
    scanner = Scanner(b'"text"')
    assert list(scanner.members(0)) == []
    assert list(scanner.items(0)) == []
    assert not scanner.lost


def test_the_budget_ends_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beyond the budget counts as cut, not as absent."""
    monkeypatch.setattr("forwarder.events.scan.MAX_TOKENS", 8)
    scanner = Scanner(b'{"a":[[1],[[2]],[[3]],[[4]],[[5]],[[6]],[[7]],[[8]]],"b":1}')
    assert [(key, complete) for key, (_, _, complete) in scanner.members(0)] == [("a", False)]
    assert scanner.lost
