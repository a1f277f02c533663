"""The backend as a real HTTP server on loopback: start, answer, stop, and every way in which a start fails."""

import asyncio
import contextlib
import logging
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from forwarder.backend import server as server_module
from forwarder.backend.access.keys import KeyStore
from forwarder.backend.server import BackendServer
from forwarder.backend.settings import BackendSettings
from forwarder.backend.store import Store
from forwarder.errors import ConfigError
from forwarder.tasks import cancel, spawn

pytestmark = pytest.mark.e2e

ENTITY = "component:shop/payments-api"
EVENT = {"entity_ref": ENTITY, "type": "kubectl-exec", "severity": "high"}
DEADLINE_S = 15.0


@contextlib.asynccontextmanager
async def serving(database: Path, **settings: Any) -> AsyncIterator[str]:
    """A backend on a free port; gives its URL, and stops it in the end."""
    server = BackendServer(BackendSettings(listen="127.0.0.1:0", database=str(database), **settings))
    stopping, started = asyncio.Event(), asyncio.Event()
    task = spawn(server.serve(stopping, started.set), name="backend under test", failed=lambda _: started.set())
    try:
        async with asyncio.timeout(DEADLINE_S):
            await started.wait()
            if task.done():
                await task
            yield f"http://{server.address}"
            stopping.set()
            await task
    finally:
        await cancel(task)


async def ask(method: Callable[..., requests.Response], *args: Any, **kwargs: Any) -> requests.Response:
    """A request from another thread, so that the server's loop is free to answer it."""
    return await asyncio.to_thread(method, *args, timeout=DEADLINE_S, **kwargs)


async def test_life(tmp_path: Path) -> None:
    """It answers on the port it tells, and what was acknowledged is there after a restart, once."""
    database = tmp_path / "backend.db"
    async with serving(database) as url:
        with requests.Session() as session:
            for _ in range(2):
                answer = await ask(session.post, f"{url}/events", json={**EVENT, "id": "a"})
                assert answer.json() == {"status": "ok", "message": "Event recorded"}
            assert "server" not in answer.headers
    async with serving(database) as url:
        with requests.Session() as session:
            events = (await ask(session.get, f"{url}/events")).json()
    assert [event["id"] for event in events] == ["a"]


async def test_encoded_slashes(tmp_path: Path) -> None:
    """A reference may come with its slash and colon encoded, once; encoded twice it is none."""
    async with serving(tmp_path / "backend.db") as url:
        with requests.Session() as session:
            await ask(session.post, f"{url}/events", json=EVENT)
            found = await ask(session.get, f"{url}/friction/component%3Ashop%2Fpayments-api")
            assert found.json()["frictionScore"]["score"] == 20
            twice = await ask(session.get, f"{url}/friction/component%253Ashop%252Fpayments-api")
            assert twice.status_code == 400


async def test_large_batch(tmp_path: Path) -> None:
    """A thousand events with long commands go through in one request; a body over the cap is a 413."""
    batch = [{**EVENT, "id": str(index), "command": "x" * 4000} for index in range(1000)]
    async with serving(tmp_path / "backend.db") as url:
        with requests.Session() as session:
            answer = await ask(session.post, f"{url}/events", json=batch)
            assert answer.json()["message"] == "1000 events recorded"
        with requests.Session() as session:
            headers = {"Content-Type": "application/json"}
            answer = await ask(session.post, f"{url}/events", data=b" " * (9 << 20), headers=headers)
            assert answer.status_code == 413


async def test_writers_at_once(tmp_path: Path) -> None:
    """Senders that deliver the same events at the same time count each of them once."""
    batch = [{**EVENT, "id": str(index)} for index in range(100)]
    async with serving(tmp_path / "backend.db") as url:

        def deliver() -> list[dict[str, str]]:
            with requests.Session() as session:
                answers = [session.post(f"{url}/events", json=batch, timeout=DEADLINE_S).json() for _ in range(3)]
            return [result for answer in answers for result in answer["results"]]

        results = [
            result for part in await asyncio.gather(*[asyncio.to_thread(deliver) for _ in range(4)]) for result in part
        ]
        with requests.Session() as session:
            score = (await ask(session.get, f"{url}/friction/{ENTITY}")).json()["frictionScore"]
    assert len(results) == 1200
    assert [result["status"] for result in results].count("recorded") == score["bypassCount"] == 100


async def test_a_crowd_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is told to come back; the log says it once."""
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 1)
    with caplog.at_level(logging.WARNING):
        async with serving(tmp_path / "backend.db") as url:
            answers = [await ask(requests.get, f"{url}/health") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {503}
    assert caplog.text.count("too many connections are open") == len(caplog.records) == 1


async def test_hostile_bytes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that are no HTTP, or half a request, do not stop the server, and nothing of them is logged."""
    with caplog.at_level(logging.DEBUG):
        async with serving(tmp_path / "backend.db") as url:
            host, port = url.removeprefix("http://").split(":")
            for raw in (b"\x16\x03\x01hunter2\r\n\r\n", b"POST /events HTTP/1.1\r\ncontent-length: 9\r\n\r\nhunter2"):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(raw)
                writer.write_eof()
                await reader.read()
                writer.close()
                await writer.wait_closed()
            with requests.Session() as session:
                assert (await ask(session.get, f"{url}/health")).status_code == 200
    assert "hunter2" not in caplog.text


async def test_old_events_are_deleted_at_start(tmp_path: Path) -> None:
    """What is older than the retention is gone soon after a start."""
    database = tmp_path / "backend.db"
    async with serving(database, retention_days=36500) as url:
        with requests.Session() as session:
            old = {**EVENT, "timestamp": "2000-01-01"}
            await ask(session.post, f"{url}/events", json=[old, {**EVENT, "id": "new"}])
    async with serving(database) as url:
        with requests.Session() as session:
            async with asyncio.timeout(DEADLINE_S):
                while len(events := (await ask(session.get, f"{url}/events")).json()) > 1:
                    pass
    assert [event["id"] for event in events] == ["new"]


async def test_stops_beside_an_idle_client(tmp_path: Path) -> None:
    """A client that keeps its connection open does not hold up the end, and the port is free afterwards."""
    with requests.Session() as session:
        async with serving(tmp_path / "backend.db") as url:
            await ask(session.get, f"{url}/health")
    port = int(url.rpartition(":")[2])
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


async def test_cancelled(tmp_path: Path) -> None:
    """A server whose task is cancelled closes its port and its store."""
    server = BackendServer(BackendSettings(listen="127.0.0.1:0", database=str(tmp_path / "backend.db")))
    started = asyncio.Event()
    task = spawn(server.serve(asyncio.Event(), started.set), name="backend under test")
    async with asyncio.timeout(DEADLINE_S):
        await started.wait()
        await cancel(task)
    assert server.address is not None
    assert server.store is None
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(server.address.host, server.address.port)


async def _start(settings: BackendSettings) -> None:
    await BackendServer(settings).serve(asyncio.Event(), lambda: None)


def test_port_in_use(tmp_path: Path) -> None:
    """A taken port is refused with its address, before a database is made."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"{listen} is in use by another program"):
            asyncio.run(_start(BackendSettings(listen=listen, database=str(tmp_path / "backend.db"))))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_not_our_address(tmp_path: Path, host: str) -> None:
    """An address that this machine does not have, or that has no name, is refused in words."""
    with pytest.raises(ConfigError, match=rf"backend\.listen: cannot listen on {host}:0: \w+"):
        await _start(BackendSettings(listen=f"{host}:0", api_key="k", database=str(tmp_path / "backend.db")))


async def test_open_to_strangers(tmp_path: Path) -> None:
    """Without a key it does not listen beyond this machine."""
    with pytest.raises(ConfigError, match="no key protects it"):
        await _start(BackendSettings(listen="0.0.0.0:0", database=str(tmp_path / "backend.db")))


@pytest.mark.parametrize("named", [True, False], ids=["a named key", "no key"])
async def test_says_whether_keys_are_asked_for(tmp_path: Path, *, named: bool) -> None:
    """A key that `keys create` made counts as the one in the settings does."""
    database = tmp_path / "backend.db"
    store = Store.open(str(database))
    if named:
        KeyStore(store.database).create("prod", ["write"], 1)
    store.close()
    server = BackendServer(BackendSettings(listen="127.0.0.1:0", database=str(database)))
    stopping = asyncio.Event()
    async with asyncio.timeout(DEADLINE_S):
        await server.serve(stopping, stopping.set)
    assert server.keys is named


async def test_bad_database(tmp_path: Path) -> None:
    """A database that cannot be used stops the start, and the port is free again."""
    (tmp_path / "notes").write_text("x" * 4096)
    with pytest.raises(ConfigError, match="file is not a database"):
        await _start(BackendSettings(listen="127.0.0.1:0", database=str(tmp_path / "notes")))


async def test_locked_database(tmp_path: Path) -> None:
    """While another process holds the file's write lock, readers are answered and a writer waits for its turn."""
    database = tmp_path / "backend.db"
    async with serving(database) as url:
        with requests.Session() as reader, requests.Session() as writer:
            lock = sqlite3.connect(database, isolation_level=None)
            lock.execute("BEGIN IMMEDIATE")
            waiting = spawn(ask(writer.post, f"{url}/events", json=EVENT), name="waiting writer")
            assert (await ask(reader.get, f"{url}/events")).json() == []
            assert not waiting.done()
            lock.execute("COMMIT")
            lock.close()
            assert (await waiting).status_code == 200
            assert len((await ask(reader.get, f"{url}/events")).json()) == 1
