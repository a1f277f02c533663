"""Sums that answer without reading events, triage, settings, receivers' reports and text search.

The sums of events that are there already are made when the store is opened: `scoring_state.built` is false until then.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

JSON = sa.JSON().with_variant(postgresql.JSONB, "postgresql")

# What a search looks through, as store/words.py has it.
SQLITE_DOCUMENT = " || ' ' || ".join(
    ["entity_ref", "cluster", "type", "actor", "description"]
    + [
        f"coalesce(json_extract(details, '$.{name}'), '')"
        for name in ("command", "name", "acting_as", "via", "node", "source_ips")
    ]
)
POSTGRESQL_DOCUMENT = " || ' ' || ".join(
    ["entity_ref", "cluster", "type", "actor", "description"]
    + [f"coalesce(details ->> '{name}', '')" for name in ("command", "name", "acting_as", "via", "node", "source_ips")]
)


def upgrade() -> None:
    _events()
    _sums()
    _people()
    if op.get_bind().dialect.name == "sqlite":
        _search_sqlite()
    else:
        _search_postgresql()


def _events() -> None:
    op.add_column("events", sa.Column("space", sa.String(200), nullable=False, server_default=""))
    op.add_column("events", sa.Column("object", sa.String(600), nullable=False, server_default=""))
    op.add_column("events", sa.Column("change", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("events", sa.Column("mark", sa.Integer, nullable=False, server_default="0"))
    if op.get_bind().dialect.name == "sqlite":
        space = "substr(entity_ref, instr(entity_ref, ':') + 1, instr(entity_ref, '/') - instr(entity_ref, ':') - 1)"
        resource, name = "json_extract(details, '$.resource')", "json_extract(details, '$.name')"
    else:
        space = "split_part(split_part(entity_ref, ':', 2), '/', 1)"
        resource, name = "(details ->> 'resource')", "(details ->> 'name')"
    touched = f"substr({resource} || '/' || namespace || '/' || {name}, 1, 600)"
    op.execute(f"UPDATE events SET space = {space}, change = seq, object = coalesce({touched}, '')")
    for column in ("actor", "type", "cluster", "space"):
        op.create_index(f"events_{column}_occurred", "events", [column, "occurred_us"])
    op.create_index("events_change", "events", ["change"])
    _partial("events_object_occurred", ["object", "occurred_us"], "object <> ''")
    _partial("events_mark_occurred", ["mark", "occurred_us"], "mark <> 0")
    _partial("events_marked", ["occurred_us"], "mark <> 0")
    _partial("events_open", ["occurred_us"], "stage = 'ResponseStarted'")


def _partial(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "events", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _sums() -> None:
    op.create_table(
        "names",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("text", sa.String(260), nullable=False),
        sa.Column("space", sa.String(200), nullable=False, server_default=""),
        sa.Column("team", sa.String(200), nullable=False, server_default=""),
        sa.Column("count", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("last_us", sa.BigInteger, nullable=False, server_default="0"),
        sa.UniqueConstraint("kind", "text", name="names_kind_text"),
    )
    for column in ("count", "space", "team"):
        op.create_index(f"names_kind_{column}", "names", ["kind", column])
    op.create_table(
        "tallies",
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
    op.create_table(
        "pairs",
        sa.Column("relation", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("a", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("b", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("last_us", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("pairs_a_count", "pairs", ["relation", "a", "count"])
    op.create_index("pairs_b_count", "pairs", ["relation", "b", "count"])
    op.create_table(
        "scores",
        sa.Column("entity", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("cluster", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("weight", sa.Double, nullable=False),
        sa.Column("last_us", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("scores_cluster_weight", "scores", ["cluster", "weight", "entity"])
    op.create_table(
        "score_days",
        sa.Column("entity", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("points", sa.Double, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    state = op.create_table(
        "scoring_state",
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
    last = op.get_bind().execute(sa.text("SELECT max(seq) FROM events")).scalar()
    row: dict[str, object] = {"built": last is None, "half_life_0": 7.0, "half_life_1": 7.0, "active": 0}
    row |= {
        "rebuilding_entity": None,
        "rebuilding_day": 0,
        "window_days": 30,
        "edge_us": 0,
        "frame_hour": 0,
        "last_day": 0,
        "change": last or 0,
    }
    op.bulk_insert(state, [{"id": 1, **row}])


def _people() -> None:
    op.create_table(
        "settings",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.String(64), nullable=False),
        sa.Column("author", sa.String(200), nullable=False),
        sa.Column("changed_us", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "marks",
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
    )
    op.create_index("marks_ended", "marks", ["ended_us"])
    op.create_index("marks_entity", "marks", ["entity_ref"])
    op.create_table(
        "receivers",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("version", sa.String(50), nullable=False),
        sa.Column("first_us", sa.BigInteger, nullable=False),
        sa.Column("reported_us", sa.BigInteger, nullable=False),
        sa.Column("report", JSON, nullable=False),
    )


def _search_sqlite() -> None:
    """Words only, without a copy of the text: the rows are in `events`."""
    op.execute("CREATE VIRTUAL TABLE search USING fts5(document, content='', tokenize='unicode61 remove_diacritics 2')")
    op.execute(f"INSERT INTO search (rowid, document) SELECT seq, {SQLITE_DOCUMENT} FROM events")


def _search_postgresql() -> None:
    op.execute(
        "ALTER TABLE events ADD COLUMN document tsvector"
        " GENERATED ALWAYS AS (to_tsvector('simple'::regconfig,"
        f" regexp_replace({POSTGRESQL_DOCUMENT}, '[[:punct:]]+', ' ', 'g'))) STORED"
    )
    op.execute("CREATE INDEX events_document ON events USING gin (document)")
