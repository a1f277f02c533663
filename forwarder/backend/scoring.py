"""The friction score of a service: pure arithmetic, no clock, no store.

    score = min(100, round(Σ points · 0.5^(age / half-life) / threshold · 100))

over every event in the window. An event counts fully when it happens, half after one half-life, and so a service
recovers by itself.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

DAY_US = 86_400_000_000
MAX_DAYS = 36_500  # a hundred years: keeps every sum of microseconds far inside 64 bits
OVERHEAD_MINUTES = 25  # what one way around the platform costs an engineer, as Healert counts it
BANDS: tuple[tuple[int, "Band"], ...] = ((80, "critical"), (60, "high"), (40, "medium"), (0, "low"))

Band = Literal["critical", "high", "medium", "low"]


class Scoring(msgspec.Struct, frozen=True, kw_only=True):
    """threshold: decayed points that make 100. half_life_days, window_days: as in the backend's settings."""

    threshold: float = 50.0
    half_life_days: float = 7.0
    window_days: int = 30

    def since_us(self, now_us: int) -> int:
        """The oldest moment that still counts, Unix microseconds."""
        return now_us - self.window_days * DAY_US

    def score(self, points: float) -> int:
        """0 to 100, of decayed points."""
        # To nine places first: a sum made of parts may miss a half by its last bit, and must round as the whole does.
        return min(100, round(round(points / self.threshold * 100, 9)))

    def points_of(self, score: int) -> float:
        """The decayed points from which on that score (of 1 to 100) is reached."""
        return (score - 0.5) / 100 * self.threshold


class Chosen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The four settings; bounds as in BackendSettings."""

    threshold: Annotated[float, msgspec.Meta(gt=0, le=1e9)] = 50.0
    half_life_days: Annotated[float, msgspec.Meta(ge=0.01, le=MAX_DAYS)] = 7.0
    score_retention_days: Annotated[int, msgspec.Meta(ge=1, le=MAX_DAYS)] = 30
    retention_days: Annotated[int, msgspec.Meta(ge=1, le=MAX_DAYS)] = 30


class FrictionScore(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A service's score in the words of the Healert API."""

    score: int
    severity: Band
    bypass_count: int
    overhead_hours_per_engineer: float
    top_friction_workflow: str


def friction_score(points: float, count: int, workflows: Mapping[str, int], scoring: Scoring) -> FrictionScore:
    """points: decayed; count: events in the window; workflows: how many of them belong to each."""
    score = scoring.score(points)
    return FrictionScore(
        score=score,
        severity=band(score),
        bypass_count=count,
        overhead_hours_per_engineer=round(count * OVERHEAD_MINUTES / 60, 1),
        top_friction_workflow=most({name: n for name, n in workflows.items() if name}) or "none",
    )


def band(score: int) -> Band:
    """The word for a score."""
    return next(word for least, word in BANDS if score >= least)


def most(counts: Mapping[str, int]) -> str:
    """The most frequent key, the alphabetically first among equals (so that an answer does not flicker), else ""."""
    return min(counts, key=lambda key: (-counts[key], key), default="")
