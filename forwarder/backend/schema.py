"""The tables as SQLAlchemy sees them. Their history stands in `migrations/`; a test compares the two.

Moments are whole microseconds since 1970 in UTC: they compare and index alike in SQLite and PostgreSQL, and no driver
can give them a zone of its own. Columns are what queries ask for; the rest of an event is `details`.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

metadata = sa.MetaData()

OBJECT_CHARS = 600  # a resource, a namespace and a name as Kubernetes bounds them; longer ones are cut


def _partial(name: str, *columns: str, where: str) -> sa.Index:
    """An index of the few rows that `where` names."""
    return sa.Index(name, *columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


events = sa.Table(
    "events",
    metadata,
    # The order of arrival; BIGINT in PostgreSQL, the rowid in SQLite, where only INTEGER may be it.
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(64), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("entity_ref", sa.String(200), nullable=False),
    sa.Column("cluster", sa.String(200), nullable=False),
    sa.Column("type", sa.String(50), nullable=False),
    sa.Column("severity", sa.String(6), nullable=False),
    sa.Column("points", sa.Integer, nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("workflow", sa.String(200), nullable=False),
    sa.Column("service", sa.String(200), nullable=False),
    sa.Column("namespace", sa.String(200), nullable=False),
    sa.Column("description", sa.String(500), nullable=False),
    sa.Column("outcome", sa.String(7), nullable=False),
    sa.Column("response_code", sa.Integer, nullable=False),
    sa.Column("duration_s", sa.Double, nullable=True),
    sa.Column("stage", sa.String(64), nullable=False),
    sa.Column("test", sa.Boolean, nullable=False),
    sa.Column("occurred_us", sa.BigInteger, nullable=False),
    sa.Column("recorded_us", sa.BigInteger, nullable=False),
    sa.Column("details", sa.JSON().with_variant(postgresql.JSONB, "postgresql"), nullable=False),
    # What follows is derived when a row is written: the namespace of entity_ref; `resource/namespace/name` of the object
    # that was touched, "" where it has no name; the place in the order of writing, new with every update; the mark that
    # takes it out of the score, 0 for none.
    sa.Column("space", sa.String(200), nullable=False, server_default=""),
    sa.Column("object", sa.String(OBJECT_CHARS), nullable=False, server_default=""),
    sa.Column("change", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("mark", sa.Integer, nullable=False, server_default="0"),
    sa.UniqueConstraint("id", name="events_id"),
    sa.Index("events_entity_occurred", "entity_ref", "occurred_us"),
    sa.Index("events_occurred", "occurred_us"),
    sa.Index("events_actor_occurred", "actor", "occurred_us"),
    sa.Index("events_type_occurred", "type", "occurred_us"),
    sa.Index("events_cluster_occurred", "cluster", "occurred_us"),
    sa.Index("events_space_occurred", "space", "occurred_us"),
    sa.Index("events_change", "change"),
    _partial("events_object_occurred", "object", "occurred_us", where="object <> ''"),
    _partial("events_mark_occurred", "mark", "occurred_us", where="mark <> 0"),
    _partial("events_marked", "occurred_us", where="mark <> 0"),
    _partial("events_open", "occurred_us", where="stage = 'ResponseStarted'"),
)

# Every text that a sum is kept for, once. kind: see NameKind. count: events that score and carry it. last_us: the latest
# of them. space, team: of an entity alone.
names = sa.Table(
    "names",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    sa.Column("text", sa.String(260), nullable=False),
    sa.Column("space", sa.String(200), nullable=False, server_default=""),
    sa.Column("team", sa.String(200), nullable=False, server_default=""),
    sa.Column("count", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("last_us", sa.BigInteger, nullable=False, server_default="0"),
    sa.UniqueConstraint("kind", "text", name="names_kind_text"),
    sa.Index("names_kind_count", "kind", "count"),
    sa.Index("names_kind_space", "kind", "space"),
    sa.Index("names_kind_team", "kind", "team"),
)

# The buckets: how many events that score fell into an hour or a day, and their weight. See store/views.py.
tallies = sa.Table(
    "tallies",
    metadata,
    sa.Column("view", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("a", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("b", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("cluster", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("weight_0", sa.Double, nullable=False),
    sa.Column("weight_1", sa.Double, nullable=False),
    sqlite_with_rowid=False,
)

# Who has to do with whom, over everything stored: the lists "noisiest actors" and "rules of this service".
pairs = sa.Table(
    "pairs",
    metadata,
    sa.Column("relation", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("a", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("b", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("last_us", sa.BigInteger, nullable=False),
    sa.Index("pairs_a_count", "relation", "a", "count"),
    sa.Index("pairs_b_count", "relation", "b", "count"),
    sqlite_with_rowid=False,
)

# The running sum of every entity in the score's window; cluster 0 is all of them. weight: as of scoring.frame_hour.
scores = sa.Table(
    "scores",
    metadata,
    sa.Column("entity", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("cluster", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("weight", sa.Double, nullable=False),
    sa.Column("last_us", sa.BigInteger, nullable=False),
    sa.Index("scores_cluster_weight", "cluster", "weight", "entity"),
    sqlite_with_rowid=False,
)

# What an entity's decayed points were when a day ended; kept when the events of that day are gone.
score_days = sa.Table(
    "score_days",
    metadata,
    sa.Column("entity", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("points", sa.Double, nullable=False),
    sa.Column("count", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# One row: what the sums above were made with. See store/state.py.
scoring_state = sa.Table(
    "scoring_state",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("built", sa.Boolean, nullable=False),
    sa.Column("half_life_0", sa.Double, nullable=False),
    sa.Column("half_life_1", sa.Double, nullable=False),
    sa.Column("active", sa.SmallInteger, nullable=False),
    sa.Column("rebuilding_entity", sa.Integer, nullable=True),
    sa.Column("rebuilding_day", sa.Integer, nullable=False),
    sa.Column("window_days", sa.Integer, nullable=False),
    sa.Column("edge_us", sa.BigInteger, nullable=False),
    sa.Column("frame_hour", sa.Integer, nullable=False),
    sa.Column("last_day", sa.Integer, nullable=False),
    sa.Column("change", sa.BigInteger, nullable=False),
)

# Settings that were changed by a call; what is not here comes from the file or the environment.
settings = sa.Table(
    "settings",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(64), nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("changed_us", sa.BigInteger, nullable=False),
)

# Triage: what somebody said is expected. One event, or all of (actor, rule, entity_ref) that happen from since_us until
# until_us; "" is any. hidden: events that it takes out of the score now. ended_how: "" (in force), undone, lapsed.
marks = sa.Table(
    "marks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("event_id", sa.String(64), nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("rule", sa.String(50), nullable=False),
    sa.Column("entity_ref", sa.String(200), nullable=False),
    sa.Column("since_us", sa.BigInteger, nullable=False),
    sa.Column("until_us", sa.BigInteger, nullable=False),
    sa.Column("author", sa.String(200), nullable=False),
    sa.Column("reason", sa.String(500), nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    sa.Column("hidden", sa.BigInteger, nullable=False),
    sa.Column("ended_us", sa.BigInteger, nullable=False),
    sa.Column("ended_by", sa.String(200), nullable=False),
    sa.Column("ended_how", sa.String(8), nullable=False),
    sa.Index("marks_ended", "ended_us"),
    sa.Index("marks_entity", "entity_ref"),
)

# The last report of every receiver: its ledger, and when each of its sources last received something.
receivers = sa.Table(
    "receivers",
    metadata,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("version", sa.String(50), nullable=False),
    sa.Column("first_us", sa.BigInteger, nullable=False),
    sa.Column("reported_us", sa.BigInteger, nullable=False),
    sa.Column("report", sa.JSON().with_variant(postgresql.JSONB, "postgresql"), nullable=False),
)

# Who may do what. Both keep hashes only: neither a key nor a cookie can be read back from a copy of the database.
access_keys = sa.Table(
    "access_keys",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("rights", sa.String(64), nullable=False),
    sa.Column("created_us", sa.BigInteger, nullable=False),
    sa.Column("expires_us", sa.BigInteger, nullable=True),
    sa.Column("used_us", sa.BigInteger, nullable=True),
    sa.UniqueConstraint("hash", name="access_keys_hash"),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("key_hash", sa.String(64), nullable=False),
    sa.Column("expires_us", sa.BigInteger, nullable=False),
    sa.Index("sessions_expires", "expires_us"),
)
