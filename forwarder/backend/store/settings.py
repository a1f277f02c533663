"""The score's settings: those that the backend was started with, and over them those that a call has changed.

A change holds at once, for all stored events, and until it is reset. A new half-life is worked into the buckets in the
background (rebuild.py); until that is done scores are told with the old one, never with something in between.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
import sqlalchemy as sa

from forwarder.backend.database import Database, insert
from forwarder.backend.schema import settings
from forwarder.backend.scoring import Chosen, Scoring
from forwarder.backend.store.rebuild import aim_at
from forwarder.backend.store.rolling import sum_everything
from forwarder.backend.store.state import State, read_state

PRESETS: dict[str, tuple[float, float]] = {"strict": (20.0, 3.0), "default": (50.0, 7.0), "lenient": (100.0, 14.0)}
"""Threshold and half-life, as Healert's users know them."""

Name = Literal["threshold", "half_life_days", "score_retention_days", "retention_days"]
NAMES: tuple[Name, ...] = ("threshold", "half_life_days", "score_retention_days", "retention_days")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as it holds. source: "start" (file, environment) or "call". rebuilding: not in force yet."""

    name: str
    value: float
    started_with: float
    source: Literal["start", "call"]
    author: str
    changed_us: int
    rebuilding: bool = False


class ScoreSettings:
    """The settings of one store. `base`: what the backend was started with."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.base = Chosen()

    def start_with(self, base: Chosen, now_us: int) -> None:
        """The settings of file and environment; writes only where something changes by them."""
        self.base = base
        with self._database.reading() as connection:
            if self._in_force(connection):
                return
        with self._database.writing() as connection:
            self._apply(connection, now_us)

    def chosen(self) -> Chosen:
        """What is wished for; a new half-life may still be on its way."""
        with self._database.reading() as connection:
            return self._chosen(connection)

    def retention_days(self) -> int:
        """Days that events are kept."""
        return self.chosen().retention_days

    def all(self) -> list[Setting]:
        """Every setting, with where it comes from."""
        with self._database.reading() as connection:
            state = read_state(connection)
            chosen = self._chosen(connection)
            rows = {row.name: row for row in connection.execute(sa.select(settings))}
        return [
            Setting(
                name=name,
                value=getattr(chosen, name),
                started_with=getattr(self.base, name),
                source="call" if name in rows else "start",
                author=rows[name].author if name in rows else "",
                changed_us=rows[name].changed_us if name in rows else 0,
                rebuilding=name == "half_life_days" and state.half_life_days != chosen.half_life_days,
            )
            for name in NAMES
        ]

    def change(self, changes: Mapping[str, float], *, author: str, now_us: int, apply: bool = True) -> Chosen:
        """Set some of them. Raises msgspec.ValidationError for a value out of bounds or an unknown name.

        apply: false where this process does not know what the backend was started with: the backend applies them soon.
        """
        with self._database.writing() as connection:
            wanted = msgspec.structs.asdict(self._chosen(connection)) | dict(changes)
            chosen = msgspec.convert(wanted, Chosen)
            for name in changes:
                row = {"name": name, "value": repr(getattr(chosen, name)), "author": author, "changed_us": now_us}
                statement = insert(connection, settings)
                new = {key: statement.excluded[key] for key in ("value", "author", "changed_us")}
                connection.execute(statement.on_conflict_do_update(index_elements=[settings.c.name], set_=new), row)
            if apply:
                self._apply(connection, now_us)
            return chosen

    def reset(self, *, now_us: int, apply: bool = True) -> Chosen:
        """Back to what the backend was started with."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(settings))
            if apply:
                self._apply(connection, now_us)
            return self.base

    def scoring(self, connection: sa.Connection, state: State) -> Scoring:
        """What scores are told with at this moment."""
        chosen = self._chosen(connection)
        return Scoring(threshold=chosen.threshold, half_life_days=state.half_life_days, window_days=state.window_days)

    def _chosen(self, connection: sa.Connection) -> Chosen:
        rows = connection.execute(_STORED).all()
        if not rows:
            return self.base
        found = {row.name: msgspec.json.decode(row.value) for row in rows if row.name in NAMES}
        return msgspec.convert(msgspec.structs.asdict(self.base) | found, Chosen)

    def _in_force(self, connection: sa.Connection) -> bool:
        chosen, state = self._chosen(connection), read_state(connection)
        return state.window_days == chosen.score_retention_days and _target(state) == chosen.half_life_days

    def _apply(self, connection: sa.Connection, now_us: int) -> None:
        chosen, state = self._chosen(connection), read_state(connection)
        if state.window_days != chosen.score_retention_days:
            state = sum_everything(connection, state, now_us, window_days=chosen.score_retention_days)
        if _target(state) != chosen.half_life_days:
            aim_at(connection, state, chosen.half_life_days, now_us)


_STORED = sa.select(settings.c.name, settings.c.value)


def _target(state: State) -> float:
    return state.half_life_days if state.rebuilding_entity is None else state.other_half_life_days
