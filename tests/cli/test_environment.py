"""Settings from the environment alone: Healert's names, ours over theirs, and what is refused."""

from typing import Any

import pytest

from forwarder.cli.environment import VARIABLES, Environment, backend_document, data_dir, receive_document
from forwarder.errors import ConfigError

HOME = {"FORWARDER_DATA_DIR": "/data"}


def receive(**environ: str) -> dict[str, Any]:
    return dict(receive_document(HOME | environ)[0].data)


def backend(**environ: str) -> dict[str, Any]:
    return dict(backend_document(environ)[0].data["backend"])


def test_healerts_agent_starts_from_its_own_names() -> None:
    """Every name of Healert's agent lands in the setting that means the same."""
    data = receive(
        HEALERT_BACKEND_URL="http://backend:8000",
        HEALERT_API_KEY="key",
        AUDIT_LOG_PATH="/var/log/audit.log",
        RULES_PATH="/etc/rules.yaml",
        ENTITY_NAMESPACE="platform",
        K8S_NAMESPACE="healert",
    )
    assert data["sinks"] == {"backend": {"url": "http://backend:8000", "api_key": "key"}}
    assert list(data["sources"]) == ["file"]
    assert data["sources"]["file"]["path"] == "/var/log/audit.log"
    assert data["detection"] == {
        "rules": ["/etc/rules.yaml"],
        "entity_namespace": "platform",
        "own_namespace": "healert",
    }


def test_an_agent_without_a_log_tails_healerts_default_and_says_so() -> None:
    """Healert's agent finds k3s' log by itself; ours does the same, aloud."""
    document, notices = receive_document(HOME | {"RULES_PATH": "/etc/rules.yaml"})
    assert document.data["sources"]["file"]["path"] == "/var/log/k3s-audit.log"
    assert any("AUDIT_LOG_PATH is not set" in notice for notice in notices)


def test_an_empty_environment_receives_on_loopback() -> None:
    """Without any name there is a Forward listener on loopback and a backend on this machine."""
    data = receive()
    assert data["sources"] == {"forward": {"listen": "127.0.0.1:24224"}}
    assert data["sinks"]["backend"]["url"] == "http://localhost:8000"


def test_a_shared_key_opens_the_forward_door_beside_the_file() -> None:
    """FORWARD_SHARED_KEY means that Fluent Bit is expected too."""
    data = receive(FORWARD_SHARED_KEY="secret", AUDIT_LOG_PATH="/a.log")
    assert data["sources"]["forward"]["shared_key"] == "secret"
    assert data["sources"]["file"]["path"] == "/a.log"


def test_ours_wins_where_both_are_set() -> None:
    """A name of ours beats the one it replaces, for every setting that has both."""
    both = [variable for variable in VARIABLES if variable.older and "," not in variable.older]
    assert len(both) >= 9
    for variable in both:
        env = Environment("backend", {variable.name: "/ours", variable.older: "/theirs"})
        assert env.text(variable.name) == "/ours"
        assert Environment("backend", {variable.older: "/theirs"}).text(variable.name) == "/theirs"


@pytest.mark.parametrize("path", ["audit.log", "./audit.log", "/var/log/../../etc/shadow"])
@pytest.mark.parametrize("name", ["AUDIT_LOG_PATH", "RULES_PATH"])
def test_a_path_that_depends_or_climbs_is_refused(name: str, path: str) -> None:
    """Paths from the environment are absolute and free of `..`; the message names the variable."""
    with pytest.raises(ConfigError, match=f"environment variable {name}.*(absolute|`..`)"):
        receive(**{name: path})


def test_the_backends_names() -> None:
    """Every name of Healert's backend lands in the setting that means the same, as a number where it is one."""
    assert backend(
        HEALERT_HOST="0.0.0.0",
        HEALERT_PORT="8001",
        HEALERT_DB="/data/healert.db",
        HEALERT_API_KEY="key",
        HEALERT_ALLOWED_ORIGINS="http://a, http://b",
        HEALERT_RETENTION_DAYS="90",
        SCORE_CRITICAL_THRESHOLD="20",
        SCORE_DECAY_HALF_LIFE="3.5",
        SCORE_RETENTION_DAYS="14",
    ) == {
        "listen": "0.0.0.0:8001",
        "database": "/data/healert.db",
        "api_key": "key",
        "allowed_origins": ["http://a", "http://b"],
        "retention_days": 90,
        "threshold": 20.0,
        "half_life_days": 3.5,
        "score_retention_days": 14,
    }


@pytest.mark.parametrize(
    ("environ", "listen"),
    [
        ({"HEALERT_PORT": "9"}, "127.0.0.1:9"),
        ({"HEALERT_HOST": "::1"}, "[::1]:8000"),
        ({"HEALERT_HOST": "10.0.0.1", "FORWARDER_BACKEND_LISTEN": "127.0.0.1:7"}, "127.0.0.1:7"),
    ],
)
def test_host_and_port_are_one_address(environ: dict[str, str], listen: str) -> None:
    """HEALERT_HOST and HEALERT_PORT each have Healert's default where only the other is set."""
    assert backend(**environ)["listen"] == listen


def test_who_may_read() -> None:
    """A container without a settings file can be opened for reading, and stand behind a proxy."""
    made = backend(FORWARDER_ANONYMOUS_READS="True", FORWARDER_TRUSTED_PROXIES="10.0.0.7, fd00::/8")
    assert made == {"anonymous_reads": True, "trusted_proxies": ["10.0.0.7", "fd00::/8"]}
    assert backend(FORWARDER_ANONYMOUS_READS="false") == {"anonymous_reads": False}
    with pytest.raises(ConfigError, match=r"FORWARDER_ANONYMOUS_READS.*neither true nor false"):
        backend(FORWARDER_ANONYMOUS_READS="maybe")


def test_a_database_url_is_no_path() -> None:
    """A URL passes; a relative SQLite file does not."""
    assert backend(HEALERT_DB="postgresql://host/name")["database"] == "postgresql://host/name"
    with pytest.raises(ConfigError, match=r"HEALERT_DB.*absolute"):
        backend(HEALERT_DB="./healert.db")


def test_a_number_that_is_none_is_named_by_its_variable() -> None:
    """The message carries the variable that the person set, not our name for it."""
    with pytest.raises(ConfigError, match="environment variable SCORE_CRITICAL_THRESHOLD: 'many' is no number"):
        backend(SCORE_CRITICAL_THRESHOLD="many")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("HEALERT_BACKEND_DIR", "/opt/healert", "FORWARDER_DATA_DIR"),
        ("FORWARDER_CLUSTRE", "x", "did you mean `FORWARDER_CLUSTER`"),
    ],
)
def test_a_name_without_meaning_gets_one_line(name: str, value: str, said: str) -> None:
    """A dead or misspelt name starts all the same and says what to do instead."""
    notices = receive_document(HOME | {name: value})[1]
    assert [notice for notice in notices if name in notice and said in notice]
    assert len(notices) == 1


def test_up_says_that_it_brings_its_own_backend() -> None:
    """HEALERT_BACKEND_URL cannot redirect `up`, and is not silently ignored."""
    notices = Environment("up", {"HEALERT_BACKEND_URL": "http://elsewhere"}).notices
    assert len(notices) == 1
    assert "`receive`" in notices[0]


def test_a_secret_comes_from_a_file(tmp_path: Any) -> None:
    """NAME_FILE is read; both at once are refused, and no value stands in the message."""
    (tmp_path / "key").write_text("s3cret\n")
    file = str(tmp_path / "key")
    assert receive(HEALERT_API_KEY_FILE=file)["sinks"]["backend"]["api_key"] == "s3cret"
    with pytest.raises(ConfigError, match="HEALERT_API_KEY and HEALERT_API_KEY_FILE") as caught:
        receive(HEALERT_API_KEY="s3cret", HEALERT_API_KEY_FILE=file)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "given", "folder"),
    [
        ({"XDG_STATE_HOME": "/state"}, None, "/state/forwarder"),
        ({"XDG_STATE_HOME": "/state", "FORWARDER_DATA_DIR": "/data"}, None, "/data"),
        ({"FORWARDER_DATA_DIR": "/data"}, "/given", "/given"),
    ],
)
def test_the_data_folder(environ: dict[str, str], given: str | None, folder: str) -> None:
    """The option wins over FORWARDER_DATA_DIR, that over XDG_STATE_HOME."""
    assert str(data_dir(environ, given)) == folder


SLACK = {"SLACK_TOKEN": "xoxb-1", "CHANNEL_ID": "C1"}


def test_an_audit_to_slack_webhook_starts_from_its_two_names() -> None:
    """Its port and path, every audit event; nobody is let in from outside without a password."""
    document, notices = receive_document(HOME | SLACK)
    assert document.data["sources"] == {"webhook": {"listen": "127.0.0.1:8080", "paths": ["/auditLogs"]}}
    assert document.data["sinks"] == {"slack": {"token": "xoxb-1", "channel": "C1", "stream": "audit"}}
    assert document.data["detection"]["rules"] == []
    assert "set FORWARDER_WEBHOOK_USER" in " ".join(notices)


def test_with_the_users_password_its_port_is_open() -> None:
    """As in kube-apiserver's webhook kubeconfig; one without the other is refused."""
    webhook = receive(**SLACK, FORWARDER_WEBHOOK_USER="api", FORWARDER_WEBHOOK_PASSWORD="pw")["sources"]["webhook"]
    assert webhook == {"listen": "0.0.0.0:8080", "paths": ["/auditLogs"], "users": {"api": "pw"}}
    with pytest.raises(ConfigError, match="go together"):
        receive(**SLACK, FORWARDER_WEBHOOK_USER="api")


def test_beside_a_backend_slack_is_told_about_friction() -> None:
    """Where there is anything else to do than to pass audit events on."""
    data = receive(**SLACK, HEALERT_BACKEND_URL="http://backend:8000")
    assert data["sinks"]["slack"] == {"token": "xoxb-1", "channel": "C1"}
    assert set(data["sinks"]) == {"backend", "slack"}
    assert list(data["sources"]) == ["file"]


def test_a_token_without_a_channel_is_refused() -> None:
    """It says what to set."""
    with pytest.raises(ConfigError, match="set CHANNEL_ID"):
        receive(SLACK_TOKEN="xoxb-1")
