"""The webhook over real sockets: HTTP as clients speak it, TLS, limits, deadlines, and who is answered what."""

import asyncio
import errno
import gzip
import json
import logging
import ssl
import time
from contextlib import asynccontextmanager

import httpx
import pytest
import trustme

from forwarder.errors import Overloaded
from forwarder.sources.webhook import WebhookSettings, WebhookSource
from forwarder.tasks import spawn
from forwarder.telemetry import Telemetry
from forwarder.wire import http_server
from forwarder.wire.budget import ByteBudget
from forwarder.wire.listen import TlsSettings

pytestmark = pytest.mark.e2e

EVENT = {"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "a", "verb": "get"}
BODY = json.dumps({"kind": "EventList", "items": [EVENT] * 3}).encode()


class Submit:
    """What the pipeline is to a source."""

    def __init__(self):
        self.batches, self.error, self.gate = [], None, asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()

    async def __call__(self, batch):
        self.asked.set()
        await self.gate.wait()
        if self.error:
            raise self.error
        self.batches.append(batch)

    @property
    def received(self):
        return sum(batch.received for batch in self.batches)


class Door:
    def __init__(self, source, submit, stopping, task):
        self.source, self.submit, self.stopping, self.task = source, submit, stopping, task
        self.port = source.addresses[0].port
        self.telemetry = source.telemetry

    async def raw(self, data, *, until=b"", close=False, timeout_s=10):
        """Send bytes, read until the peer closes or `until` has come."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        if close:
            writer.write_eof()
        answer = b""
        async with asyncio.timeout(timeout_s):
            while more := await reader.read(65536):
                answer += more
                if until and until in answer:
                    break
        writer.close()
        return answer


@asynccontextmanager
async def door(submit=None, budget=None, screen=lambda *_: True, **settings):
    telemetry = Telemetry()
    source = WebhookSource(
        "webhook", WebhookSettings(listen="127.0.0.1:0", **settings), screen, telemetry, "prod", budget=budget
    )
    source.telemetry = telemetry
    stopping, started = asyncio.Event(), asyncio.Event()
    submit = submit or Submit()
    task = spawn(source.run(submit, stopping, started.set), name="source")
    await started.wait()
    opened = Door(source, submit, stopping, task)
    try:
        yield opened
    finally:
        stopping.set()
        await asyncio.wait_for(task, 15)
        assert telemetry.value("forwarder_connections") == 0


def post(body=BODY, path="/audit", extra=b"", version=b"1.1"):
    return (
        b"POST %s HTTP/%s\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n" % (path.encode(), version, extra, len(body))
        + body
    )


# --- the protocol --------------------------------------------------------------------------------------------------------


async def test_many_requests_over_one_connection():
    """Keep-alive, gzip and plain, chunked and with a length; the path as kube-apiserver writes it, with a query."""

    async def chunks():
        for at in range(0, len(BODY), 7):
            yield BODY[at : at + 7]

    async with door() as opened, httpx.AsyncClient(base_url=f"http://127.0.0.1:{opened.port}") as client:
        for _ in range(20):
            assert (await client.post("/audit?timeout=30s", content=BODY)).status_code == 200
        zipped = await client.post("/k8s-audit", content=gzip.compress(BODY), headers={"Content-Encoding": "gzip"})
        chunked = await client.post("/auditLogs", content=chunks())
        assert [zipped.json(), chunked.json()] == [{"received": 3}] * 2
        assert opened.submit.received == 22 * 3
        assert opened.telemetry.value("forwarder_http_requests", status="200") == 22
        assert opened.telemetry.value("forwarder_connections") == 1


async def test_requests_in_a_row_without_waiting():
    """Pipelined requests are answered in order."""
    async with door() as opened:
        answer = await opened.raw(post() * 5 + post(extra=b"Connection: close\r\n"))
        assert answer.count(b"HTTP/1.1 200") == 6
        assert opened.submit.received == 18


async def test_byte_by_byte():
    """However the network cuts it."""
    async with door() as opened:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
        for byte in post(b"[]"):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_an_old_client_and_one_that_says_goodbye_first():
    """HTTP/1.0, and a half-closed connection, still get their answer."""
    async with door() as opened:
        assert (await opened.raw(post(version=b"1.0"))).startswith(b"HTTP/1.1 200")
        assert (await opened.raw(post(), close=True)).startswith(b"HTTP/1.1 200")


async def test_a_client_that_asks_before_it_sends_its_body():
    """Expect: 100-continue is answered only where the client may come in."""
    expect = b"Expect: 100-continue\r\n"
    async with door(token="t") as opened:
        head = b"POST /audit HTTP/1.1\r\nHost: x\r\n%sContent-Length: 2\r\n%s\r\n"
        assert (await opened.raw(head % (b"", expect))).startswith(b"HTTP/1.1 401")
        allowed = head % (b"Authorization: Bearer t\r\n", expect)
        assert (await opened.raw(allowed, until=b"\r\n\r\n")).startswith(b"HTTP/1.1 100")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"this is no HTTP\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
        (b"POST /audit HTTP/1.1\r\n\r\n", b"400"),
        (b"POST /audit HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /audit HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000, b"431"),
        (b"GET /audit HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", b"404"),
    ],
    ids=["text", "TLS", "no host", "bad length", "long head", "GET", "path"],
)
async def test_what_is_not_understood_is_answered_and_closed(data, status):
    """And nothing is submitted."""
    async with door() as opened:
        assert (await opened.raw(data)).startswith(b"HTTP/1.1 " + status)
        assert opened.submit.batches == []


async def test_a_refusal_reaches_a_client_that_is_still_sending():
    """The connection is read on for a moment, or the answer would be lost to a reset."""
    async with door(token="t") as opened:
        assert (await opened.raw(post(b"x" * (3 << 20)))).startswith(b"HTTP/1.1 401")


async def test_a_client_that_resets_while_it_is_answered_is_no_fault(monkeypatch, caplog):
    """The system then refuses to end our half of the connection; hanging up is not a bug of ours."""

    def reset_meanwhile(self):
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    async with door() as opened:
        monkeypatch.setattr(asyncio.selector_events._SelectorSocketTransport, "write_eof", reset_meanwhile)
        assert (await opened.raw(b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400")
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


# --- limits ------------------------------------------------------------------------------------------------------------------


async def test_a_body_above_the_cap_is_used_as_far_as_it_goes():
    """Its complete events count, the rest is a dead letter, and the answer is 200."""
    many = json.dumps({"kind": "EventList", "items": [EVENT] * 100}).encode()
    async with door(max_body_bytes=len(many) // 2) as opened:
        assert (await opened.raw(post(many), until=b"}")).startswith(b"HTTP/1.1 200")
        events, rest = opened.submit.batches
        assert 48 <= events.received <= 51
        assert [letter.reason for letter in rest.rejected] == ["body_too_large"]


async def test_a_bomb_is_bounded():
    """A megabyte of gzip that holds a gigabyte costs what the cap allows."""
    bomb = gzip.compress(b" " * (200 << 20), compresslevel=9)
    async with door(max_body_bytes=1 << 20) as opened:
        began = time.monotonic()
        answer = await opened.raw(post(bomb, extra=b"Content-Encoding: gzip\r\n"), until=b"}")
        assert answer.startswith(b"HTTP/1.1 200")
        assert time.monotonic() - began < 5
        assert opened.source.budget.used_bytes < 1 << 20


async def test_more_connections_than_allowed_are_told_so():
    """503 with Retry-After; those that are in stay."""
    async with door(max_connections=2) as opened:
        held = [await asyncio.open_connection("127.0.0.1", opened.port) for _ in range(2)]
        await asyncio.sleep(0.1)
        answer = await opened.raw(post())
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"Retry-After" in answer
        held[0][1].write(post())
        assert (await held[0][0].readline()).startswith(b"HTTP/1.1 200")
        for _, writer in held:
            writer.close()


async def test_a_client_that_drips_is_cut(monkeypatch):
    """The deadline is for the whole request, not for the next byte."""
    monkeypatch.setattr(http_server, "HEAD_DEADLINE_S", 0.3)
    async with door(request_timeout_s=0.6) as opened:
        answer = await opened.raw(b"POST /audit HT", timeout_s=5)
        assert answer.startswith(b"HTTP/1.1 408")
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
        writer.write(b"POST /audit HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        began = time.monotonic()
        while time.monotonic() - began < 4 and not reader.at_eof():
            try:
                writer.write(b" ")
                await writer.drain()
            except ConnectionError:
                break
            await asyncio.sleep(0.05)
            if reader._buffer:
                break
        assert time.monotonic() - began < 3
        writer.close()
        assert (await opened.raw(b"", timeout_s=5)) == b""  # a stranger who says nothing
        assert opened.submit.batches == []


async def test_an_idle_connection_is_closed():
    """After its time, between two requests."""
    async with door(idle_timeout_s=0.2) as opened:
        answer = await opened.raw(post(), timeout_s=5)
        assert answer.count(b"HTTP/1.1") == 1


async def test_reading_stops_while_the_budget_is_spent():
    """And a body that is half read gives its memory back instead of waiting for ever."""
    budget = ByteBudget(1 << 20)
    async with door(budget=budget) as opened:
        share = budget.share(lambda: None)
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
        writer.write(b"POST /audit HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (4 << 20) + b" " * 1000)
        await asyncio.sleep(0.2)
        share.resize(2 << 20)
        writer.write(b" " * 100_000)
        before = opened.telemetry.value("forwarder_source_bytes")
        await asyncio.sleep(0.3)
        assert opened.telemetry.value("forwarder_source_bytes") == before
        answer = await asyncio.wait_for(reader.read(1000), 10)
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"Retry-After" in answer
        share.close()
        assert budget.used_bytes == 0
        writer.close()


# --- under pressure, and at the end ----------------------------------------------------------------------------------------


async def test_overload_waits_and_then_says_503():
    """The connection stays, and the same batch is taken later."""
    submit = Submit()
    async with door(submit, ack_timeout_s=0.3) as opened, httpx.AsyncClient() as client:
        submit.error = Overloaded("outbox_full", retry_after_s=0.05)
        url = f"http://127.0.0.1:{opened.port}/audit"
        answer = await client.post(url, content=BODY)
        assert (answer.status_code, int(answer.headers["Retry-After"]) > 0) == (503, True)
        submit.error = None
        assert (await client.post(url, content=BODY)).status_code == 200
        assert submit.received == 3


async def test_a_bug_in_the_pipeline_is_a_500():
    """Not acknowledged, the connection closed, the door open."""
    submit = Submit()
    async with door(submit) as opened:
        submit.error = RuntimeError("a bug")
        assert (await opened.raw(post())).startswith(b"HTTP/1.1 500")
        submit.error = None
        assert (await opened.raw(post(), until=b"}")).startswith(b"HTTP/1.1 200")


async def test_at_shutdown_a_request_that_came_is_answered():
    """One that is half there is not; its client sends again."""
    submit = Submit()
    async with door(submit) as opened:
        submit.gate.clear()
        whole = spawn(opened.raw(post()), name="whole")
        await submit.asked.wait()
        half = spawn(opened.raw(post()[:-10]), name="half")
        await asyncio.sleep(0.1)
        opened.stopping.set()
        await asyncio.sleep(0.1)
        submit.gate.set()
        answer = await whole
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"onnection: close" in answer
        assert await half == b""
        assert submit.received == 3


# --- TLS ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path):
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.crt")
    server = ca.issue_cert("127.0.0.1")
    server.private_key_pem.write_to_path(tmp_path / "tls.key")
    server.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    client = ca.issue_cert("client.test", common_name="prod-eu-9")
    client.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    return ca


def trusting(authority, folder, client=False):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if client:
        context.load_cert_chain(folder / "client.pem")
    return context


async def test_tls_with_and_without_a_client_certificate(authority, tmp_path):
    """The certificate's name is the cluster; without one the handshake fails."""
    tls = TlsSettings(
        cert_file=f"{tmp_path}/tls.crt", key_file=f"{tmp_path}/tls.key", client_ca_file=f"{tmp_path}/ca.crt"
    )
    async with door(tls=tls, cluster_from_certificate=True) as opened:
        url = f"https://127.0.0.1:{opened.port}/audit"
        async with httpx.AsyncClient(verify=trusting(authority, tmp_path, client=True)) as client:
            for _ in range(3):
                assert (await client.post(url, content=BODY * 200)).status_code == 200
        assert {batch.cluster for batch in opened.submit.batches} == {"prod-eu-9"}
        async with httpx.AsyncClient(verify=trusting(authority, tmp_path)) as client:
            with pytest.raises(httpx.TransportError):
                await client.post(url, content=BODY)
        assert await opened.raw(post()) == b""  # plain HTTP at a TLS door
        assert opened.telemetry.value("forwarder_connections_closed", cause="tls") == 2


async def test_a_large_body_over_tls(authority, tmp_path):
    """Reading pauses and goes on."""
    tls = TlsSettings(cert_file=f"{tmp_path}/tls.crt", key_file=f"{tmp_path}/tls.key")
    many = json.dumps([EVENT | {"pad": "x" * 1000}] * 8000).encode()
    async with door(tls=tls) as opened, httpx.AsyncClient(verify=trusting(authority, tmp_path)) as client:
        answer = await client.post(f"https://127.0.0.1:{opened.port}/audit", content=many, timeout=30)
        assert answer.json() == {"received": 8000}
