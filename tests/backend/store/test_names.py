"""Names get numbers once, whoever asks, and what was rolled back is not believed."""

import pytest
import sqlalchemy as sa

from forwarder.backend.schema import names
from forwarder.backend.store import Store
from forwarder.backend.store.names import Names, find, texts
from forwarder.backend.store.views import Counted, NameKind


def counted(actor: str) -> Counted:
    return Counted("c:n/a", "", "rule", "", actor, "n", "", 1, 0, 0)


def test_once(store: Store) -> None:
    """Two caches give the same numbers; texts and numbers lead to each other."""
    with store.database.writing() as connection:
        first = Names().resolve(connection, [counted("jane"), counted("jane")])
        assert Names().resolve(connection, [counted("jane")]) == first
        number = find(connection, NameKind.ACTOR, "jane")
        assert number == first[NameKind.ACTOR, "jane"]
        assert texts(connection, [number]) == {number: "jane"}
        assert find(connection, NameKind.ACTOR, "joe") is None


def test_found_once(store: Store) -> None:
    """What a reader has found it finds again; what is not there yet is looked for each time."""
    with store.database.reading() as connection:
        assert find(connection, NameKind.ACTOR, "jane") is None
    with store.database.writing() as connection:
        ids = Names().resolve(connection, [counted("jane")])
    for _ in range(2):
        with store.database.reading() as connection:
            assert find(connection, NameKind.ACTOR, "jane") == ids[NameKind.ACTOR, "jane"]
            assert find(connection, NameKind.ENTITY, "jane") is None


def test_found_by_a_writer_that_fails(store: Store) -> None:
    """A number that was rolled back is not remembered by the connection that gave it."""

    def fail() -> None:
        with store.database.writing() as connection:
            Names().resolve(connection, [counted("jane")])
            assert find(connection, NameKind.ACTOR, "jane") is not None
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with store.database.reading() as connection:
        assert find(connection, NameKind.ACTOR, "jane") is None


def test_rolled_back(store: Store) -> None:
    """Names of a transaction that failed are made anew by the next."""
    known = Names()

    def fail() -> None:
        with store.database.writing() as connection:
            known.resolve(connection, [counted("jane")])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with store.database.writing() as connection:
        ids = known.resolve(connection, [counted("jane")])
        stored = connection.execute(sa.select(names.c.id).where(names.c.text == "jane")).scalars().all()
    assert stored == [ids[NameKind.ACTOR, "jane"]]
