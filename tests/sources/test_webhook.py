"""The webhook source without sockets: settings that go together, what is refused before a body is read, batches, answers."""

import asyncio
import base64
import json

import pytest

from forwarder.errors import ConfigError, Overloaded, ShuttingDown
from forwarder.settings import convert, parse_document
from forwarder.sources.webhook import WebhookSettings, WebhookSource
from forwarder.telemetry import Telemetry
from forwarder.wire.http_body import Body
from forwarder.wire.http_server import Head
from forwarder.wire.listen import TlsSettings

TLS = TlsSettings(cert_file="/c", key_file="/k")
MUTUAL_TLS = TlsSettings(cert_file="/c", key_file="/k", client_ca_file="/ca")
EVENT = {"kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": "a", "verb": "get"}


def source_with(screen=lambda *_: True, cluster="prod", **settings):
    telemetry = Telemetry()
    source = WebhookSource("webhook", WebhookSettings(**settings), screen, telemetry, cluster)
    source.telemetry = telemetry
    return source


class Submit:
    def __init__(self, *errors):
        self.errors, self.batches = list(errors), []

    async def __call__(self, batch):
        if self.errors:
            raise self.errors.pop(0)
        self.batches.append(batch)


def head(method="POST", path="/audit", certificate=None, **headers):
    return Head(
        method, path, {name.replace("_", "-"): value for name, value in headers.items()}, "10.0.0.7:5", certificate
    )


async def take(source, submit, data, the_head=None, **body):
    source._submit = submit
    return await source.take(the_head or head(), Body(data, **body))


# --- settings ------------------------------------------------------------------------------------------------------------


def test_the_documented_settings_are_read():
    """As they stand in the module's example."""
    text = (
        "{listen: '0.0.0.0:9765', token: t, tls: {cert_file: server.crt, key_file: server.key}, max_body_bytes: 8MiB}"
    )
    settings = convert(parse_document(text, "f.yaml"), WebhookSettings)
    source = WebhookSource("webhook", settings, lambda *_: True, Telemetry(), "")
    assert source.max_body_bytes == 8 << 20


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"listen": "0.0.0.0:9765"}, "(`token`, `users`, `cluster_tokens` or `tls.client_ca_file`)"),
        ({"listen": ":9765", "tls": TLS}, "allow_anonymous: true"),
        ({"token": ""}, "sources.webhook.token: it is empty"),
        ({"users": {"a": ""}}, "sources.webhook.users"),
        ({"users": {"a:b": "c"}}, "no `:`"),
        ({"cluster_tokens": {"": "x"}}, "sources.webhook.cluster_tokens"),
        ({"paths": []}, "sources.webhook.paths"),
        ({"paths": ["audit"]}, "sources.webhook.paths"),
        ({"cluster_from_certificate": True, "tls": TLS}, "needs `tls.client_ca_file`"),
        ({"max_body_bytes": "much"}, "sources.webhook.max_body_bytes"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, words):
    """With the name of the setting."""
    with pytest.raises(ConfigError) as caught:
        source_with(**settings)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [{"token": "t"}, {"users": {"a": "b"}}, {"cluster_tokens": {"a": "b"}}, {"tls": MUTUAL_TLS}, {"allow_anonymous": True}],
    ids=["token", "users", "cluster tokens", "mutual TLS", "anonymous"],
)  # fmt: skip
def test_each_way_to_know_clients_opens_the_door(settings):
    """Off loopback one of them is needed."""
    source_with(listen="0.0.0.0:9765", **settings)


# --- before the body -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (head(authorization="Bearer t"), None),
        (head(path="/k8s-audit", authorization="Bearer t"), None),
        (head(path="/auditLogs/", authorization="Bearer t", content_encoding="gzip"), None),
        (head(path="/", authorization="Bearer t"), 404),
        (head("GET", authorization="Bearer t"), 405),
        (head("PUT", authorization="Bearer t"), 405),
        (head(), 401),
        (head(authorization="Bearer no"), 401),
        (head(authorization="Bearer t", content_encoding="br"), 415),
    ],
)
def test_what_is_refused_before_its_body_is_read(request_head, status):
    """And the connection closes, so that the body need not be read."""
    answer = source_with(token="t").refuse(request_head)
    assert (answer.status if answer else None) == status
    assert answer is None or answer.close


def test_a_certificate_that_names_no_cluster_is_refused():
    """Where the cluster is to be taken from it."""
    source = source_with(tls=MUTUAL_TLS, cluster_from_certificate=True)
    assert source.refuse(head(certificate={"subject": ()})).status == 403
    assert source.refuse(head(certificate={"subject": ((("commonName", "prod"),),)})) is None


# --- bodies ----------------------------------------------------------------------------------------------------------------


async def test_an_event_list_is_a_batch():
    """Every event counted, those that a rule may match handed over, the sender named."""
    submit = Submit()
    source = source_with(lambda data, start, end: b"yes" in data[start:end])
    items = [EVENT, EVENT | {"auditID": "yes"}]
    answer = await take(source, submit, json.dumps({"kind": "EventList", "items": items}).encode())
    assert (answer.status, json.loads(answer.body)) == (200, {"received": 2})
    (batch,) = submit.batches
    assert (batch.received, len(batch.lines), batch.cluster, batch.origin) == (2, 1, "prod", "webhook 10.0.0.7:5")


async def test_an_empty_body_is_fine():
    """A probe, or a list without items."""
    submit = Submit()
    for data in (b"", b'{"kind":"EventList","items":[]}'):
        assert (await take(source_with(), submit, data)).status == 200
    assert submit.batches == []


async def test_a_large_body_is_opened_in_a_thread():
    """With the same outcome."""
    submit = Submit()
    answer = await take(source_with(), submit, json.dumps([EVENT] * 5000).encode())
    assert json.loads(answer.body) == {"received": 5000}


@pytest.mark.parametrize("fault", ["body_too_large", "bad_gzip"])
async def test_what_could_not_be_used_of_a_body_is_a_dead_letter(fault, caplog):
    """The events before it count, and the answer is 200: sent again it would be no better."""
    submit = Submit()
    data = json.dumps([EVENT, EVENT]).encode()
    answer = await take(source_with(), submit, data[:-30], fault=fault, rest_bytes=77, rest_sha256="ab")
    assert answer.status == 200
    assert submit.batches[0].received == 2
    (letter,) = submit.batches[1].rejected
    assert (letter.reason, letter.size_bytes, letter.sha256, letter.offset) == (fault, 77, "ab", len(data) - 30)
    assert "77 bytes could not be used" in caplog.text


async def test_whose_cluster_it_is():
    """The token's, the certificate's, the envelope's, the source's: in this order, as far as they are wanted."""
    tokens = {"cluster_tokens": {"from-token": "t"}}
    certificate = {"subject": ((("commonName", "from-certificate"),),)}
    record = {
        "category": "kube-audit",
        "resourceId": "/X/MANAGEDCLUSTERS/AKS",
        "properties": {"log": json.dumps(EVENT)},
    }
    body = json.dumps({"records": [record]}).encode()
    cases = [
        ({}, head(), "prod"),
        ({"cluster": "own"}, head(), "own"),
        ({"cluster_from_envelope": True}, head(), "aks"),
        (tokens | {"cluster_from_envelope": True}, head(authorization="Bearer t"), "from-token"),
        ({"cluster_from_certificate": True, "tls": MUTUAL_TLS}, head(certificate=certificate), "from-certificate"),
    ]
    for settings, request_head, cluster in cases:
        submit = Submit()
        await take(source_with(**settings), submit, body, request_head)
        assert [batch.cluster for batch in submit.batches] == [cluster]


async def test_an_overloaded_pipeline_is_waited_for():
    """It is asked again until it takes the batch."""
    submit = Submit(Overloaded("outbox_full", retry_after_s=0.0), Overloaded("outbox_full", retry_after_s=0.0))
    assert (await take(source_with(), submit, json.dumps(EVENT).encode())).status == 200
    assert len(submit.batches) == 1


async def test_what_waits_too_long_is_sent_again():
    """503 with Retry-After; a receiver that is shutting down says so and closes."""
    forever = [Overloaded("outbox_full", retry_after_s=0.0)] * 100_000
    answer = await take(source_with(ack_timeout_s=0.05), Submit(*forever), json.dumps(EVENT).encode())
    assert (answer.status, answer.retry_after_s > 0, answer.close) == (503, True, False)
    answer = await take(source_with(), Submit(ShuttingDown("closing")), json.dumps(EVENT).encode())
    assert (answer.status, answer.close) == (503, True)


async def test_a_bug_is_no_acknowledgement():
    """It leaves `take` as it is; the connection answers 500."""
    with pytest.raises(RuntimeError):
        await take(source_with(), Submit(RuntimeError("a bug")), json.dumps(EVENT).encode())


async def test_firehose_gets_its_request_id_back():
    """Or it would send the records again."""
    data = base64.b64encode(json.dumps(EVENT).encode()).decode()
    body = json.dumps({"requestId": "r-1", "timestamp": 1, "records": [{"data": data}]}).encode()
    answer = await take(source_with(), Submit(), body, head(x_amz_firehose_request_id="r-1"))
    assert json.loads(answer.body)["requestId"] == "r-1"
    assert json.loads(answer.body)["timestamp"] > 1_700_000_000_000


async def test_what_is_no_audit_event_is_counted_apart():
    """Other categories of a cloud's log are no bad input."""
    source, submit = source_with(), Submit()
    record = {"category": "guard", "properties": {"log": "I0814 klog"}}
    assert (await take(source, submit, json.dumps({"records": [record] * 3}).encode())).status == 200
    assert source.telemetry.value("forwarder_records_skipped", source="webhook", reason="other_category") == 3
    assert submit.batches == []
    await asyncio.sleep(0)
