"""What a caller of HttpClient is told; the calls themselves are tested on real sockets in e2e."""

import io
import socket
import ssl
import threading

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError, NameResolutionError, NewConnectionError, ProtocolError, ReadTimeoutError

from forwarder.wire.http_client import MAX_REPLY_BYTES, Fault, HttpClient, Reply

URL = "http://backend:8000/health"


class Answering(HTTPAdapter):
    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer
        self.requests = []
        self.options = {}

    def send(self, request, *_, **options):
        self.requests.append(request)
        self.options = options
        answer = self.answer() if callable(self.answer) else self.answer
        if isinstance(answer, Exception):
            raise answer
        body = urllib3.HTTPResponse(body=io.BytesIO(answer), status=200, preload_content=False)
        return self.build_response(request, body)


def call(adapter, **options):
    return HttpClient(adapter=adapter, **options).call("GET", URL, deadline_s=5.0)


def test_a_reply_is_what_came_back() -> None:
    """Status, headers and body."""
    reply = call(Answering(b"hello"))
    assert isinstance(reply, Reply)
    assert (reply.status, reply.body) == (200, b"hello")


def test_nothing_is_followed_decompressed_or_trusted_by_accident(monkeypatch) -> None:
    """The token never goes elsewhere, a small reply cannot unfold to a large one, certificates are checked."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    adapter = Answering(b"")
    call(adapter, token="t0k3n")
    assert adapter.requests[0].headers["Accept-Encoding"] == "identity"
    assert adapter.requests[0].headers["Authorization"] == "Bearer t0k3n"
    assert adapter.options["verify"] is True
    assert adapter.options["stream"] is True


def test_a_ca_file_is_not_overruled_by_the_environment(monkeypatch) -> None:
    """REQUESTS_CA_BUNDLE is for programs that have no setting of their own."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/elsewhere.pem")
    adapter = Answering(b"")
    call(adapter, ca_file="/ours.pem")
    assert adapter.options["verify"] == "/ours.pem"


@pytest.mark.parametrize(("size", "kind"), [(MAX_REPLY_BYTES, Reply), (MAX_REPLY_BYTES + 1, Fault)])
def test_a_reply_has_an_end(size, kind) -> None:
    """Exactly at the bound, and one byte beyond."""
    assert isinstance(call(Answering(b"x" * size)), kind)


def nested(error: Exception) -> requests.ConnectionError:
    """As requests wraps what urllib3 wraps."""
    pool = urllib3.HTTPConnectionPool("backend", 8000)
    return requests.ConnectionError(MaxRetryError(pool, "/secret-path", error))


def verification() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    return error


def unknown_name() -> NameResolutionError:
    reason = socket.gaierror(-2, "Name or service not known")
    error = NameResolutionError("backend", CONNECTION, reason)
    error.__cause__ = reason
    return error


CONNECTION = urllib3.connection.HTTPConnection("backend", 8000)
POOL = urllib3.HTTPConnectionPool("backend", 8000)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(nested(NewConnectionError(CONNECTION, "x")), "it cannot be reached", id="unreachable"),
        pytest.param(nested(ProtocolError("Connection aborted.")), "the connection was closed early", id="closed"),
        pytest.param(
            nested(ProtocolError("Connection aborted.", ConnectionResetError(104, "Connection reset by peer"))),
            "Connection reset by peer",
            id="reset",
        ),
        pytest.param(
            nested(unknown_name()),
            "its name cannot be looked up (Name or service not known)",
            id="name",
        ),
        pytest.param(nested(ReadTimeoutError(POOL, "/", "slow")), "no answer within 5 s", id="wrapped-timeout"),
        pytest.param(requests.ReadTimeout("slow"), "no answer within 5 s", id="timeout"),
        pytest.param(requests.ConnectTimeout("slow"), "no answer within 5 s", id="connect-timeout"),
        pytest.param(
            requests.exceptions.SSLError(verification()),
            "TLS: its certificate is not trusted (self-signed certificate)",
            id="certificate",
        ),
        pytest.param(
            requests.exceptions.SSLError(ssl.SSLEOFError(8, "EOF")), "TLS failed (connection closed)", id="tls"
        ),
        pytest.param(ValueError("Bearer t0k3n"), "the call failed (ValueError)", id="a-bug"),
    ],
)
def test_a_failure_is_told_in_words_and_without_secrets(error, words) -> None:
    """The cause that a person can act on; never a path, a header or a token."""
    fault = call(Answering(error), token="t0k3n")
    assert fault == Fault(words)
    assert "secret-path" not in fault.reason


def test_a_call_that_cannot_be_ended_is_the_only_one() -> None:
    """A name lookup that hangs holds one thread; further calls fail at once until it has ended."""
    go = threading.Event()
    adapter = Answering(lambda: b"late" if go.wait(20) else b"")
    client = HttpClient(adapter=adapter)
    assert client.call("GET", URL, deadline_s=0.01) == Fault("no answer within 0.01 s")
    assert client.call("GET", URL, deadline_s=5.0) == Fault("the call before this one still hangs")
    assert len(adapter.requests) == 1
    go.set()
    stuck = client._last
    assert stuck is not None
    stuck.join(20)
    assert isinstance(client.call("GET", URL, deadline_s=5.0), Reply)
