"""Friction events: one row per id, the highest revision seen."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.create_table(
        "events",
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
    )
    op.create_index("events_entity_occurred", "events", ["entity_ref", "occurred_us"])
    op.create_index("events_occurred", "events", ["occurred_us"])
