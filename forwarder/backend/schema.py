"""The tables as SQLAlchemy sees them. Their history stands in `migrations/`; a test compares the two.

Moments are whole microseconds since 1970 in UTC: they compare and index alike in SQLite and PostgreSQL, and no driver
can give them a zone of its own. Columns are what queries ask for; the rest of an event is `details`.
"""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

metadata = sa.MetaData()

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
    sa.UniqueConstraint("id", name="events_id"),
    sa.Index("events_entity_occurred", "entity_ref", "occurred_us"),
    sa.Index("events_occurred", "occurred_us"),
)
