"""When people are left alone."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from forwarder.alerts.quiet import parse_quiet_hours
from forwarder.errors import ConfigError

BERLIN = ZoneInfo("Europe/Berlin")


def ends(moment: str, hours: str = "22:00-07:00", days: tuple[str, ...] = ()) -> str | None:
    quiet = parse_quiet_hours(hours, days, "Europe/Berlin", where="s")
    assert quiet is not None
    found = quiet.ends(datetime.fromisoformat(moment).replace(tzinfo=BERLIN).timestamp())
    return None if found is None else datetime.fromtimestamp(found, BERLIN).strftime("%a %H:%M")


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2025-06-18T21:59:59", None),
        ("2025-06-18T22:00:00", "Thu 07:00"),
        ("2025-06-18T23:59:59", "Thu 07:00"),
        ("2025-06-19T00:00:00", "Thu 07:00"),
        ("2025-06-19T06:59:59", "Thu 07:00"),
        ("2025-06-19T07:00:00", None),
    ],
)
def test_a_night_reaches_over_midnight(moment: str, expected: str | None) -> None:
    """From the first hour to the last, in local time."""
    assert ends(moment) == expected


def test_hours_within_a_day() -> None:
    """A lunch break."""
    assert ends("2025-06-18T12:30:00", "12:00-13:00") == "Wed 13:00"
    assert ends("2025-06-18T13:30:00", "12:00-13:00") is None


def test_a_weekend_ends_with_the_night_that_follows_it() -> None:
    """Friday's night, Saturday, Sunday and Sunday's night are one quiet."""
    assert ends("2025-06-20T23:00:00", days=("sat", "sun")) == "Mon 07:00"
    assert ends("2025-06-21T12:00:00", days=("sat", "sun")) == "Mon 07:00"
    assert ends("2025-06-21T12:00:00", "", ("sat", "sun")) == "Mon 00:00"
    assert ends("2025-06-23T12:00:00", days=("sat", "sun")) is None


def test_the_night_in_which_the_clocks_change() -> None:
    """The end is a time of day, not a number of hours."""
    assert ends("2025-03-29T23:00:00") == "Sun 07:00"
    assert ends("2025-10-25T23:00:00") == "Sun 07:00"


@pytest.mark.parametrize(
    ("hours", "days", "timezone", "words"),
    [
        ("22-7", (), "UTC", "write for example 22:00-07:00"),
        ("25:00-07:00", (), "UTC", "is no span of hours"),
        ("07:00-07:00", (), "UTC", "begin when they end"),
        ("", ("caturday",), "UTC", "'caturday' is none of mon, tue"),
        ("", ("mon", "tue", "wed", "thu", "fri", "sat", "sun"), "UTC", "nobody would ever be told"),
        ("22:00-07:00", (), "Europe/Atlantis", "is not known here"),
        ("22:00-07:00", (), "../etc/passwd", "is not known here"),
    ],
)
def test_what_is_no_time_is_refused(hours: str, days: tuple[str, ...], timezone: str, words: str) -> None:
    """With the setting and an example."""
    with pytest.raises(ConfigError, match=words):
        parse_quiet_hours(hours, days, timezone, where="sinks.slack")


def test_no_quiet_at_all() -> None:
    """Nothing set is nothing to reckon with."""
    assert parse_quiet_hours("", (), "", where="s") is None
