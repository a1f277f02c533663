"""Settings: three ways to give each, one precedence, and errors that name where a value came from."""

from typing import Any

import pytest

from forwarder.errors import ConfigError
from forwarder.settings import parse_document
from forwarder.sidecar.settings import OPTIONS, SidecarSettings, load_settings, parse_seconds

THEIRS = {
    "kubecfg": "~/.kube/config",
    "namespace": "kube-system",
    "service-name": "kubernetes-audit-tailer",
    "secret-name": "audittailer-client",
    "audit-log-path": "/auditlog/audit.log",
    "mem-buf-limit": "200M",
    "tls-basedir": "/fluent-bit/etc/ssl",
    "tls-ca-file": "ca.crt",
    "tls-crt-file": "audittailer-client.crt",
    "tls-key-file": "audittailer-client.key",
    "tls-vhost": "kubernetes-audit-tailer",
    "backoff-timer": "10s",
    "log-level": "info",
    "fluent-log-level": "info",
    "konnectivity-uds-socket": "",
    "proxy-host": "",
    "proxy-port": "9443",
    "proxy-ca-file": "/proxy/ca/ca.crt",
    "proxy-client-crt-file": "/proxy/client/tls.crt",
    "proxy-client-key-file": "/proxy/client/tls.key",
}


def load(flags: dict[str, Any] | None = None, environ: dict[str, str] | None = None, text: str = "") -> SidecarSettings:
    document = parse_document(text, "config.yaml") if text else None
    return load_settings(flags or {}, environ or {}, document)[0]


def test_the_names_and_defaults_of_audit_forwarder_hold() -> None:
    """Every flag of the program that this replaces is here with its default, and its variable is AUDIT_ and capitals."""
    ours = {option.name: option.default for option in OPTIONS}
    assert {name: ours[name] for name in THEIRS} == THEIRS
    assert "check-schedule" in ours
    assert {option.variable for option in OPTIONS} >= {"AUDIT_KUBECFG", "AUDIT_KONNECTIVITY_UDS_SOCKET"}


def test_a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default() -> None:
    """So that a manifest can override an image, and a person a manifest."""
    text = "namespace: from-file\nservice-name: from-file\nproxy-port: 1\n"
    environ = {"AUDIT_SERVICE_NAME": "from-environment", "AUDIT_PROXY_PORT": "2"}
    loaded = load({"proxy-port": 3, "namespace": None}, environ, text)
    assert (loaded.namespace, loaded.service_name, loaded.proxy_port) == ("from-file", "from-environment", 3)
    assert loaded.tls_vhost == "kubernetes-audit-tailer"


@pytest.mark.parametrize(
    ("flags", "environ", "text", "said"),
    [
        pytest.param({}, {}, "servce-name: x", "config.yaml:1: unknown key `servce-name`; did you mean", id="unknown"),
        pytest.param({}, {"AUDIT_PROXY_PORT": "x"}, "", "AUDIT_PROXY_PORT.*whole number", id="number"),
        pytest.param({}, {"AUDIT_PROXY_PORT": "70000"}, "", "AUDIT_PROXY_PORT: expected a port", id="port"),
        pytest.param({"backoff-timer": "soon"}, {}, "", "--backoff-timer: 'soon' is no duration", id="duration"),
        pytest.param({}, {"AUDIT_MEM_BUF_LIMIT": "much"}, "", "AUDIT_MEM_BUF_LIMIT: 'much' is no size", id="size"),
        pytest.param({}, {"AUDIT_LOG_LEVEL": "loud"}, "", "AUDIT_LOG_LEVEL: 'loud' is no log level", id="log-level"),
        pytest.param({"tls-key-file": "../x"}, {}, "", "--tls-key-file: expected the name of a file", id="traversal"),
        pytest.param({"state-dir": "/a/../b"}, {}, "", "--state-dir.*absolute path without", id="dots"),
        pytest.param({"audit-log-path": "a.log"}, {}, "", "--audit-log-path.*absolute path", id="relative"),
        pytest.param({"audit-log-path": "/a${HOME}"}, {}, "", "cannot stand here", id="variable"),
        pytest.param({"tls-vhost": "a b"}, {}, "", "expected a host name", id="host"),
        pytest.param({"namespace": ""}, {}, "", "--namespace: it must not be empty", id="empty"),
        pytest.param({"fluent-log-level": "loud"}, {}, "", "fluent-log-level", id="level"),
        pytest.param(
            {"proxy-host": "p"}, {"AUDIT_KONNECTIVITY_UDS_SOCKET": "/s"}, "",
            "AUDIT_KONNECTIVITY_UDS_SOCKET and --proxy-host: .*exclude each other", id="both-ways",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_where_it_came_from(
    flags: dict[str, Any], environ: dict[str, str], text: str, said: str
) -> None:
    """A flag, a variable or a line of the file."""
    with pytest.raises(ConfigError, match=said):
        load(flags, environ, text)


def test_a_name_without_meaning_gets_one_line() -> None:
    """It is accepted, so that an old manifest starts."""
    _, notices = load_settings({}, {"AUDIT_CHECK_SCHEDULE": "*/1 * * * *"}, None)
    assert notices == ["AUDIT_CHECK_SCHEDULE: the cluster is watched, so there is no schedule any more; remove it"]


def test_an_empty_secret_name_can_be_said_in_the_environment() -> None:
    """The one setting whose empty value means something else than its default."""
    assert load({}, {"AUDIT_SECRET_NAME": ""}).secret_name == ""
    assert load({}, {"AUDIT_NAMESPACE": ""}).namespace == "kube-system"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/auditlog/audit.log", "/auditlog/audit.log,/auditlog/audit-[0-9]*T*.log"),
        ("/var/log/k3s-audit*.log", "/var/log/k3s-audit*.log"),
    ],
)
def test_rotated_files_are_found_beside_the_log(path: str, found: str) -> None:
    """As kube-apiserver names them; the operator's own glob is left alone."""
    assert load({"audit-log-path": path}).log_paths == found


@pytest.mark.parametrize(("text", "chunks"), [("200M", 102), ("1GiB", 524), ("1M", 8)])
def test_the_memory_limit_becomes_a_number_of_chunks(text: str, chunks: int) -> None:
    """Chunks have at most 2 MB; a few are needed to work at all."""
    assert load({"mem-buf-limit": text}).max_chunks == chunks


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("1m30s", 90), ("500ms", 0.5), ("1h", 3600)])
def test_durations_as_go_writes_them(text: str, seconds: float) -> None:
    """The replaced program is written in Go."""
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "0s", "2h", "s", "1s2", "-1s"])
def test_what_is_no_duration(text: str) -> None:
    """No unit, nothing, or longer than anybody means."""
    with pytest.raises(ConfigError):
        parse_seconds(text)
