"""TLS and SASL with a real broker: a password, and Event Hubs' connection string, which is one in disguise."""

import asyncio
import base64
import json
import socket
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from forwarder.cli.kafka_hop import check_kafka
from forwarder.registry import load_config
from forwarder.settings import parse_document
from forwarder.sources.kafka import KafkaSource, KafkaSourceSettings
from forwarder.tasks import spawn
from forwarder.telemetry import Telemetry
from forwarder.wire.kafka import EVENT_HUBS_PORT
from tests.e2e.kafka.broker import Broker, missing
from tests.ports import free_port

pytestmark = pytest.mark.e2e

HUB = "Endpoint=sb://localhost/;SharedAccessKeyName=listen;SharedAccessKey=c2VjcmV0PT0="
UNSIGNED = 'org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required {};"


def jaas(users):
    return LOGIN.format(" ".join(f'user_{name}="{password}"' for name, password in users.items()))


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A broker that wants TLS and a password, at a port of its own and where Event Hubs would be."""
    if why := missing():
        pytest.skip(why)
    with closing(socket.socket()) as probe:
        if probe.connect_ex(("127.0.0.1", EVENT_HUBS_PORT)) == 0:
            pytest.skip(f"needs port {EVENT_HUBS_PORT}, which something else has")
    folder = tmp_path_factory.mktemp("secured")
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    authority.cert_pem.write_to_path(folder / "ca.crt")
    leaf = authority.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.RSA)
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(pkcs8 + b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    own, plain, controller, oauth = free_port(), free_port(), free_port(), free_port()
    users = {"forwarder": "s3cret", "$ConnectionString": HUB}
    broker = Broker(
        folder,
        listeners=f"PLAINTEXT://127.0.0.1:{plain},OWN://127.0.0.1:{own},HUB://127.0.0.1:{EVENT_HUBS_PORT},OAUTH://127.0.0.1:{oauth},CONTROLLER://127.0.0.1:{controller}",
        **{
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},OWN://127.0.0.1:{own},HUB://localhost:{EVENT_HUBS_PORT},OAUTH://127.0.0.1:{oauth}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,OWN:SASL_SSL,HUB:SASL_SSL,OAUTH:SASL_SSL",
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
            "listener.name.oauth.oauthbearer.sasl.jaas.config": UNSIGNED,
            "listener.name.own.plain.sasl.jaas.config": jaas(users),
            "listener.name.hub.plain.sasl.jaas.config": jaas(users),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(folder / "server.pem"),
        },
    )
    broker.address = f"127.0.0.1:{plain}"
    broker.oauth = f"127.0.0.1:{oauth}"
    broker.own, broker.ca_file = f"127.0.0.1:{own}", str(folder / "ca.crt")
    broker.start()
    yield broker
    broker.stop()


def token():
    """One that a broker in its default, for tests, takes: without a signature."""
    now = int(time.time())
    parts = ({"alg": "none"}, {"sub": "forwarder", "iat": now, "exp": now + 3600})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


class Tokens(BaseHTTPRequestHandler):
    """A token endpoint: client credentials in, a token out. asked: what was posted, with its credentials."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append((self.headers["Authorization"], body))
        answer = json.dumps({"access_token": token(), "token_type": "Bearer", "expires_in": 3600}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint():
    server = HTTPServer(("127.0.0.1", 0), Tokens)
    thread = threading.Thread(target=server.serve_forever, name="tokens")
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/token"
    server.shutdown()
    server.server_close()
    thread.join()


def settings_of(kind, broker, topic, **changes):
    if kind == "event hubs":
        return {"connection_string": HUB, "topics": [topic], "options": {"ssl.ca.location": broker.ca_file}} | changes
    sasl = {"username": "forwarder", "password": "s3cret"}
    return {"brokers": [broker.own], "topics": [topic], "tls": {"ca_file": broker.ca_file}, "sasl": sasl} | changes


def loaded(settings):
    document = {"sources": {"kafka": settings}, "sinks": {"backend": {}}}
    return load_config(parse_document(json.dumps(document), "f.yaml"), {})


@pytest.mark.parametrize("kind", ["password", "event hubs", "oauth"])
async def test_a_client_that_may_come_in(secured, topic, kind, endpoint):
    """It reads, and doctor sees the topic."""
    secured.topic(topic)
    secured.produce(topic, [b'{"kind":"Event","auditID":"1","verb":"get"}'])
    oauth = {"token_endpoint": endpoint, "client_id": "forwarder", "client_secret": "s3cret", "scope": "audit"}
    changes = {"brokers": [secured.oauth], "sasl": {"oauth": oauth}} if kind == "oauth" else {}
    configuration = loaded(settings_of(kind, secured, topic, **changes))
    _, settings = configuration.sources["kafka"]
    assert isinstance(settings, KafkaSourceSettings)
    source = KafkaSource("kafka", settings, lambda *_: True, Telemetry(), "")
    stopping, seen = asyncio.Event(), asyncio.Event()

    async def submit(_):
        seen.set()

    task = spawn(source.run(submit, stopping, lambda: None), name="source")
    await asyncio.wait_for(seen.wait(), 30)
    stopping.set()
    await asyncio.wait_for(task, 30)
    if kind == "oauth":
        authorization, body = Tokens.asked[0]
        assert base64.b64decode(authorization.removeprefix("Basic ")) == b"forwarder:s3cret"
        assert "scope=audit" in body
    (hop,) = await asyncio.to_thread(check_kafka, configuration)
    assert hop.good is True, hop
    assert f"{topic}, 1 partitions" in hop.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sasl": {"username": "forwarder", "password": "wrong"}}, "uthentication failed"),
        ({"tls": {}}, "certificate verify failed"),
    ],
    ids=["wrong password", "unknown authority"],
)
def test_a_client_that_may_not(secured, topic, changes, words):
    """Says why, and what to look at; never the password."""
    (hop,) = check_kafka(loaded(settings_of("password", secured, topic, **changes)))
    assert hop.good is False
    assert words in hop.text
    assert "`sasl`" in hop.advice
    assert "wrong" not in hop.text
