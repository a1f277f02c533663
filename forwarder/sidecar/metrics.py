"""The sidecar's metrics in one table, and what Fluent Bit says about itself beside them.

The documentation's table is made from this one. Fluent Bit's own families (`fluentbit_…`) follow ours in /metrics as it
wrote them, so that its retries, drops and waiting chunks are seen where the sidecar is.
"""

import http.client
import logging

import msgspec

from forwarder.telemetry import Metric

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 4 << 20  # its metrics are 30 kB; with a hundred added outputs not a tenth of this
ANSWER_TIMEOUT_S = 2.0  # a probe of ours must not wait longer than the kubelet's own time-outs

SIDECAR_METRICS: tuple[Metric, ...] = (
    Metric("forwarder_relay_connections", "gauge", "Open connections between Fluent Bit and the receiver."),
    Metric("forwarder_relay_dials", "counter", "Attempts to reach the receiver, by how they ended.", ("result",)),
    Metric("forwarder_relay_bytes", "counter", "Bytes carried: up to the receiver, down to Fluent Bit.", ("direction",)),
    Metric("forwarder_target_known", "gauge", "1 while the receiver's Service is there and has the port."),
    Metric("forwarder_certificate_known", "gauge", "1 while usable certificates are in place."),
    Metric("forwarder_certificate_expires_seconds", "gauge", "Unix time at which the client certificate expires."),
    Metric("forwarder_certificate_rotations", "counter", "Times new certificates were put in place."),
    Metric("forwarder_watch_connected", "gauge", "1 while the apiserver's watch runs, by what is watched.", ("kind",)),
    Metric("forwarder_watch_failures", "counter", "Ended or refused requests to the apiserver.", ("kind", "cause")),
    Metric("forwarder_agent_up", "gauge", "1 while Fluent Bit runs and answers."),
    Metric("forwarder_agent_starts", "counter", "Times Fluent Bit was started, by why.", ("reason",)),
    Metric("forwarder_agent_reloads", "counter", "Hot reloads of Fluent Bit, by how they ended.", ("result",)),
    Metric("forwarder_agent_chunks", "gauge", "Chunks that wait in Fluent Bit, in memory and on disk.", ("where",)),
    Metric("forwarder_agent_log_lag_bytes", "gauge", "Bytes of the audit log that Fluent Bit has not read yet."),
    Metric("forwarder_info", "gauge", "Always 1; the version is in the label.", ("version",)),
)  # fmt: skip


class Agent:
    """Fluent Bit's HTTP port, on the loopback. Every method answers within ANSWER_TIMEOUT_S, None where nothing came."""

    def __init__(self, port: int) -> None:
        self.port = port

    def reloads(self) -> int | None:
        """How often it has loaded its configuration again since it started."""
        try:
            return int(msgspec.json.decode(self._get("/api/v2/reload") or b"", type=_Reload).hot_reload_count)
        except msgspec.DecodeError:
            return None

    def chunks(self) -> dict[str, int] | None:
        """Chunks that wait: `memory` and `disk` (not loaded)."""
        try:
            layer = msgspec.json.decode(self._get("/api/v1/storage") or b"", type=_Storage).storage_layer.chunks
        except msgspec.DecodeError:
            return None
        return {"memory": layer.mem_chunks + layer.fs_chunks_up, "disk": layer.fs_chunks_down}

    def metrics(self) -> bytes:
        """Its own families; nothing while it does not answer."""
        return self._get("/api/v2/metrics/prometheus") or b""

    def _get(self, path: str) -> bytes | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER_BYTES)
            return body if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


class _Reload(msgspec.Struct):
    hot_reload_count: int


class _Chunks(msgspec.Struct):
    mem_chunks: int = 0
    fs_chunks_up: int = 0
    fs_chunks_down: int = 0


class _Layer(msgspec.Struct):
    chunks: _Chunks


class _Storage(msgspec.Struct):
    storage_layer: _Layer
