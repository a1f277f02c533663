"""The arithmetic of a score and its words."""

import pytest

from forwarder.backend.scoring import Scoring, band, friction_score, most


@pytest.mark.parametrize(("points", "score"), [(50, 100), (25, 50), (0, 0), (5000, 100), (0.2, 0), (0.26, 1)])
def test_score(points: float, score: int) -> None:
    """Fifty decayed points make 100, and nothing makes more."""
    assert Scoring().score(points) == score


@pytest.mark.parametrize("score", [1, 40, 60, 80, 100])
def test_points_of(score: int) -> None:
    """The points from which on a score is reached are where rounding turns to it."""
    scoring = Scoring(threshold=37.0)
    assert scoring.score(scoring.points_of(score) + 1e-9) == score
    assert scoring.score(scoring.points_of(score) - 1e-9) == score - 1


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
    """The words of the Healert API and where they begin."""
    assert band(score) == word


def test_in_healerts_words() -> None:
    """Each event costs 25 minutes; the most frequent workflow is told, one without a name is none."""
    found = friction_score(31.0, 7, {"debug": 2, "deploy": 2, "": 3}, Scoring())
    assert (found.score, found.severity, found.bypass_count) == (62, "high", 7)
    assert (found.overhead_hours_per_engineer, found.top_friction_workflow) == (2.9, "debug")


def test_nothing() -> None:
    """A service without events has score 0, band low and no workflow."""
    found = friction_score(0.0, 0, {}, Scoring())
    assert (found.score, found.severity, found.bypass_count) == (0, "low", 0)
    assert (found.overhead_hours_per_engineer, found.top_friction_workflow) == (0.0, "none")


def test_most() -> None:
    """The most frequent wins, the alphabetically first among equals."""
    assert most({"b": 2, "a": 2, "c": 1}) == "a"
    assert most({}) == ""
