"""Settings of the sidecar, by the names that audit-forwarder gave them: flags, AUDIT_* variables and the keys of a YAML file.

    kubecfg: /etc/audit-forwarder/kubeconfig
    namespace: kube-system
    service-name: kubernetes-audit-tailer
    konnectivity-uds-socket: /konnectivity/konnectivity-server.socket

One name serves all three ways: `--tls-vhost`, `AUDIT_TLS_VHOST` and `tls-vhost:`. A flag wins over the environment, the
environment over the file, the file over the default.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from forwarder.errors import ConfigError
from forwarder.logs import LEVELS
from forwarder.settings import Document, convert, expand, nearest, parse_address, parse_bytes

PREFIX = "AUDIT_"
DEFAULT_FILE = "/etc/audit-forwarder/config.yaml"
CHUNK_BYTES = 2_048_000  # Fluent Bit's soft limit of one chunk; its limits on the input count chunks, not bytes
MIN_CHUNKS = 8  # below it reading stops and starts with every flush
WITHOUT_MEANING = {
    "check-schedule": "the cluster is watched, so there is no schedule any more; remove it",
}

LOG_LEVELS = (*LEVELS, "warn")
FluentLevel = Literal["off", "error", "warn", "info", "debug", "trace"]


class SidecarSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """Every field is a flag. Durations are text such as `10s`; sizes such as `200M`."""

    kubecfg: str = "~/.kube/config"
    namespace: str = "kube-system"
    service_name: str = "kubernetes-audit-tailer"
    service_port: str = ""
    secret_name: str = "audittailer-client"  # noqa: S105 - the name of one
    audit_log_path: str = "/auditlog/audit.log"
    mem_buf_limit: str = "200M"
    tls_basedir: str = "/fluent-bit/etc/ssl"
    tls_ca_file: str = "ca.crt"
    tls_crt_file: str = "audittailer-client.crt"
    tls_key_file: str = "audittailer-client.key"
    tls_vhost: str = "kubernetes-audit-tailer"
    check_schedule: str = ""
    backoff_timer: str = "10s"
    log_level: str = "info"
    log_format: Literal["text", "json"] = "text"
    fluent_log_level: FluentLevel = "info"
    konnectivity_uds_socket: str = ""
    proxy_host: str = ""
    proxy_port: int = 9443
    proxy_ca_file: str = "/proxy/ca/ca.crt"
    proxy_client_crt_file: str = "/proxy/client/tls.crt"
    proxy_client_key_file: str = "/proxy/client/tls.key"
    additional_dir: str = "/fluent-bit/etc/add"
    state_dir: str = "/fluent-bit/state"
    run_dir: str = "/run/forwarder"
    fluent_bit: str = "fluent-bit"
    shared_key_file: str = ""
    relay_port: int = 0
    telemetry_listen: str = "127.0.0.1:9000"
    telemetry_token_file: str = ""
    telemetry_allow_anonymous: bool = False

    @property
    def backoff_s(self) -> float:
        return parse_seconds(self.backoff_timer, where="backoff-timer")

    @property
    def max_chunks(self) -> int:
        """How many chunks may be held at once: `mem-buf-limit` in chunks of the largest size."""
        return max(MIN_CHUNKS, parse_bytes(self.mem_buf_limit, where="mem-buf-limit") // CHUNK_BYTES)

    @property
    def log_paths(self) -> str:
        """The log and what kube-apiserver renames it to, for the tail input; a path with a `*` is taken as it is."""
        path = Path(self.audit_log_path)
        if "*" in self.audit_log_path:
            return self.audit_log_path
        return f"{path},{path.with_name(f'{path.stem}-[0-9]*T*{path.suffix}')}"


class Option(msgspec.Struct, frozen=True):
    """One row of the table: `name` is the flag without its dashes; `default` is text."""

    name: str
    default: str
    meaning: str

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper().replace("-", "_")


_MEANINGS: dict[str, str] = {
    "kubecfg": "kubeconfig of the cluster that the receiver runs in; read again when it changes",
    "namespace": "namespace of the Service and the Secret",
    "service-name": "the receiver's Service",
    "service-port": "name or number of its port, where it has several",
    "secret-name": 'Secret with CA, client certificate and key; "" sends in the clear',
    "audit-log-path": "the audit log; what it is rotated to is found beside it",
    "mem-buf-limit": "how much is held beside the log while the receiver is away; beyond it reading waits",
    "tls-basedir": "folder that the certificates are written to, a tmpfs at best",
    "tls-ca-file": "CA: key in the Secret, and file in the folder",
    "tls-crt-file": "client certificate, likewise",
    "tls-key-file": "its key, likewise",
    "tls-vhost": "name that the receiver's certificate must carry",
    "check-schedule": "no meaning any more: the cluster is watched",
    "backoff-timer": "longest wait before something that failed is tried again",
    "log-level": "debug, info, warning or error",
    "log-format": "text or json",
    "fluent-log-level": "the same for Fluent Bit: off, error, warn, info, debug, trace",
    "konnectivity-uds-socket": "Unix socket of konnectivity, where the Service cannot be reached directly",
    "proxy-host": "or the host of a proxy that takes HTTP CONNECT over mutual TLS",
    "proxy-port": "its port",
    "proxy-ca-file": "CA of the proxy's certificate",
    "proxy-client-crt-file": "client certificate for the proxy",
    "proxy-client-key-file": "its key",
    "additional-dir": "folder with further outputs for Fluent Bit, `*.yaml`",
    "state-dir": "folder for positions and waiting lines; a volume that outlives the container",
    "run-dir": "folder for the configuration made for Fluent Bit; a tmpfs at best",
    "fluent-bit": "the program",
    "shared-key-file": "file with the shared key of the receiver, where it asks for one",
    "relay-port": "loopback port between Fluent Bit and the relay; 0 is any free one",
    "telemetry-listen": '/metrics, /healthz, /readyz; "" is nowhere',
    "telemetry-token-file": "file with the bearer token for /metrics, needed off loopback",
    "telemetry-allow-anonymous": "/metrics for everybody who reaches it",
}

OPTIONS: tuple[Option, ...] = tuple(
    Option(field.encode_name, str(field.default).lower() if field.type is bool else str(field.default),
           _MEANINGS[field.encode_name])
    for field in msgspec.structs.fields(SidecarSettings)
)  # fmt: skip


def load_settings(
    flags: Mapping[str, Any], environ: Mapping[str, str], document: Document | None
) -> tuple[SidecarSettings, list[str]]:
    """The settings, and a line about each that has no meaning any more. flags: by option name, None where not given.

    Raises ConfigError for what cannot be used: unknown keys, two ways through, a level that does not exist.
    """
    found: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if document is not None:
        data = expand(document, environ).data or {}
        if not isinstance(data, dict):
            raise ConfigError("expected a mapping of settings", where=document.file)
        found.update(data)
        origin = {name: document.where((name,)) for name in data}
    for option in OPTIONS:
        text = environ.get(option.variable, "")
        if text or (option.name == "secret-name" and option.variable in environ):
            found[option.name], origin[option.name] = text, option.variable
        given = flags.get(option.name)
        if given is not None:
            found[option.name], origin[option.name] = given, f"--{option.name}"
    settings = _typed(found, origin)
    _check(settings, origin)
    return settings, [f"{origin[name]}: {text}" for name, text in WITHOUT_MEANING.items() if found.get(name)]


def _typed(found: Mapping[str, Any], origin: Mapping[str, str]) -> SidecarSettings:
    """One setting after the other, so that an error names where that one came from."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(SidecarSettings)}
    plain: dict[str, Any] = {}
    for name, value in found.items():
        if name not in fields:
            raise ConfigError(f"unknown key `{name}`{nearest(name, list(fields))}", where=origin[name])
        if isinstance(value, str) and fields[name].type is int and re.fullmatch(r"[0-9]{1,9}", value):
            value = int(value)  # noqa: PLW2901 - the environment knows only text
        if isinstance(value, str) and fields[name].type is bool:
            value = {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), value)  # noqa: PLW2901
        if isinstance(value, int) and not isinstance(value, bool) and fields[name].type is str:
            value = str(value)  # noqa: PLW2901 - `service-port: 24224`
        convert(Document(origin[name], {name: value}, {}), SidecarSettings)
        plain[name] = value
    return msgspec.convert(plain, SidecarSettings)


def _check(settings: SidecarSettings, origin: Mapping[str, str]) -> None:
    """What one setting alone does not show."""
    if settings.konnectivity_uds_socket and settings.proxy_host:
        raise ConfigError(
            "the Unix socket and the proxy exclude each other; choose one",
            where=f"{origin['konnectivity-uds-socket']} and {origin['proxy-host']}",
        )
    for name in ("namespace", "service-name", "audit-log-path", "tls-basedir", "state-dir", "run-dir"):
        if not getattr(settings, name.replace("-", "_")):
            raise ConfigError("it must not be empty", where=origin.get(name, name))
    for name in ("tls-ca-file", "tls-crt-file", "tls-key-file"):
        # They are names inside a folder that we write to: `../../etc/cron.d/x` would write elsewhere.
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", getattr(settings, name.replace("-", "_"))):
            raise ConfigError("expected the name of a file, without a folder", where=origin.get(name, name))
    for name in ("audit-log-path", "additional-dir", "state-dir", "run-dir", "tls-basedir"):
        text = getattr(settings, name.replace("-", "_"))
        if text and (not os.path.isabs(text) or ".." in Path(text).parts):
            raise ConfigError(f"{text!r}: expected an absolute path without `..`", where=origin.get(name, name))
        if re.search(r"[\x00-\x1f\x7f\"\\$]", text):  # these paths become text in Fluent Bit's configuration
            raise ConfigError(
                "control characters, quotes, `$` and `\\` cannot stand here", where=origin.get(name, name)
            )
    for name in ("relay-port", "proxy-port"):
        if not 0 <= getattr(settings, name.replace("-", "_")) <= 65535:
            raise ConfigError("expected a port, 0 to 65535", where=origin.get(name, name))
    if re.search(r"[^A-Za-z0-9._:-]", settings.tls_vhost):
        raise ConfigError("expected a host name", where=origin.get("tls-vhost", "tls-vhost"))
    if settings.telemetry_listen:
        parse_address(settings.telemetry_listen, where=origin.get("telemetry-listen", "telemetry-listen"))
    parse_seconds(settings.backoff_timer, where=origin.get("backoff-timer", "backoff-timer"))
    parse_bytes(settings.mem_buf_limit, where=origin.get("mem-buf-limit", "mem-buf-limit"))
    if settings.log_level.lower() not in LOG_LEVELS:
        raise ConfigError(
            f"{settings.log_level!r} is no log level; valid: {', '.join(LEVELS)}",
            where=origin.get("log-level", "log-level"),
        )


def parse_seconds(text: str, *, where: str = "") -> float:
    """`10s`, `1m30s`, `500ms` as seconds, above 0 and at most an hour."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", text)
    seconds = sum(float(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text.strip() or not 0 < seconds <= 3600:
        raise ConfigError(f"{text!r} is no duration; write for example 10s or 1m", where=where)
    return seconds
