"""A PostgreSQL server of our own, in a folder that goes away."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port

START_S = 30.0


def _somebody() -> str | None:
    """A user to run as: PostgreSQL refuses root. None when we are not root anyway."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """`postgresql://…/` of a running server, without a database's name."""
    programs = {name: shutil.which(name) for name in ("initdb", "postgres")}
    if not all(programs.values()):
        pytest.skip("needs PostgreSQL: put `initdb` and `postgres` on PATH")
    psycopg = pytest.importorskip("psycopg", reason="needs psycopg: pip install 'friction-forwarder[postgres]'")
    user = _somebody()
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))  # pytest's own folders are closed to other users
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
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
        server.send_signal(signal.SIGINT)  # at once; after SIGTERM it would wait for what a failed test left open
        server.wait(START_S)
        shutil.rmtree(folder, ignore_errors=True)
