"""Following feeds: what is told when they come, go, refuse us or are none."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import grpc
import pytest
import trustme

from forwarder.feed.client import Connected, GaveUp, Lost, Missed, News, Seen, Target, Tls, follow
from forwarder.settings import Address
from forwarder.tasks import cancel, spawn
from forwarder.wire.listen import TlsSettings
from tests.ports import free_port

pytestmark = pytest.mark.e2e


class Follower:
    """Follows targets until the block ends; `news` is what was told."""

    def __init__(self, *targets: Target, streams=("alerts",)) -> None:
        self.targets, self.streams = targets, list(streams)
        self.news: list[News] = []
        self.stopping = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._tasks = [
            spawn(follow(target, self.streams, self.news.append, self.stopping), name=f"follow {target}")
            for target in self.targets
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stopping.set()
        await asyncio.wait(self._tasks, timeout=20)
        await cancel(*self._tasks)

    def of(self, kind: type) -> list:
        return [news for news in self.news if isinstance(news, kind)]

    async def until(self, condition: Callable[[], object], what: str) -> None:
        async with asyncio.timeout(40):
            while not condition():  # noqa: ASYNC110 - of things that have no event
                await asyncio.sleep(0.02)
        assert condition(), what


def at(port: int, **more) -> Target:
    return Target(address=Address(host="127.0.0.1", port=port), **more)


def numbers(follower: Follower) -> list[int]:
    return [int(seen.message.EventData["auditID"]) for seen in follower.of(Seen)]


async def test_several_feeds_are_followed_side_by_side(serve):
    """Each message says whose it is."""
    one, two = serve(), serve()
    async with Follower(at(one.address.port), at(two.address.port), streams=("alerts", "messages")) as follower:
        await follower.until(lambda: one.clients() == two.clients() == 2, "both")
        one.show(3)
        two.show(2)
        await follower.until(lambda: len([s for s in follower.of(Seen) if s.stream == "alerts"]) == 5, "all")
    alerts = [seen.target for seen in follower.of(Seen) if seen.stream == "alerts"]
    assert (alerts.count(str(one.address)), alerts.count(str(two.address))) == (3, 2)
    assert {seen.target for seen in follower.of(Seen) if seen.stream == "messages"} == {
        str(one.address),
        str(two.address),
    }


async def test_it_comes_back_and_says_for_how_long_it_saw_nothing(serve):
    """A feed that was away is lost once, however often it is tried meanwhile, and missed once."""
    port = free_port()
    first = serve(listen=f"127.0.0.1:{port}")
    async with Follower(at(port)) as follower:
        await follower.until(first.clients, "the stream")
        first.show(2)
        await follower.until(lambda: len(numbers(follower)) == 2, "two events")
        await asyncio.to_thread(first.feed.stop)
        await follower.until(lambda: len(follower.of(Lost)) == 2, "the loss to be noticed")
        await asyncio.sleep(1.5)
        second = serve(listen=f"127.0.0.1:{port}")
        await follower.until(second.clients, "the stream again")
        second.show(1)
        await follower.until(lambda: len(numbers(follower)) == 3, "an event of the second life")
    assert [lost.reason for lost in follower.of(Lost)] == ["it ended the stream", "nothing listens there"]
    (missed,) = follower.of(Missed)
    assert 1.5 <= missed.seconds < 40
    kinds = [type(news) for news in follower.news]
    assert kinds == [Connected, Seen, Seen, Lost, Lost, Connected, Missed, Seen]


async def test_a_wrong_token_is_the_end(serve):
    """Trying again would not help; with the right one it works."""
    served = serve(token="t0ken")
    async with Follower(at(served.address.port, token="wrong")) as follower:
        await follower.until(lambda: follower.of(GaveUp), "it to give up")
    assert "token" in follower.of(GaveUp)[0].reason
    async with Follower(at(served.address.port, token="t0ken")) as follower:
        await follower.until(lambda: follower.of(Connected), "to get in")


async def test_what_is_no_feed_is_the_end():
    """A gRPC server without the service says so."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        async with Follower(at(port)) as follower:
            await follower.until(lambda: follower.of(GaveUp), "it to give up")
        assert follower.of(GaveUp)[0].reason == "what listens there is no feed"
    finally:
        server.stop(0)


@pytest.fixture
def pems(tmp_path: Path) -> dict[str, str]:
    """Paths of an authority, a server's and a client's certificate, and another authority."""
    authority, other = trustme.CA(), trustme.CA()
    paths = {}
    for name, leaf in (("server", authority.issue_cert("localhost")), ("client", authority.issue_cert("client"))):
        leaf.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        leaf.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.crt"))
        paths |= {f"{name}_key": str(tmp_path / f"{name}.key"), f"{name}_crt": str(tmp_path / f"{name}.crt")}
    for name, ca in (("ca", authority), ("other", other)):
        ca.cert_pem.write_to_path(str(tmp_path / name))
        paths[name] = str(tmp_path / name)
    return paths


async def test_tls_both_ways(serve, pems):
    """The server is known by its authority and name, the client by its certificate; every fault says what to do."""
    served = serve(
        tls=TlsSettings(cert_file=pems["server_crt"], key_file=pems["server_key"], client_ca_file=pems["ca"])
    )
    port = served.address.port
    shown = {"cert_file": pems["client_crt"], "key_file": pems["client_key"]}
    async with Follower(at(port, tls=Tls(ca_file=pems["ca"], name="localhost", **shown))) as follower:
        await follower.until(served.clients, "the stream")
        served.show(1)
        await follower.until(lambda: numbers(follower), "an event")
    for tls, words in (
        (
            Tls(ca_file=pems["other"], name="localhost", **shown),
            "its certificate is not one that our authority has signed",
        ),
        (Tls(ca_file=pems["ca"], name="elsewhere", **shown), "certificate"),
        (Tls(ca_file=pems["ca"], name="localhost"), "certificate of ours|closed the connection"),
        (None, "closed the connection"),
    ):
        async with Follower(at(port, tls=tls)) as follower:
            await follower.until(lambda seen=follower: seen.of(Lost), "the refusal")
        found = follower.of(Lost)[0].reason
        assert any(word in found for word in words.split("|")), found
        assert not follower.of(Connected)


async def test_tls_to_a_plain_feed_says_so(serve):
    """The usual mistake the other way round."""
    served = serve()
    async with Follower(at(served.address.port, tls=Tls())) as follower:
        await follower.until(lambda: follower.of(Lost), "the refusal")
    assert "leave the --tls options out" in follower.of(Lost)[0].reason
