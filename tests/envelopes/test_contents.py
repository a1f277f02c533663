"""Texts, times and compressed parts out of raw JSON."""

import gzip

import pytest

from forwarder.envelopes.contents import Unreadable, inflated, is_audit_text, items_of, line_of, text_of, time_of


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b'"a\\nb"', "a\nb"),
        (b'"cut \\u00e9 of', "cut é of"),
        (b'"ends in an escape\\', "ends in an escape"),
        (b'"\\ud800"', "�"),
        (b'"\xff"', "�"),
        (b"12", ""),
        (b"", ""),
        (None, ""),
    ],
)
def test_a_string_is_read_also_where_it_is_cut(raw, text):
    """And nothing but a string."""
    assert text_of(raw) == text


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        (b'"2026-08-14T09:23:11.0410000Z"', 1786699391.041),
        (b'"2026-08-14T11:23:11+02:00"', 1786699391.0),
        (b'"2026-08-14 09:23:11Z"', 1786699391.0),
        (b"1786699391", 1786699391.0),
        (b"1786699391000", 1786699391.0),
        (b'"1786699391.5"', 1786699391.5),
        (b'"soon"', 0.0),
        (b"-5", 0.0),
        (b"1e999", 0.0),
        (b"NaN", 0.0),
        (b'"2026-99-99T09:23:11Z"', 0.0),
        (b"{}", 0.0),
        (None, 0.0),
    ],
)
def test_times(raw, seconds):
    """RFC 3339, seconds and milliseconds; everything else is no time."""
    assert time_of(raw) == pytest.approx(seconds)


def test_values_and_strings_as_lines():
    """A string is what stands in it; a value is itself."""
    assert line_of(b'"{\\"a\\":1}"') == b'{"a":1}'
    assert line_of(b'{"a":1}') == b'{"a":1}'
    assert items_of(b"{}") == []


def test_gzip_of_several_members_with_a_bound():
    """Exactly the bound is allowed."""
    data = gzip.compress(b"abc") + gzip.compress(b"def")
    assert inflated(data, 6) == b"abcdef"
    for bad, bound, reason in ((data, 5, "inflates_too_far"), (data[:-3], 100, "bad_gzip"), (b"x", 1, "bad_gzip")):
        with pytest.raises(Unreadable) as caught:
            inflated(bad, bound)
        assert caught.value.reason == reason


def test_audit_text():
    """An auditID near its beginning."""
    assert is_audit_text(' {"kind":"Event","auditID":"a"}')
    assert not is_audit_text('I0814 "auditID"')
    assert not is_audit_text('{"x":1}')
