"""The feed over real connections, to a client written apart from it."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from forwarder.errors import ConfigError
from forwarder.events.audit import decode
from forwarder.events.outgoing import OutgoingEvent
from forwarder.feed.server import MAX_STREAMS, Feed
from forwarder.feed.settings import FeedSettings
from forwarder.telemetry import Telemetry
from forwarder.wire.listen import TlsSettings
from tests.e2e.feed.protocol import Watching

pytestmark = pytest.mark.e2e


def numbers(watching: Watching) -> list[int]:
    """The numbers of the events that were seen."""
    return [int(alert.EventData["auditID"]) for alert in watching.seen if alert.Type == "MatchedPolicy"]


def losses(watching: Watching) -> int:
    """How many events it was told that it lost."""
    return sum(int(alert.EventData["dropped"]) for alert in watching.seen if alert.Type == "SystemEvent")


def test_health_is_said_back(serve, connect):
    """KubeArmor's own check, and gRPC's for the whole server and for the service."""
    client = connect(serve())
    assert client.health_check(-7) == -7
    stub = health_pb2_grpc.HealthStub(client.channel)
    for service in ("", "feeder.LogService"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status == 1


def test_reflection_tells_what_is_here(serve, connect):
    """grpcurl needs no .proto file: services are listed, and ours is described with all it refers to."""
    stub = reflection_pb2_grpc.ServerReflectionStub(connect(serve()).channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="feeder.LogService"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
    ]
    listed, ours, health = stub.ServerReflectionInfo(iter(asked), timeout=20)
    names = {service.name for service in listed.list_services_response.service}
    assert {"feeder.LogService", "grpc.health.v1.Health"} <= names
    assert b"DroppingAlertsInterval" in ours.file_descriptor_response.file_descriptor_proto[0]
    assert health.file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize(
    ("method", "word", "open_"),
    [
        ("WatchAlerts", "all", True),
        ("WatchAlerts", "policy", True),
        ("WatchAlerts", "system", False),
        ("WatchAlerts", "", False),
        ("WatchAlerts", "ALL", False),
        ("WatchLogs", "all", True),
        ("WatchLogs", "system", True),
        ("WatchLogs", "policy", False),
        ("WatchLogs", "", False),
        ("WatchMessages", "", True),
        ("WatchMessages", "all", True),
        ("WatchMessages", "anything", True),
    ],
)
def test_filters_are_kubearmors(serve, connect, wait_until, method, word, open_):
    """A word that is none ends the stream at once with OK, as KubeArmor does."""
    served = serve()
    watching = connect(served).watch(method, word)
    if open_:
        watching.opened()
        wait_until(lambda: served.clients() == 1, "the stream")
    else:
        assert list(watching) == []
        assert watching.ended() == grpc.StatusCode.OK
        assert served.clients() == 0


def test_friction_arrives_as_it_happens(serve, connect):
    """In order, to several clients; a denied attempt is a Block."""
    served = serve()
    watchings = [connect(served).watch("WatchAlerts").opened() for _ in range(3)]
    served.show(5)
    for watching in watchings:
        alerts = [next(watching) for _ in range(5)]
        assert [alert.EventData["auditID"] for alert in alerts] == ["0", "1", "2", "3", "4"]
        assert (alerts[0].PolicyName, alerts[0].Severity, alerts[0].Action) == ("kubectl-exec", "10", "Block")
        assert (alerts[0].NamespaceName, alerts[0].PodName, alerts[0].Timestamp) == ("prod", "web-0", 1772359200)


def test_audit_events_are_asked_for_only_while_somebody_watches_them(serve, connect, wait_until):
    """Whoever watches alerts only costs the receiver no decoding of other lines."""
    served = serve()
    line = b'{"auditID":"a-1","verb":"list","stage":"ResponseComplete","user":{"username":"bob"}}'
    alerts = connect(served).watch("WatchAlerts").opened()
    assert not served.feed.wants_audit
    client = connect(served)
    logs = client.watch("WatchLogs").opened()
    wait_until(lambda: served.feed.wants_audit, "the wish")
    before = served.changes
    served.feed.audit([OutgoingEvent(decode(line), line)])
    assert next(logs).Source == "bob"
    logs.call.cancel()
    wait_until(lambda: not served.feed.wants_audit, "the end of the wish")
    assert served.changes > before
    alerts.call.cancel()


def test_notices_are_what_we_log(serve, connect):
    """Whoever begins to watch is told at once that the receiver is up."""
    served = serve()
    messages = connect(served).watch("WatchMessages", "").opened()
    assert next(messages).Message.startswith("friction-forwarder ")
    logging.getLogger("forwarder.pipeline").warning("the disk is nearly full")
    found = next(messages)
    while "watches messages" in found.Message:
        found = next(messages)
    assert (found.Level, found.Message) == ("WARN", "the disk is nearly full")


def test_a_slow_client_loses_its_own_events_and_is_told_where(serve, connect, wait_until):
    """A queue of 1000, then losses that are counted and told in their place; the fast client beside it gets everything."""
    served = serve()
    slow, fast = connect(served).watch("WatchAlerts").opened(), connect(served).watch("WatchAlerts").opened()
    fast.read_in_background()
    total = 6000
    for start in range(0, total, 100):
        began = time.perf_counter()
        served.show(100)
        assert time.perf_counter() - began < 2.0  # the receiver's part of it never waits for a client
        wait_until(lambda due=start + 100 - 500: len(fast.seen) >= due, "the fast client")
    wait_until(lambda: len(fast.seen) == total, "all of them at the fast client")
    lost = served.telemetry.value("forwarder_feed_dropped", stream="alerts")
    assert lost > 0
    slow.read_in_background()
    wait_until(lambda: losses(slow), "the slow client to be told")
    served.show(1)
    wait_until(lambda: numbers(slow)[-1:] == [total], "an event behind the gap")
    served.feed.stop()
    assert [one.ended() for one in (slow, fast)] == [grpc.StatusCode.OK] * 2
    assert numbers(fast) == list(range(total + 1))
    assert losses(slow) == lost == total + 1 - len(numbers(slow))
    assert numbers(slow) == sorted(numbers(slow))
    # what it holds: a queue of 1000, and what gRPC had taken off it for its own buffers before that
    assert 1000 <= len(numbers(slow)) - 1 < total
    gap = next(index for index, alert in enumerate(slow.seen) if alert.Type == "SystemEvent")
    told = int(slow.seen[gap].EventData["dropped"])
    before, after = (int(slow.seen[index].EventData["auditID"]) for index in (gap - 1, gap + 1))
    assert after - before - 1 == told


def test_stopping_sends_what_waits_and_ends_every_stream_with_ok(serve, connect):
    """And health says no before that; nobody can come in afterwards."""
    served = serve()
    client = connect(served)
    watchings = [client.watch(method).opened() for method in ("WatchAlerts", "WatchLogs", "WatchMessages")]
    for watching in watchings:
        watching.read_in_background()
    served.show(700)
    served.feed.stop()
    assert [watching.ended() for watching in watchings] == [grpc.StatusCode.OK] * 3
    assert numbers(watchings[0]) == list(range(700))
    with pytest.raises(grpc.RpcError) as refused:
        client.health_check(1)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_client_that_does_not_read_keeps_nobody_from_stopping(serve, connect):
    """Its stream is cut when the time for draining is over."""
    served = serve()
    connect(served).watch("WatchAlerts").opened()
    for _ in range(60):
        served.show(50)
    began = time.monotonic()
    served.feed.stop()
    assert time.monotonic() - began < 15


def test_a_killed_client_is_forgotten(serve, connect, wait_until):
    """kill -9 in the middle of a stream: the others go on, its queue is let go."""
    served = serve()
    steady = connect(served).watch("WatchAlerts").opened().read_in_background()
    program = (
        "import sys\nfrom tests.e2e.feed.protocol import Client\n"
        "for alert in Client(sys.argv[1]).watch('WatchAlerts'):\n    print('seen', flush=True)\n"
    )
    victim = subprocess.Popen(
        [sys.executable, "-c", program, f"127.0.0.1:{served.address.port}"],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())}, stdout=subprocess.PIPE,
    )  # fmt: skip
    wait_until(lambda: served.clients() == 2, "the victim's stream")
    served.show(10)
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"seen\n"
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    served.show(100)
    wait_until(lambda: served.clients() == 1, "the victim to be forgotten")
    served.show(10)
    wait_until(lambda: numbers(steady) == list(range(120)), "everything at the other one")
    steady.call.cancel()
    steady.ended()


def test_streams_have_a_cap(serve, connect, wait_until):
    """One more is told to come back later, and may when one has left."""
    served = serve()
    clients = [connect(served) for _ in range(4)]
    watchings = [clients[number % 3].watch("WatchAlerts").opened() for number in range(MAX_STREAMS)]
    refused = clients[3].watch("WatchAlerts").read_in_background()
    assert refused.ended() == grpc.StatusCode.RESOURCE_EXHAUSTED
    watchings[0].call.cancel()
    wait_until(lambda: served.clients() == MAX_STREAMS - 1, "room")
    clients[3].watch("WatchAlerts").opened()


def test_a_port_in_use_is_named(serve):
    """Before anything is accepted, and by its address."""
    served = serve()
    with pytest.raises(ConfigError, match=f"{served.address} is in use by another process"):
        Feed(FeedSettings(listen=str(served.address)), Telemetry()).start(lambda: None)


# --- who comes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pems(authority: trustme.CA, tmp_path: Path) -> TlsSettings:
    """A server's certificate, and the authority that clients must come from."""
    server = authority.issue_cert("localhost")
    server.private_key_pem.write_to_path(str(tmp_path / "key"))
    server.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    return TlsSettings(
        cert_file=str(tmp_path / "cert"), key_file=str(tmp_path / "key"), client_ca_file=str(tmp_path / "ca")
    )


def credentials(authority: trustme.CA, shown: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
    key = shown.private_key_pem.bytes() if shown else None
    chain = shown.cert_chain_pems[0].bytes() if shown else None
    return grpc.ssl_channel_credentials(authority.cert_pem.bytes(), key, chain)


def status_of(client) -> grpc.StatusCode:
    try:
        client.health_check(1)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_mutual_tls_lets_in_who_shows_our_certificate(serve, connect, pems, authority):
    """Nobody else: not without one, not with a stranger's, not in plain text."""
    served = serve(tls=pems)
    ours = connect(served, credentials(authority, authority.issue_cert("client")), host="localhost")
    assert ours.health_check(5) == 5
    stranger = trustme.CA().issue_cert("client")
    for other in (
        connect(served, credentials(authority), host="localhost"),
        connect(served, credentials(authority, stranger), host="localhost"),
        connect(served),
    ):
        assert status_of(other) == grpc.StatusCode.UNAVAILABLE


def test_a_token_is_asked_for_everywhere_but_by_health(serve, connect, pems, authority):
    """Each method of the service refuses a client without it; gRPC's health check is for probes."""
    tls = TlsSettings(cert_file=pems.cert_file, key_file=pems.key_file)
    served = serve(tls=tls, token="t0ken")
    for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "t0ken"),)):
        client = connect(served, credentials(authority), metadata, host="localhost")
        assert status_of(client) == grpc.StatusCode.UNAUTHENTICATED
        for method in ("WatchAlerts", "WatchLogs", "WatchMessages"):
            assert client.watch(method).read_in_background().ended() == grpc.StatusCode.UNAUTHENTICATED
    assert served.clients() == 0
    stub = health_pb2_grpc.HealthStub(client.channel)
    assert stub.Check(health_pb2.HealthCheckRequest(), timeout=20).status == 1
    welcome = connect(served, credentials(authority), (("authorization", "Bearer t0ken"),), host="localhost")
    assert welcome.health_check(9) == 9


def test_receivers_threads_may_offer_while_clients_come_and_go(serve, connect, wait_until):
    """Nothing is raised into the receiver, whoever leaves when."""
    served = serve(queue_events=50)
    failures: list[BaseException] = []
    going = threading.Event()

    def offer() -> None:
        try:
            while not going.is_set():
                served.show(20)
                time.sleep(0.001)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=offer)
    thread.start()
    for _ in range(10):
        watching = connect(served).watch("WatchAlerts").opened()
        next(watching)
        watching.call.cancel()
    served.feed.stop()
    going.set()
    thread.join()
    assert failures == []
