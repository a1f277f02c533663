"""The one row of `scoring_state`: what the sums were made with. Read in the transaction that uses it."""

from typing import Any, NamedTuple

import sqlalchemy as sa

from forwarder.backend.schema import scoring_state
from forwarder.backend.store.views import Frame


class State(NamedTuple):
    """built: the sums cover all events. half_life_0, half_life_1: days, of the two weights; active: which one is told.

    rebuilding_entity, rebuilding_day: whose buckets are worked into the other weight next, and from which day on; None
    when there is nothing to do.
    window_days, edge_us: what `scores` covers. frame_hour: the moment that its weights are as of, hours since 1970.
    last_day: the last day in `score_days`. change: the last number given to a written event.
    """

    built: bool
    half_life_0: float
    half_life_1: float
    active: int
    rebuilding_entity: int | None
    rebuilding_day: int
    window_days: int
    edge_us: int
    frame_hour: int
    last_day: int
    change: int

    @property
    def frame(self) -> Frame:
        """The part that sums are made with."""
        return Frame(self.half_life_0, self.half_life_1, self.active, self.edge_us, self.frame_hour)

    @property
    def half_life_days(self) -> float:
        """The half-life that scores are told in."""
        return self.half_life_1 if self.active else self.half_life_0

    @property
    def other_half_life_days(self) -> float:
        """The half-life of the weight that is not in use."""
        return self.half_life_0 if self.active else self.half_life_1


_READ = sa.select(*(scoring_state.c[name] for name in State._fields))


def read_state(connection: sa.Connection) -> State:
    """The state as this transaction sees it."""
    return State(*connection.execute(_READ).one())


def change_state(connection: sa.Connection, state: State, **changes: Any) -> State:
    """Store `changes` and return the state with them."""
    connection.execute(sa.update(scoring_state).values(changes))
    return state._replace(**changes)
