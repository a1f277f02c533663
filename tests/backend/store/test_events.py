"""Pages of events: every filter, cursors that neither repeat nor miss, and a bound on what one page reads."""

from collections.abc import Callable
from typing import Any

import pytest

from forwarder.backend.intake import NewEvent, format_timestamp
from forwarder.backend.store import Store
from forwarder.backend.store.events import SCAN_EVENTS, BadCursor, EventFilter
from forwarder.backend.store.triage import FOREVER_US
from forwarder.backend.store.views import DAY_US, HOUR_US

MakeEvent = Callable[..., NewEvent]

NOW_US = 1_780_000_000_000_000  # a Thursday, 20:26:40 UTC


def at(us: int) -> str:
    return format_timestamp(NOW_US + us)


def ids(store: Store, limit: int = 100, **where: Any) -> list[str]:
    return [event.id for event in store.events.page(EventFilter(**where), limit=limit).events]


@pytest.fixture
def filled(store: Store, event: MakeEvent) -> Store:
    store.record(
        [
            event(id="exec", actor="jane", cluster="east", timestamp=at(-HOUR_US), command="cat /etc/passwd"),
            event(
                id="drift",
                type="config-drift",
                severity="low",
                actor="joe",
                timestamp=at(-2 * HOUR_US),
                outcome="denied",
            ),
            event(
                id="cart",
                entity_ref="component:web/cart",
                actor="jane",
                resource="secrets",
                name="db",
                namespace="web",
                timestamp=at(-DAY_US),
            ),
            event(id="old", actor="ann", timestamp=at(-9 * DAY_US)),
            event(id="test", test=True, timestamp=at(-HOUR_US)),
        ],
        NOW_US,
    )
    return store


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({}, ["exec", "drift", "cart", "old"]),
        ({"tests": True}, ["test", "exec", "drift", "cart", "old"]),
        ({"actor": "jane"}, ["exec", "cart"]),
        ({"rule": "config-drift"}, ["drift"]),
        ({"severity": "low"}, ["drift"]),
        ({"outcome": "denied"}, ["drift"]),
        ({"entity_ref": "component:web/cart"}, ["cart"]),
        ({"namespace": "web"}, ["cart"]),
        ({"cluster": "east"}, ["exec"]),
        ({"cluster": ""}, ["drift", "cart", "old"]),
        ({"object": "secrets/web/db"}, ["cart"]),
        ({"actor": "jane", "cluster": "east"}, ["exec"]),
        ({"since_us": NOW_US - 2 * HOUR_US}, ["exec", "drift"]),
        ({"until_us": NOW_US - 2 * HOUR_US}, ["cart", "old"]),
        ({"weekday": 3}, ["exec", "drift"]),
        ({"weekday": 2, "hour": 20}, ["cart"]),
        ({"hour": 20}, ["cart", "old"]),
        ({"text": "passwd"}, ["exec"]),
        ({"text": "PASSWD jane"}, ["exec"]),
        ({"text": "payments-api"}, ["old", "drift", "exec"]),
        ({"text": "jane", "namespace": "web"}, ["cart"]),
        ({"text": '"'}, []),
        ({"text": "nobody"}, []),
        ({"mark": 7}, []),
    ],
)
def test_filters(filled: Store, where: dict[str, Any], found: list[str]) -> None:
    """Each field of a filter, alone and together; a search by words gives the latest arrival first."""
    assert ids(filled, **where) == found


def test_expected(filled: Store) -> None:
    """Events that a mark takes out are among the others, left out, or alone, as one likes."""
    mark = filled.triage.expect_pattern(
        actor="jane", rule="", entity_ref="", author="me", reason="r", now_us=NOW_US, until_us=FOREVER_US
    )
    assert ids(filled, expected="include") == ["exec", "drift", "cart", "old"]
    assert ids(filled, expected="exclude") == ["drift", "old"]
    assert ids(filled, expected="only") == ids(filled, mark=mark.id) == ["exec", "cart"]


@pytest.mark.parametrize("where", [{}, {"actor": "jane"}, {"text": "jane"}, {"weekday": 3}, {"severity": "high"}])
def test_cursors(store: Store, event: MakeEvent, where: dict[str, Any]) -> None:
    """Page by page gives what one large page gives, also among events of one moment."""
    store.record([event(id=f"{n}", actor="jane", timestamp=at(-(n // 5) * 60_000_000)) for n in range(23)], NOW_US)
    whole = ids(store, **where)
    assert len(whole) == 23
    found: list[str] = []
    cursor = ""
    while True:
        page = store.events.page(EventFilter(**where), limit=4, cursor=cursor)
        found += [event.id for event in page.events]
        if not page.next:
            break
        cursor = page.next
    assert found == whole


@pytest.mark.parametrize("cursor", ["x", "1", "1.2.3", "99999999999999999999.1", "1.-1", "\u0661.\u0661"])
def test_bad_cursor(store: Store, cursor: str) -> None:
    """A cursor that no page gave is refused."""
    with pytest.raises(BadCursor):
        store.events.page(EventFilter(), limit=1, cursor=cursor)


def test_a_page_reads_no_more_than_its_bound(store: Store, event: MakeEvent) -> None:
    """A filter that hardly anything fits gives a short page that says how far back it looked and leads on."""
    store.record([event(id="rare", severity="low", actor="jane", timestamp=at(-DAY_US))], NOW_US)
    for start in range(0, SCAN_EVENTS + 200, 1000):
        store.record([event(actor="jane", timestamp=at(-HOUR_US - start - n)) for n in range(1000)], NOW_US)
    first = store.events.page(EventFilter(actor="jane", severity="low"), limit=10)
    assert first.events == []
    assert first.searched_us is not None
    assert first.next
    second = store.events.page(EventFilter(actor="jane", severity="low"), limit=10, cursor=first.next)
    assert [event.id for event in second.events] == ["rare"]


def steps(store: Store, ask: Callable[[], object]) -> int:
    """How many steps, in hundreds, SQLite's machine makes for it."""
    made = [0]

    def count() -> int:
        made[0] += 1
        return 0

    with store.database.one_moment(), store.database.reading() as connection:
        driver: Any = connection.connection.driver_connection
        ask()  # statements are made once
        driver.set_progress_handler(count, 100)
        try:
            ask()
        finally:
            driver.set_progress_handler(None, 0)
    return made[0]


def test_a_page_costs_the_same_however_much_there_is(store: Store, event: MakeEvent) -> None:
    """The walk along the index ends at the bound: ten times as many events behind it are not looked at."""
    if not store.database.sqlite:
        pytest.skip("PostgreSQL does not count its steps")
    where = EventFilter(actor="jane", severity="low", since_us=NOW_US - 9 * DAY_US)

    def fill(number: int) -> int:
        for start in range(0, number, 1000):
            store.record([event(actor="jane", timestamp=at(-HOUR_US - start - n)) for n in range(1000)], NOW_US)
        return steps(store, lambda: store.events.page(where, limit=10))

    few = fill(2000)
    assert few > 0
    assert fill(10_000) <= few + 2


def test_sessions(store: Store, event: MakeEvent) -> None:
    """Open are sessions of the last day whose end has not come; a denied one opened nothing."""
    store.record(
        [
            event(id="open", stage="ResponseStarted", timestamp=at(-HOUR_US)),
            event(id="lost", stage="ResponseStarted", timestamp=at(-2 * DAY_US)),
            event(id="denied", stage="ResponseStarted", outcome="denied"),
            event(id="ended", stage="ResponseStarted"),
        ],
        NOW_US,
    )
    store.record([event(id="ended", revision=1, stage="ResponseComplete", duration_s=3.0)], NOW_US)
    assert [event.id for event in store.events.sessions(NOW_US)] == ["open"]
    assert store.events.sessions(NOW_US, entity_ref="component:shop/other") == []


def test_changes(store: Store, event: MakeEvent) -> None:
    """What is written gets the next place in the order of writing, an update a new one."""
    store.record([event(id="a"), event(id="b")], NOW_US)
    store.record([event(id="a", revision=1)], NOW_US)
    assert [(event.id, event.change) for event in store.events.changed_since(0)] == [("b", 2), ("a", 3)]
    assert store.events.changed_since(3) == []
    assert store.events.last_change() == 3


def test_known(store: Store, event: MakeEvent) -> None:
    """Which ids are stored."""
    store.record([event(id="a"), event(id="t", test=True)], NOW_US)
    assert store.known(["a", "b", "t"]) == {"a", "t"}
