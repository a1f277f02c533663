"""Ten million friction events of a month in a database, the quick way: rows in bulk, then every sum by the code that the
backend uses for a database that has none yet. `check` compares a sample of services with the direct sum.
"""

import itertools
import json
import math
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from forwarder.backend.schema import events
from forwarder.backend.store import Store
from forwarder.backend.store.views import DAY_US
from forwarder.backend.store.words import _DOCUMENT

ENTITIES, ACTORS, RULES = 2000, 500, 20
WORKFLOWS = ("debug", "deploy", "incident", "release", "rollback")
DAYS = 30
STEP_EVENTS = 20_000
COLUMNS = [column.name for column in events.columns if column.name != "seq"]


def entity_ref(index: int) -> str:
    return f"component:team-{index % 40}/service-{index}"


def actor(index: int) -> str:
    return f"user-{index}@example.com"


def rule(index: int) -> str:
    return f"rule-{index}"


def _skewed(number: int) -> list[float]:
    """Cumulative weights 1, 1/2, 1/3 …: the first of 2000 gets an eighth of everything."""
    return list(itertools.accumulate(1 / (rank + 1) for rank in range(number)))


def rows(number: int, now_us: int) -> Iterator[tuple[Any, ...]]:
    """Events in the order of time, spread evenly over the last DAYS days."""
    chance = random.Random(7)
    entities, actors, rules = _skewed(ENTITIES), _skewed(ACTORS), _skewed(RULES)
    step_us = DAYS * DAY_US // number
    first_us = now_us - number * step_us
    for start in range(0, number, STEP_EVENTS):
        count = min(STEP_EVENTS, number - start)
        of_entity = chance.choices(range(ENTITIES), cum_weights=entities, k=count)
        of_actor = chance.choices(range(ACTORS), cum_weights=actors, k=count)
        of_rule = chance.choices(range(RULES), cum_weights=rules, k=count)
        for offset in range(count):
            index = start + offset
            entity, who, what = of_entity[offset], of_actor[offset], of_rule[offset]
            at_us = first_us + index * step_us
            ref, name = entity_ref(entity), f"service-{entity}-{index % 97:x}"
            space = f"team-{entity % 40}"
            severity, points = (("high", 10), ("medium", 6), ("low", 3))[what % 3]
            details = {
                "audit_id": f"{chance.getrandbits(64):016x}",
                "verb": "create",
                "resource": "pods",
                "subresource": "exec",
                "name": name,
                "container": "app",
                "source_ips": [f"10.{who % 250}.{entity % 250}.7"],
                "user_agent": "kubectl/v1.34.1 (linux/amd64) kubernetes/93248f9",
                "command": f"cat /var/log/app-{entity % 50}.log" if what % 2 else "",
            }
            yield (
                f"{chance.getrandbits(128):032x}", 1, ref, f"cluster-{(entity + (index % 10 == 0)) % 3}", rule(what), severity,
                points, actor(who), WORKFLOWS[what % 5], "", space, f"{rule(what)} on pods/{name} (ns:{space}) by {actor(who)}",
                "allowed", 200, None, "ResponseComplete", 0, at_us, at_us, json.dumps(details, separators=(",", ":")), space,
                f"pods/{space}/{name}", index + 1, 0,
            )  # fmt: skip


def load(path: Path, number: int, now_us: int) -> tuple[float, float]:
    """Fill a new database; seconds for the rows with their indexes and text search, and for the sums."""
    Store.open(str(path)).close()
    began = time.monotonic()
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-2000000", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    indexes = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE type='index' AND tbl_name='events' AND sql IS NOT NULL"
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    connection.execute("BEGIN")
    marks = ",".join("?" * len(COLUMNS))
    connection.executemany(f"INSERT INTO events ({','.join(COLUMNS)}) VALUES ({marks})", rows(number, now_us))
    connection.execute("UPDATE scoring_state SET built = 0, change = ?", (number,))
    connection.execute("COMMIT")
    for _, sql in indexes:
        connection.execute(sql)
    connection.execute(f"INSERT INTO search (rowid, document) SELECT seq, {_DOCUMENT} FROM events")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    between = time.monotonic()
    store = Store.open(str(path))
    store.close()
    return between - began, time.monotonic() - between


def check(store: Store, now_us: int, sample: int = 12) -> None:
    """Scores of a sample of services against the direct sum over their events."""
    for index in random.Random(3).sample(range(20, ENTITIES), sample):
        told = store.scores.explain(entity_ref(index), now_us)
        with store.database.reading() as connection:
            found = connection.execute(
                sa.select(events.c.points, events.c.occurred_us).where(
                    events.c.entity_ref == entity_ref(index), events.c.occurred_us >= now_us - told.window_days * DAY_US
                )
            ).all()
        direct = math.fsum(p * 0.5 ** ((now_us - at) / DAY_US / told.half_life_days) for p, at in found)
        assert told.count == len(found), (index, told.count, len(found))
        assert math.isclose(told.points, direct, rel_tol=1e-9), (index, told.points, direct)
