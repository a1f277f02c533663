"""Scores against sums made by hand and by brute force."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.backend.scoring import DAY_US, Sample, Scoring, Tally, band, friction_score, rank

NOW_US = 1_780_000_000_000_000


def sample(
    age_days: float = 0.0, points: int = 10, workflow: str = "debug", rule: str = "kubectl-exec", ref: str = "c:n/a"
) -> Sample:
    return Sample(ref, NOW_US - round(age_days * DAY_US), points, workflow, rule)


@pytest.mark.parametrize(("age_days", "score"), [(0, 100), (7, 50), (14, 25), (21, 12), (30, 5)])
def test_half_life(age_days: float, score: int) -> None:
    """Five high events make 100 on the day and half of it with each week that passes."""
    assert friction_score([sample(age_days)] * 5, Scoring(), NOW_US).score == score


def test_window_edge() -> None:
    """An event as old as the window counts; one a microsecond older neither scores nor is counted."""
    edge = NOW_US - 30 * DAY_US
    samples = [Sample("c:n/a", edge, 100, "", "r"), Sample("c:n/a", edge - 1, 100, "late", "r")]
    found = friction_score(samples, Scoring(), NOW_US)
    assert (found.bypass_count, found.score, found.top_friction_workflow) == (1, 10, "none")


def test_future() -> None:
    """A timestamp in the future counts as now, not more."""
    ahead = friction_score([sample(-3650)], Scoring(), NOW_US)
    assert ahead.score == friction_score([sample(0)], Scoring(), NOW_US).score == 20


def test_no_row_limit() -> None:
    """Two thousand small events all count: there is no newest-500 rule."""
    samples = [sample(29.9, points=1)] * 2000
    expected = round(2000 * 0.5 ** (29.9 / 7) / 1000 * 100)
    assert friction_score(samples, Scoring(threshold=1000), NOW_US).score == expected > 0


def test_capped() -> None:
    """A score never exceeds 100."""
    assert friction_score([sample(points=100)] * 50, Scoring(), NOW_US).score == 100


def test_nothing() -> None:
    """A service without events has score 0, band low and no workflow."""
    found = friction_score([], Scoring(), NOW_US)
    assert (found.score, found.severity, found.bypass_count) == (0, "low", 0)
    assert (found.overhead_hours_per_engineer, found.top_friction_workflow) == (0.0, "none")


@pytest.mark.parametrize(
    ("score", "word"),
    [
        (0, "low"),
        (39, "low"),
        (40, "medium"),
        (59, "medium"),
        (60, "high"),
        (79, "high"),
        (80, "critical"),
        (100, "critical"),
    ],
)
def test_bands(score: int, word: str) -> None:
    """The bands begin at 40, 60 and 80."""
    assert band(score) == word


@pytest.mark.parametrize(("count", "hours"), [(1, 0.4), (2, 0.8), (12, 5.0), (13, 5.4)])
def test_overhead(count: int, hours: float) -> None:
    """Each event costs 25 minutes; the sum is in hours with one digit."""
    assert friction_score([sample()] * count, Scoring(), NOW_US).overhead_hours_per_engineer == hours


def test_top_workflow() -> None:
    """The most frequent workflow wins, the alphabet decides a tie, and an event without one has no say."""
    samples = [sample(workflow=word) for word in ("deploy", "incident", "incident", "deploy", "", "", "")]
    assert friction_score(samples, Scoring(), NOW_US).top_friction_workflow == "deploy"
    assert (
        friction_score([*samples, sample(workflow="incident")], Scoring(), NOW_US).top_friction_workflow == "incident"
    )


def test_rank() -> None:
    """Services come by score, then by count, then by name; one with nothing in the window does not come."""
    samples = [
        sample(ref="c:n/small", points=1),
        sample(ref="c:n/b", points=6),
        sample(ref="c:n/a", points=6),
        *[sample(ref="c:n/many", points=3, rule=rule) for rule in ("two", "two", "one")][:2],
        sample(ref="c:n/old", age_days=31),
    ]
    ranked = rank(samples, Scoring(), NOW_US)
    assert [entity.entity_ref for entity in ranked] == ["c:n/many", "c:n/a", "c:n/b", "c:n/small"]
    assert (ranked[0].count, ranked[0].top_rule, ranked[0].last_event_us) == (2, "two", NOW_US)


@given(
    st.lists(st.tuples(st.integers(-5 * DAY_US, 60 * DAY_US), st.integers(1, 100))),
    st.floats(0.01, 1000),
    st.floats(0.5, 10_000),
    st.integers(1, 60),
)
def test_exact(history: list[tuple[int, int]], half_life: float, threshold: float, window: int) -> None:
    """The running sum is the sum of the definition, over any history, half-life and window."""
    scoring = Scoring(threshold=threshold, half_life_days=half_life, window_days=window)
    tally = Tally(scoring, NOW_US)
    for age_us, points in history:
        tally.add(Sample("c:n/a", NOW_US - age_us, points, "", "r"))
    counted = [(max(0, age_us), points) for age_us, points in history if age_us <= window * DAY_US]
    direct = math.fsum(points * 0.5 ** (age_us / DAY_US / half_life) for age_us, points in counted)
    assert tally.count == len(counted)
    assert tally.weighted_points == pytest.approx(direct, rel=1e-9)
    assert tally.score == min(100, round(tally.weighted_points / threshold * 100))
