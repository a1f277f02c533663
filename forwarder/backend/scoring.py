"""The friction score of a service: pure arithmetic, no clock, no store.

    score = min(100, round(Σ points · 0.5^(age / half-life) / threshold · 100))

over every event in the window. An event counts fully when it happens, half after one half-life, and so a service
recovers by itself. A timestamp in the future has age 0: a clock that runs ahead must not raise a score.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

DAY_US = 86_400_000_000
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


class Sample(NamedTuple):
    """What the score needs to know of one event."""

    entity_ref: str
    occurred_us: int
    points: int
    workflow: str
    rule: str


class FrictionScore(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A service's score in the words of the Healert API."""

    score: int
    severity: Band
    bypass_count: int
    overhead_hours_per_engineer: float
    top_friction_workflow: str


class EntityScore(msgspec.Struct, frozen=True, kw_only=True):
    """One line in the list of services. last_event_us: Unix microseconds."""

    entity_ref: str
    score: int
    severity: Band
    count: int
    top_rule: str
    last_event_us: int


class Tally:
    """The running sum for one service at one moment; samples outside the window are passed over."""

    def __init__(self, scoring: Scoring, now_us: int) -> None:
        self._threshold = scoring.threshold
        self._half_life_us = scoring.half_life_days * DAY_US
        self._since_us = scoring.since_us(now_us)
        self._now_us = now_us
        self.weighted_points = 0.0
        self.count = 0
        self.last_event_us = 0
        self.workflows: Counter[str] = Counter()
        self.rules: Counter[str] = Counter()

    def add(self, sample: Sample) -> None:
        """Count one event."""
        if sample.occurred_us < self._since_us:
            return
        age_us = max(0, self._now_us - sample.occurred_us)
        self.weighted_points += sample.points * 0.5 ** (age_us / self._half_life_us)
        self.last_event_us = sample.occurred_us if not self.count else max(self.last_event_us, sample.occurred_us)
        self.count += 1
        self.rules[sample.rule] += 1
        if sample.workflow:
            self.workflows[sample.workflow] += 1

    @property
    def score(self) -> int:
        """0 to 100."""
        return min(100, round(self.weighted_points / self._threshold * 100))


def friction_score(samples: Iterable[Sample], scoring: Scoring, now_us: int) -> FrictionScore:
    """The score of the one service that all `samples` belong to."""
    tally = Tally(scoring, now_us)
    for sample in samples:
        tally.add(sample)
    return FrictionScore(
        score=tally.score,
        severity=band(tally.score),
        bypass_count=tally.count,
        overhead_hours_per_engineer=round(tally.count * OVERHEAD_MINUTES / 60, 1),
        top_friction_workflow=_most(tally.workflows) or "none",
    )


def rank(samples: Iterable[Sample], scoring: Scoring, now_us: int) -> list[EntityScore]:
    """Every service with an event in the window: highest score first, then most events, then by name."""
    tallies: dict[str, Tally] = {}
    for sample in samples:
        tally = tallies.get(sample.entity_ref)
        if tally is None:
            tally = tallies[sample.entity_ref] = Tally(scoring, now_us)
        tally.add(sample)
    scores = [
        EntityScore(
            entity_ref=entity_ref,
            score=tally.score,
            severity=band(tally.score),
            count=tally.count,
            top_rule=_most(tally.rules),
            last_event_us=tally.last_event_us,
        )
        for entity_ref, tally in tallies.items()
        if tally.count
    ]
    return sorted(scores, key=lambda entity: (-entity.score, -entity.count, entity.entity_ref))


def band(score: int) -> Band:
    """The word for a score."""
    return next(word for least, word in BANDS if score >= least)


def _most(counter: Counter[str]) -> str:
    """The most frequent key, the alphabetically first among equals (so that an answer does not flicker), else ""."""
    return min(counter, key=lambda key: (-counter[key], key), default="")
