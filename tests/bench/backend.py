"""`python -m tests.bench.backend`: what the backend's calls take with ten million stored events, and how fast it takes more.

Measured: the time from sending a request to having read the answer, over one kept connection on loopback, against a
`forwarder backend` process of its own on SQLite, with the database in the system's file cache; calls take turns, and
services, actors and rules are asked for as often as they occur, so that the largest come up most. Then batches of new
events from one sender. Not measured: a cold disk, TLS, exports (they send everything).

The database is made once and kept (`--database`); scores of a sample are compared with the direct sum first.
"""

import argparse
import http.client
import json
import random
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from rich.console import Console
from rich.table import Table

from forwarder.backend.intake import format_timestamp
from forwarder.backend.store import Store
from tests.bench.backend_load import ACTORS, ENTITIES, RULES, actor, check, entity_ref, load, rule
from tests.ports import free_port

LIMIT_MS = 10.0  # p99 of every call
START_S = 600.0

Chance = random.Random


def _rank(chance: Chance, number: int) -> int:
    """A rank, as often as its 1/rank share of the events."""
    return min(number - 1, int(number ** chance.random()) - 1)


def ref(chance: Chance) -> str:
    return quote(entity_ref(_rank(chance, ENTITIES)))


def person(chance: Chance) -> str:
    return quote(actor(_rank(chance, ACTORS)))


def kind(chance: Chance) -> str:
    return rule(_rank(chance, RULES))


def day(chance: Chance, now_us: int) -> str:
    return quote(format_timestamp(now_us - chance.randrange(29) * 86_400_000_000))


def calls(now_us: int) -> dict[str, Callable[[Chance], str]]:
    """Name of a call -> its path, with new arguments each time."""
    return {
        "GET /friction/{ref}": lambda c: f"/friction/{ref(c)}",
        "GET /friction/{ref} of the largest": lambda _: f"/friction/{entity_ref(0)}",
        "GET /friction/{ref}/explain": lambda c: f"/friction/{ref(c)}/explain",
        "GET /events": lambda _: "/events",
        "entities": lambda c: f"/api/v1/entities?limit=50&offset={c.randrange(0, 500, 50)}",
        "entities of a cluster": lambda c: f"/api/v1/entities?limit=50&cluster=cluster-{c.randrange(3)}",
        "entities of a namespace": lambda c: f"/api/v1/entities?limit=50&namespace=team-{c.randrange(40)}",
        "entities of a band": lambda c: f"/api/v1/entities?limit=50&severity={c.choice(('critical', 'high', 'low'))}",
        "entities by text": lambda c: f"/api/v1/entities?limit=50&text=service-{c.randrange(200)}",
        "summary": lambda _: "/api/v1/summary",
        "entity": lambda c: f"/api/v1/entities/{ref(c)}",
        "history": lambda c: f"/api/v1/entities/{ref(c)}/history?days=30",
        "objects": lambda c: f"/api/v1/entities/{ref(c)}/objects",
        "events of an entity": lambda c: f"/api/v1/events?limit=50&entity_ref={ref(c)}",
        "events of an entity and a day": lambda c: (
            f"/api/v1/events?limit=50&entity_ref={ref(c)}&until={day(c, now_us)}"
        ),
        "events of an actor": lambda c: f"/api/v1/events?limit=50&actor={person(c)}",
        "events of an actor and a rule": lambda c: f"/api/v1/events?limit=50&actor={person(c)}&rule={kind(c)}",
        "events of a rule and a severity": lambda c: f"/api/v1/events?limit=50&rule={kind(c)}&severity=high",
        "events of an hour of the week": lambda c: (
            f"/api/v1/events?limit=50&entity_ref={ref(c)}&weekday={c.randrange(7)}&hour={c.randrange(24)}"
        ),
        "events by one word": lambda c: f"/api/v1/events?limit=50&text={person(c)}",
        "events by two words": lambda c: (
            f"/api/v1/events?limit=50&text=app-{c.randrange(50)}%20user-{c.randrange(ACTORS)}"
        ),
        "events of an entity by a word": lambda c: f"/api/v1/events?limit=50&entity_ref={ref(c)}&text={person(c)}",
        "search": lambda c: f"/api/v1/search?text=service-{c.randrange(ENTITIES)}",
        "sessions": lambda _: "/api/v1/sessions",
        "actors": lambda _: "/api/v1/actors",
        "actor": lambda c: f"/api/v1/actors/{person(c)}",
        "rules": lambda _: "/api/v1/rules",
        "rule": lambda c: f"/api/v1/rules/{kind(c)}",
        "heatmap of an entity": lambda c: f"/api/v1/heatmap?entity_ref={ref(c)}",
        "heatmap of an entity and a rule": lambda c: f"/api/v1/heatmap?entity_ref={ref(c)}&rule={kind(c)}",
        "heatmap of an actor": lambda c: f"/api/v1/heatmap?actor={person(c)}",
        "heatmap of everything": lambda _: "/api/v1/heatmap",
        "calendar of an entity": lambda c: f"/api/v1/calendar?entity_ref={ref(c)}",
        "calendar of a namespace": lambda c: f"/api/v1/calendar?namespace=team-{c.randrange(40)}",
        "calendar of everything": lambda _: "/api/v1/calendar",
        "marks": lambda _: "/api/v1/marks?which=all",
        "settings": lambda _: "/api/v1/settings",
        "clusters": lambda _: "/api/v1/clusters",
        "page /": lambda c: f"/?cluster={c.choice(('', 'cluster-0', 'cluster-1'))}",
        "page / of a namespace": lambda c: f"/?namespace=team-{c.randrange(40)}",
        "page /service": lambda c: f"/service?ref={ref(c)}",
        "page /service, its charts": lambda c: f"/service/charts?ref={ref(c)}",
        "page /service of the largest": lambda _: f"/service?ref={entity_ref(0)}",
        "page /actor": lambda c: f"/actor?name={person(c)}",
        "page /rule": lambda c: f"/rule?name={kind(c)}",
        "page /table of an entity": lambda c: f"/table?entity={ref(c)}",
        "page /table of an actor": lambda c: f"/table?actor={person(c)}",
        "page /search": lambda c: f"/search?rule={kind(c)}&severity=high",
        "page /search by a word": lambda c: f"/search?q={person(c)}",
        "page /search by two words": lambda c: f"/search?q=app-{c.randrange(50)}%20user-{c.randrange(ACTORS)}",
        "page /actors": lambda c: f"/actors?offset={c.randrange(0, ACTORS, 50)}",
        "page /rules": lambda _: "/rules",
        "page /triage": lambda _: "/triage",
        "page /status": lambda _: "/status",
        "page /embed": lambda c: f"/embed/{ref(c)}",
        "badge": lambda c: f"/badge/{ref(c)}.svg",
    }


class Client:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[float, bytes]:
        """Milliseconds, and what came back."""
        began = time.perf_counter()
        headers = {"Content-Type": "application/json"} if body else {}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        data = answer.read()
        took_ms = (time.perf_counter() - began) * 1000
        assert answer.status == 200, (path, answer.status, data[:200])
        return took_ms, data


def start(database: Path, port: int) -> subprocess.Popen[bytes]:
    config = database.with_suffix(".yaml")
    config.write_text(
        json.dumps(
            {
                "backend": {
                    "listen": f"127.0.0.1:{port}",
                    "database": str(database),
                    "rate_limit_per_minute": 0,  # one client asks as fast as it can here
                }
            }
        )
    )
    command = [sys.executable, "-m", "forwarder", "backend", "--config", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + START_S
    while True:
        try:
            Client(port).ask("/health")
            return process
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


class Taken(NamedTuple):
    """Milliseconds of each request to one call: until the answer was read, and of the backend's CPU."""

    wall: list[float]
    cpu: list[float]


def warm(database: Path) -> None:
    """Read the file once, so that the system has it in memory."""
    with database.open("rb") as file:
        while file.read(1 << 24):
            pass


def measure(client: Client, pid: int, requests: int, only: str, pages: list[str]) -> dict[str, Taken]:
    chance, now_us = random.Random(11), time.time_ns() // 1000
    chosen = {name: make for name, make in calls(now_us).items() if only in name}
    chosen |= {f"page {path}": lambda _, path=path: path for path in pages}
    took = {name: Taken([], []) for name in chosen}
    for turn in range(requests + 3):
        for name, make in chosen.items():
            before_ms = cpu_ms(pid)
            took_ms, _ = client.ask(make(chance))
            if turn >= 3:
                took[name].wall.append(took_ms)
                took[name].cpu.append(cpu_ms(pid) - before_ms)
    return took


def percentile(values: list[float], n: int) -> float:
    return statistics.quantiles(values, n=100)[n - 1]


def _event(chance: Chance) -> dict[str, str]:
    return {
        "id": str(uuid.uuid4()),
        "entity_ref": entity_ref(_rank(chance, ENTITIES)),
        "type": kind(chance),
        "severity": "high",
        "actor": actor(_rank(chance, ACTORS)),
        "workflow": "debug",
        "cluster": "cluster-1",
        "namespace": "shop",
        "resource": "pods",
        "name": "web-6d4c-x2x7q",
        "verb": "create",
        "command": "cat /etc/resolv.conf",
        "user_agent": "kubectl/v1.34.1",
        "description": "kubectl exec on pods/web",
    }


def cpu_ms(pid: int) -> float:
    """Milliseconds of CPU that the threads of a process have used."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e6


def ingest(client: Client, pid: int, batches: int, batch_events: int = 1000) -> tuple[float, float]:
    """Events a second from one sender, a batch at a time, and microseconds of the backend's CPU for each."""
    chance = random.Random(5)
    bodies = [json.dumps([_event(chance) for _ in range(batch_events)]).encode() for _ in range(batches)]
    began, used_ms = time.perf_counter(), cpu_ms(pid)
    for body in bodies:
        client.ask("/events", "POST", body)
    number = batches * batch_events
    return number / (time.perf_counter() - began), (cpu_ms(pid) - used_ms) / number * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.backend", description=__doc__)
    parser.add_argument("--database", type=Path, default=Path("/tmp/friction-bench/backend.db"))
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--requests", type=int, default=300, help="of each call")
    parser.add_argument("--only", default="", help="calls whose name contains this")
    parser.add_argument("--page", action="append", default=[], help="measure this path too; may be given again")
    parser.add_argument("--batches", type=int, default=20, help="of a thousand new events each")
    options = parser.parse_args()
    console = Console(highlight=False, width=110)
    if not options.database.exists():
        options.database.parent.mkdir(parents=True, exist_ok=True)
        rows_s, sums_s = load(options.database, options.events, time.time_ns() // 1000)
        console.print(f"{options.events:,} events: rows, indexes and words in {rows_s:,.0f} s, sums in {sums_s:,.0f} s")
    store = Store.open(str(options.database))
    now_us = time.time_ns() // 1000
    store.maintain(now_us)
    check(store, now_us)
    store.close()
    size = options.database.stat().st_size / 1e9
    console.print(f"{size:.1f} GB; scores of a sample are the direct sum to 1e-9")
    port = free_port()
    process = start(options.database, port)
    warm(options.database)
    try:
        client = Client(port)
        took = measure(client, process.pid, options.requests, options.only, options.page)
        columns = ("call", "p50 ms", "p99 ms", "longest ms", "CPU p50 ms", "CPU p99 ms")
        table = Table(*columns, title=f"{options.requests} of each, taking turns")
        for name, (wall, cpu) in took.items():
            p99 = percentile(wall, 99)
            figures = (percentile(wall, 50), p99, max(wall), percentile(cpu, 50), percentile(cpu, 99))
            table.add_row(name, *(f"{figure:.2f}" for figure in figures), style="red" if p99 > LIMIT_MS else None)
        console.print(table)
        if options.batches:
            rate, cpu_us = ingest(client, process.pid, options.batches)
            console.print(f"{rate:,.0f} events/s in batches of 1000 from one sender, {cpu_us:.0f} µs CPU an event")
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
