"""Back-off, Retry-After and the token bucket, on a clock and a chance of our own."""

import pytest

from forwarder.wire.pacing import MAX_RETRY_AFTER_S, MIN_DELAY_S, Backoff, TokenBucket, retry_after_s

NOW = 1_750_000_000.0  # Sun, 15 Jun 2025 15:06:40 GMT


def test_back_off_doubles_up_to_its_cap_and_begins_anew_after_a_success() -> None:
    """The ceiling is 0.5, 1, 2, 4 … seconds, and never more than the cap."""
    backoff = Backoff(base_s=0.5, cap_s=30.0, chance=lambda: 1.0)
    assert [backoff.next_s() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.next_s() == 0.5


def test_back_off_is_any_part_of_its_ceiling() -> None:
    """Full jitter: receivers that lost one backend together do not return together; but never at once."""
    chances = iter([0.0, 0.25, 0.5])
    backoff = Backoff(base_s=4.0, cap_s=30.0, chance=lambda: next(chances))
    assert [backoff.next_s() for _ in range(3)] == [MIN_DELAY_S, 2.0, 8.0]


def test_back_off_survives_a_long_outage() -> None:
    """A week of failures is no overflow."""
    backoff = Backoff(base_s=0.5, cap_s=30.0, chance=lambda: 1.0)
    assert {backoff.next_s() for _ in range(20_000)} >= {30.0}


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    """No more than burst + rate in any minute."""
    now = [0.0]
    bucket = TokenBucket(per_minute=60, burst=3, clock=lambda: now[0])
    assert [bucket.take() for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]
    now[0] = 0.25
    assert bucket.take() == 0.75
    now[0] = 1.0
    assert [bucket.take(), bucket.take()] == [0.0, 1.0]
    now[0] = 1000.0
    assert [bucket.take() for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]


def test_waiting_as_long_as_the_bucket_says_is_enough() -> None:
    """Whatever the rounding of many small sums."""
    now = [0.0]
    bucket = TokenBucket(per_minute=55, burst=1, clock=lambda: now[0])
    bucket.take()
    for _ in range(1000):
        now[0] += bucket.take()
        assert bucket.take() == 0.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("120", 120.0, id="seconds"),
        pytest.param(" 7 ", 7.0, id="padded"),
        pytest.param("0", 0.0, id="now"),
        pytest.param("Sun, 15 Jun 2025 15:07:40 GMT", 60.0, id="date"),
        pytest.param("Sun, 15 Jun 2025 15:07:40 -0000", 60.0, id="date-without-a-zone"),
        pytest.param("Sun, 15 Jun 2025 14:00:00 GMT", 0.0, id="date-gone-by"),
        pytest.param("99999999999999999999", MAX_RETRY_AFTER_S, id="for-ever"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER_S, id="until-the-end-of-time"),
        pytest.param("soon", None, id="a-word"),
        pytest.param("-5", None, id="negative"),
        pytest.param("1.5", None, id="a-fraction"),
        pytest.param("²", None, id="a-digit-that-is-no-number"),
        pytest.param("", None, id="empty"),
        pytest.param(None, None, id="absent"),
    ],
)
def test_retry_after(value, seconds) -> None:
    """Both forms of RFC 9110, 10.2.3; nonsense is no answer, and nobody may put us off for longer than the bound."""
    assert retry_after_s(value, NOW) == seconds
