"""A PostgreSQL server of our own, in a folder that goes away, and the fixtures of the store's tests on top of it."""

import itertools
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forwarder.backend.intake import NewEvent, read_event
from forwarder.backend.store import Store
from tests.ports import free_port

START_S = 30.0
_numbers = itertools.count()


def _somebody() -> str | None:
    """A user to run as: PostgreSQL refuses root. None when we are not root anyway."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`postgresql://…/` of a running server, without a database's name."""
    programs = {name: shutil.which(name) for name in ("initdb", "postgres")}
    if not all(programs.values()):
        pytest.skip("needs PostgreSQL: put `initdb` and `postgres` on PATH")
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'friction-forwarder[postgres]'")
    import psycopg

    user = _somebody()
    folder = Path(tmp_path_factory.mktemp("postgresql"))
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        for parent in folder.parents:
            if parent.stat().st_uid == 0 and parent != Path("/") and "pytest" in parent.name:
                parent.chmod(parent.stat().st_mode | 0o011)
    as_user: dict[str, Any] = {"user": user} if user else {}
    data, port = folder / "data", free_port()
    initdb = [
        programs["initdb"],
        "-D",
        data,
        "-U",
        "test",
        "-A",
        "trust",
        "--no-sync",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
    ]
    subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **as_user)
    options = [f"-c{name}" for name in ("fsync=off", "full_page_writes=off", "max_connections=300")]
    server = subprocess.Popen(
        [programs["postgres"], "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder, *options],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **as_user,
    )
    url = f"postgresql://test@127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                psycopg.connect(url + "postgres").close()
                break
            except psycopg.OperationalError:
                if time.monotonic() > deadline or server.poll() is not None:
                    raise
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(START_S)


@pytest.fixture
def database_url(postgresql: str) -> Callable[[], str]:
    """`database_url()`: the URL of a new, empty database."""
    import psycopg

    def make() -> str:
        name = f"test_{next(_numbers)}"
        with psycopg.connect(postgresql + "postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return postgresql + name

    return make


@pytest.fixture
def open_store(database_url: Callable[[], str]) -> Iterator[Callable[[], Store]]:
    """The fixture of tests/backend/conftest.py, on PostgreSQL."""
    opened: list[Store] = []

    def make() -> Store:
        opened.append(Store.open(database_url()))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    return open_store()


@pytest.fixture
def event() -> Callable[..., NewEvent]:
    """The fixture of tests/backend/conftest.py."""

    def make(**fields: Any) -> NewEvent:
        made = read_event(
            {"entity_ref": "component:shop/payments-api", "type": "kubectl-exec", "severity": "high", **fields}
        )
        assert isinstance(made, NewEvent), made
        return made

    return make
