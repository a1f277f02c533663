"""The telemetry port without sockets: who gets what, when it refuses to start, how long a head may take."""

import pytest

from forwarder.errors import ConfigError
from forwarder.settings import parse_address
from forwarder.wire.http import MAX_HEAD_BYTES, REQUEST_DEADLINE_S, TelemetryServer, read_head


def make(
    *, listen: str = "127.0.0.1:0", token: str = "", ready: bool = True, allow_anonymous: bool = False
) -> TelemetryServer:
    return TelemetryServer(
        parse_address(listen),
        metrics=lambda: b"forwarder_info 1\n",
        ready=lambda: ready,
        token=token,
        allow_anonymous=allow_anonymous,
    )


@pytest.mark.parametrize(
    ("path", "ready", "status", "body"),
    [
        pytest.param("/healthz", False, 200, b"ok\n", id="alive"),
        pytest.param("/readyz", True, 200, b"ready\n", id="accepting"),
        pytest.param("/readyz", False, 503, b"waiting\n", id="not-accepting"),
    ],
)
def test_probes_need_no_token_and_say_one_word(path: str, ready: bool, status: int, body: bytes) -> None:
    """A kubelet has no token; what it learns is one word."""
    answered, _, said = make(token="t0ken", ready=ready)._respond(path, "")
    assert (answered, said) == (status, body)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        pytest.param("Bearer t0ken", 200, id="right"),
        pytest.param("bearer t0ken", 200, id="scheme-in-lower-case"),
        pytest.param("", 401, id="none"),
        pytest.param("Bearer t0keN", 401, id="wrong"),
        pytest.param("Bearer ", 401, id="empty"),
        pytest.param("Basic t0ken", 401, id="other-scheme"),
        pytest.param("Bearer tökén", 401, id="beyond-ascii"),
    ],
)
def test_metrics_ask_for_the_token(authorization: str, status: int) -> None:
    """/metrics with a token set answers its bearer only."""
    assert make(token="t0ken")._respond("/metrics", authorization)[0] == status


def test_an_unknown_path_says_nothing_to_strangers() -> None:
    """Without the token other paths are 401 and not 404: what exists is nobody's business."""
    assert make(token="t0ken")._respond("/debug", "")[0] == 401
    assert make()._respond("/debug", "")[0] == 404


def test_off_loopback_it_refuses_to_start_without_a_token() -> None:
    """A listener that strangers can reach needs a token, and the message says the three ways out."""
    with pytest.raises(
        ConfigError, match=r"telemetry.listen: 0.0.0.0:9000 .*`telemetry.token`.*127.0.0.1.*allow_anonymous"
    ):
        make(listen="0.0.0.0:9000")


def test_a_unix_socket_is_refused() -> None:
    """Prometheus speaks TCP; the message says so before anything is bound."""
    with pytest.raises(ConfigError, match="HOST:PORT"):
        make(listen="unix:/run/telemetry.sock")


def test_stop_before_start_does_nothing() -> None:
    """Whoever failed to start may still stop."""
    make().stop()


class Peer:
    """A connection that gives `pieces`, each `step_s` seconds after the one before."""

    def __init__(self, pieces: list[bytes], step_s: float = 0.0) -> None:
        self.now_s = 0.0
        self._pieces = list(pieces)
        self._step_s = step_s
        self._timeout_s = 0.0

    def settimeout(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def recv(self, limit: int) -> bytes:
        if self._step_s > self._timeout_s:
            raise TimeoutError
        self.now_s += self._step_s
        return self._pieces.pop(0)[:limit] if self._pieces else b""

    def read(self) -> bytes:
        return read_head(self, clock=lambda: self.now_s)  # type: ignore[arg-type]


def test_a_head_in_pieces_is_put_together() -> None:
    """A head may come in any pieces and ends with its empty line."""
    assert Peer([b"GET / HT", b"TP/1.0\r\n", b"\r\n"]).read() == b"GET / HTTP/1.0\r\n\r\n"


def test_a_head_that_drips_runs_into_the_deadline() -> None:
    """One byte a second resets no clock: the deadline is for the head as a whole."""
    peer = Peer([b"x"] * 1000, step_s=1.0)
    with pytest.raises(TimeoutError):
        peer.read()
    assert peer.now_s <= REQUEST_DEADLINE_S


def test_a_head_without_end_is_bounded() -> None:
    """A peer that sends without end fills no memory."""
    assert len(Peer([b"x" * 4096] * 1000).read()) <= MAX_HEAD_BYTES + 4096
