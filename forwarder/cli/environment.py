"""Starting from the environment alone: names of our own, and those of Healert's agent and backend, which this replaces.

    HEALERT_BACKEND_URL=http://backend:8000 AUDIT_LOG_PATH=/var/log/k3s-audit.log RULES_PATH=/etc/rules.yaml forwarder receive

A name becomes a setting of the document that a settings file would have been; where two names of one setting are set,
ours wins. Paths must be absolute and free of `..`: an environment outlives the folder it was written in, and it often
comes from a manifest that more people can write than the files it points at.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec

from forwarder.cli import environment_doors as doors
from forwarder.errors import ConfigError
from forwarder.settings import Document, nearest

Command = Literal["up", "receive", "backend"]

HEALERT_AUDIT_LOG = "/var/log/k3s-audit.log"  # where Healert's agent looks when it is not told
LOCAL_BACKEND = "http://localhost:8000"
DEFAULT_FORWARD_LISTEN = "127.0.0.1:24224"
DEFAULT_TELEMETRY_LISTEN = "127.0.0.1:9000"
PREFIX = "FORWARDER_"


class Variable(msgspec.Struct, frozen=True):
    """One setting: our name, the name it had before, the commands that read it, and what it means."""

    name: str
    older: str
    commands: tuple[Command, ...]
    meaning: str


_RUN: tuple[Command, ...] = ("up", "receive")
_ALL: tuple[Command, ...] = ("up", "receive", "backend")
_BACKEND: tuple[Command, ...] = ("up", "backend")

VARIABLES: tuple[Variable, ...] = (
    Variable("FORWARDER_CLUSTER", "", _RUN, "the cluster's name in every event"),
    Variable(
        "FORWARDER_AUDIT_LOG", "AUDIT_LOG_PATH", _RUN, f"audit log to tail; Healert's default {HEALERT_AUDIT_LOG}"
    ),
    Variable("FORWARDER_RULES", "RULES_PATH", _RUN, "rules file or folder; several with `:` between them"),
    Variable("FORWARDER_ENTITY_NAMESPACE", "ENTITY_NAMESPACE", _RUN, "namespace for cluster-scoped objects; `default`"),
    Variable("FORWARDER_OWN_NAMESPACE", "K8S_NAMESPACE", _RUN, "own namespace, added to the ignored ones"),
    Variable("FORWARDER_FORWARD_LISTEN", "", _RUN, f"where Fluent Bit connects; {DEFAULT_FORWARD_LISTEN}"),
    Variable("FORWARD_SHARED_KEY", "", _RUN, "key that Fluent Bit must know"),
    Variable("FORWARDER_WEBHOOK_LISTEN", "", ("receive",), "where kube-apiserver posts its audit webhook; nowhere"),
    Variable("WEBHOOK_TOKEN", "", ("receive",), "bearer token that the webhook asks for"),
    Variable("FORWARDER_EVENT_HUB", "EHUBNAMESPACECONNECTIONSTRING", ("receive",), "connection string of Event Hubs"),
    Variable("FORWARDER_EVENT_HUB_NAME", "EVENTHUBNAME", ("receive",), "which event hub, unless EntityPath says it"),
    Variable("FORWARDER_FALCO_URL", "WEBSINKURL", ("receive",), "Falco's k8saudit endpoint, for the audit events"),
    Variable("FORWARDER_FALCO_MAX_RETRIES", "POSTMAXRETRIES", ("receive",), "tries of a post to Falco; 5"),
    Variable("FORWARDER_FALCO_RETRY_INCREMENT_MS", "POSTRETRYINCREMENTALDELAY", ("receive",), "ms added a try; 1000"),
    Variable("FORWARDER_FALCO_RATE_LIMIT", "RATELIMITEREVENTSPERSECONDS", ("receive",), "events/s to Falco; no limit"),
    Variable("FORWARDER_FALCO_BURST", "RATELIMITERBURST", ("receive",), "events at once after a pause; 50"),
    Variable("FORWARDER_FALCO_KEEP_ALIVE", "KEEPALIVE", ("receive",), "whether Falco's connection is kept; false"),
    Variable("FORWARDER_BACKEND_URL", "HEALERT_BACKEND_URL", ("receive",), f"backend to report to; {LOCAL_BACKEND}"),
    Variable("HEALERT_API_KEY", "", _ALL, "key between receiver and backend"),
    Variable(
        "SLACK_TOKEN", "", ("receive",), "bot token: Slack is told too; alone with the channel, of every audit event"
    ),
    Variable("FORWARDER_SLACK_CHANNEL", "CHANNEL_ID", ("receive",), "channel for it, an id or `#name`"),
    Variable("FORWARDER_WEBHOOK_USER", "", ("receive",), "user that kube-apiserver's webhook kubeconfig names"),
    Variable("FORWARDER_WEBHOOK_PASSWORD", "", ("receive",), "its password; opens :8080, which is on loopback without"),
    Variable("FORWARDER_DATA_DIR", "", _RUN, "folder for outbox, checkpoints and database; ~/.local/state/forwarder"),
    Variable("FORWARDER_TELEMETRY_LISTEN", "", _RUN, f"metrics and probes; {DEFAULT_TELEMETRY_LISTEN}"),
    Variable("FORWARDER_TELEMETRY_TOKEN", "", _RUN, "bearer token of /metrics, needed off loopback"),
    Variable(
        "FORWARDER_FEED_LISTEN", "", _RUN, "live feed for `forwarder watch`, on loopback; without it there is none"
    ),
    Variable("FORWARDER_BACKEND_LISTEN", "HEALERT_HOST, HEALERT_PORT", _BACKEND, "backend's address; 127.0.0.1:8000"),
    Variable("FORWARDER_DATABASE", "HEALERT_DB", _BACKEND, "SQLite file, or a database URL"),
    Variable("FORWARDER_ALLOWED_ORIGINS", "HEALERT_ALLOWED_ORIGINS", _BACKEND, "pages that may call the API, with `,`"),
    Variable("FORWARDER_ANONYMOUS_READS", "", _BACKEND, "true: reading needs no key; false: it does, on loopback too"),
    Variable("FORWARDER_TRUSTED_PROXIES", "", _BACKEND, "proxies whose X-Forwarded headers are believed, with `,`"),
    Variable("FORWARDER_RETENTION_DAYS", "HEALERT_RETENTION_DAYS", _BACKEND, "days after which events are deleted; 30"),
    Variable("FORWARDER_SCORE_THRESHOLD", "SCORE_CRITICAL_THRESHOLD", _BACKEND, "points that make a score of 100; 50"),
    Variable("FORWARDER_SCORE_HALF_LIFE_DAYS", "SCORE_DECAY_HALF_LIFE", _BACKEND, "days after which a point halves; 7"),
    Variable("FORWARDER_SCORE_RETENTION_DAYS", "SCORE_RETENTION_DAYS", _BACKEND, "days the score looks back; 30"),
    Variable("FORWARDER_LOG_LEVEL", "LOGLEVEL", _ALL, "debug, info, warning or error"),
    Variable("FORWARDER_LOG_FORMAT", "", _ALL, "text or json"),
)

SECRETS = (
    "HEALERT_API_KEY",
    "FORWARD_SHARED_KEY",
    "FORWARDER_TELEMETRY_TOKEN",
    "SLACK_TOKEN",
    "FORWARDER_WEBHOOK_PASSWORD",
    "WEBHOOK_TOKEN",
    "FORWARDER_EVENT_HUB",
)  # each also as NAME_FILE

WITHOUT_MEANING: dict[str, str] = {
    "HEALERT_BACKEND_DIR": "nothing is installed into folders any more; FORWARDER_DATA_DIR is where data is kept",
    "HEALERT_AGENT_DIR": "nothing is installed into folders any more; FORWARDER_DATA_DIR is where data is kept",
}


LEVELS = {"panic": "error", "fatal": "error", "warn": "warning", "trace": "debug"}  # of other programs


class Environment:
    """Reads the variables of one command; what has to be said about them collects in `notices`."""

    def __init__(self, command: Command, environ: Mapping[str, str]) -> None:
        self.command = command
        self.notices: list[str] = []
        self._environ = environ
        self._by_name = {variable.name: variable for variable in VARIABLES}
        self.notices += [
            f"{name} has no meaning here: {why}" for name, why in WITHOUT_MEANING.items() if environ.get(name)
        ]
        known = [*self._by_name, *(f"{name}_FILE" for name in SECRETS), "FORWARDER_CONFIG"]
        for name in sorted(environ):
            if name.startswith(PREFIX) and name not in known:
                self.notices.append(f"{name} is not known{nearest(name, known)}")
        if command == "up" and environ.get("HEALERT_BACKEND_URL"):
            self.notices.append(
                "HEALERT_BACKEND_URL has no meaning here: `up` brings its own backend; `receive` reports to another"
            )

    def text(self, name: str) -> str:
        """The value of our name, else of its older one, else empty. Raises ConfigError where ours and NAME_FILE are set."""
        if name not in SECRETS:
            return self._found(name)[1]
        value, file = self._found(name)[1], self._environ.get(f"{name}_FILE", "")
        if value and file:
            raise ConfigError(f"{name} and {name}_FILE cannot both be set", where="environment")
        if file:
            from forwarder.settings import read_secret

            return read_secret(str(_checked_path(f"{name}_FILE", file)), where=f"environment variable {name}_FILE")
        return value

    def path(self, name: str) -> str:
        """The same as an absolute path. Raises ConfigError when it is relative or holds `..`."""
        origin, value = self._found(name)
        return str(_checked_path(origin, value)) if value else ""

    def number(self, name: str, kind: Callable[[str], float] = float) -> float | None:
        """The same as a number; None when it is not set."""
        origin, value = self._found(name)
        try:
            return kind(value) if value else None
        except ValueError:
            raise ConfigError(f"{value!r} is no number", where=f"environment variable {origin}") from None

    def flag(self, name: str) -> bool | None:
        """The same as true or false; None when it is not set."""
        origin, value = self._found(name)
        if value.lower() not in ("", "true", "false"):
            raise ConfigError(f"{value!r} is neither true nor false", where=f"environment variable {origin}")
        return None if not value else value.lower() == "true"

    def document(self, data: dict[str, Any]) -> Document:
        """`data` as if it had stood in a settings file."""
        return Document("environment", data, {})

    def _found(self, name: str) -> tuple[str, str]:
        older = self._by_name[name].older
        for origin in (name, older):
            if origin and self._environ.get(origin):
                return origin, self._environ[origin]
        return name, ""


def receive_document(environ: Mapping[str, str]) -> tuple[Document, list[str]]:
    """The settings of `receive` without a settings file, and what has to be said about them.

    Where only Healert's names are set, this is Healert's agent: it tails a log and opens no port of its own.
    """
    env = Environment("receive", environ)
    slack = _slack_sink(env)
    if slack and not any(environ.get(name) for name in _FRICTION):
        return _audit_to_slack(env, slack, environ)
    forward = env.text("FORWARDER_FORWARD_LISTEN")
    key = env.text("FORWARD_SHARED_KEY")
    audit_log = env.path("FORWARDER_AUDIT_LOG")
    agent = any(environ.get(name) for name in ("HEALERT_BACKEND_URL", "RULES_PATH", "AUDIT_LOG_PATH"))
    if not audit_log and agent and not forward and not key:
        audit_log = HEALERT_AUDIT_LOG
        env.notices.append(f"AUDIT_LOG_PATH is not set: tailing {HEALERT_AUDIT_LOG}, as Healert's agent does")
    sources: dict[str, Any] = {}
    if audit_log:
        sources["file"] = {"path": audit_log, "checkpoint": str(data_dir(environ) / "file.json")}
    if hub := doors.event_hub(env, environ):
        sources["kafka"] = hub
    if webhook := doors.webhook(env):
        sources["webhook"] = webhook
    if forward or key or not sources:
        sources["forward"] = {"listen": forward or DEFAULT_FORWARD_LISTEN} | ({"shared_key": key} if key else {})
    backend: dict[str, Any] = {"url": env.text("FORWARDER_BACKEND_URL") or LOCAL_BACKEND}
    if api_key := env.text("HEALERT_API_KEY"):
        backend["api_key"] = api_key
    sinks: dict[str, Any] = {}
    if falco := doors.falco(env):
        sinks["falco"] = falco
    if not sinks or env.text("FORWARDER_BACKEND_URL") or env.text("FORWARDER_RULES"):
        sinks["backend"] = backend
    if slack:
        sinks["slack"] = slack
    data = run_settings(env, data_dir(environ)) | {"sources": sources, "sinks": sinks}
    if set(sinks) == {"falco"}:
        data["detection"]["rules"] = []  # Event Hubs in, Falco out: nobody would be told of friction
    return env.document(data), env.notices


# Any of these says that there is more to do than to pass audit events on to Slack.
_FRICTION = (
    "FORWARDER_BACKEND_URL", "HEALERT_BACKEND_URL", "FORWARDER_AUDIT_LOG", "AUDIT_LOG_PATH", "FORWARDER_RULES", "RULES_PATH",
    "FORWARDER_FORWARD_LISTEN", "FORWARD_SHARED_KEY", "FORWARD_SHARED_KEY_FILE", "EHUBNAMESPACECONNECTIONSTRING",
    "FORWARDER_EVENT_HUB", "FORWARDER_EVENT_HUB_FILE", "FORWARDER_WEBHOOK_LISTEN", "WEBHOOK_TOKEN", "WEBHOOK_TOKEN_FILE",
)  # fmt: skip


def _slack_sink(env: Environment) -> dict[str, Any]:
    """Settings of the Slack sink; empty where there is no token. Raises ConfigError where the channel is missing."""
    token, channel = env.text("SLACK_TOKEN"), env.text("FORWARDER_SLACK_CHANNEL")
    if not token:
        return {}
    if not channel:
        raise ConfigError("SLACK_TOKEN is set, but no channel; set CHANNEL_ID", where="environment")
    return {"token": token, "channel": channel}


def _audit_to_slack(env: Environment, slack: dict[str, Any], environ: Mapping[str, str]) -> tuple[Document, list[str]]:
    """What an audit-to-Slack webhook backend did: audit events in over HTTP on :8080, each of them told to the channel."""
    user, password = env.text("FORWARDER_WEBHOOK_USER"), env.text("FORWARDER_WEBHOOK_PASSWORD")
    if bool(user) is not bool(password):
        raise ConfigError("FORWARDER_WEBHOOK_USER and FORWARDER_WEBHOOK_PASSWORD go together", where="environment")
    webhook: dict[str, Any] = {"listen": "127.0.0.1:8080", "paths": ["/auditLogs"]}
    if password:
        webhook |= {"listen": "0.0.0.0:8080", "users": {user: password}}
    else:
        env.notices.append(
            "the webhook listens on loopback alone, as anybody could invent events: set FORWARDER_WEBHOOK_USER and"
            " FORWARDER_WEBHOOK_PASSWORD to what kube-apiserver's webhook kubeconfig says, and it opens :8080"
        )
    data = run_settings(env, data_dir(environ))
    data["detection"]["rules"] = []  # nothing is looked for, so nothing has to be loaded
    return env.document(
        data | {"sources": {"webhook": webhook}, "sinks": {"slack": {**slack, "stream": "audit"}}}
    ), env.notices


def run_settings(env: Environment, folder: Path) -> dict[str, Any]:
    """What `up` and `receive` have in common: cluster, detection, outbox, telemetry, log."""
    from forwarder.settings import shipped

    rules = [str(_checked_path("RULES_PATH", part)) for part in env.text("FORWARDER_RULES").split(os.pathsep) if part]
    detection: dict[str, Any] = {"rules": rules or [str(shipped("rules/friction.yaml"))]}
    if entity_namespace := env.text("FORWARDER_ENTITY_NAMESPACE"):
        detection["entity_namespace"] = entity_namespace
    if own_namespace := env.text("FORWARDER_OWN_NAMESPACE"):
        detection["own_namespace"] = own_namespace
    telemetry = {"listen": env.text("FORWARDER_TELEMETRY_LISTEN") or DEFAULT_TELEMETRY_LISTEN}
    if token := env.text("FORWARDER_TELEMETRY_TOKEN"):
        telemetry["token"] = token
    settings: dict[str, Any] = {
        "detection": detection,
        "outbox": {"path": str(folder / "outbox.db")},
        "telemetry": telemetry,
    }
    if cluster := env.text("FORWARDER_CLUSTER"):
        settings["cluster"] = cluster
    if feed := env.text("FORWARDER_FEED_LISTEN"):
        settings["feed"] = {"listen": feed}
    if log := log_settings(env):
        settings["log"] = log
    return settings


def backend_document(environ: Mapping[str, str], command: Command = "backend") -> tuple[Document, list[str]]:
    """The settings of the backend under `backend`, and what has to be said about them."""
    env = Environment(command, environ)
    backend: dict[str, Any] = {}
    listen = env.text("FORWARDER_BACKEND_LISTEN")
    host, port = environ.get("HEALERT_HOST", ""), environ.get("HEALERT_PORT", "")
    if not listen and (host or port):
        listen = f"{f'[{host}]' if ':' in host else host or '127.0.0.1'}:{port or 8000}"
    database = env.text("FORWARDER_DATABASE")
    if database and "://" not in database:
        database = env.path("FORWARDER_DATABASE")
    texts = {"listen": listen, "database": database, "api_key": env.text("HEALERT_API_KEY")}
    backend |= {key: value for key, value in texts.items() if value}
    numbers = {
        "retention_days": env.number("FORWARDER_RETENTION_DAYS", int),
        "threshold": env.number("FORWARDER_SCORE_THRESHOLD"),
        "half_life_days": env.number("FORWARDER_SCORE_HALF_LIFE_DAYS"),
        "score_retention_days": env.number("FORWARDER_SCORE_RETENTION_DAYS", int),
    }
    backend |= {key: value for key, value in numbers.items() if value is not None}
    for key, name in (
        ("allowed_origins", "FORWARDER_ALLOWED_ORIGINS"),
        ("trusted_proxies", "FORWARDER_TRUSTED_PROXIES"),
    ):
        if listed := env.text(name):
            backend[key] = [part.strip() for part in listed.split(",") if part.strip()]
    if (reads := env.flag("FORWARDER_ANONYMOUS_READS")) is not None:
        backend["anonymous_reads"] = reads
    data: dict[str, Any] = {"backend": backend}
    if log := log_settings(env):
        data["log"] = log
    return env.document(data), env.notices


def log_settings(env: Environment) -> dict[str, str]:
    """The `log` section, as far as the environment has one."""
    level = env.text("FORWARDER_LOG_LEVEL").lower()
    pairs = {"level": LEVELS.get(level, level), "format": env.text("FORWARDER_LOG_FORMAT")}
    return {key: value for key, value in pairs.items() if value}


def data_dir(environ: Mapping[str, str], given: str | Path | None = None) -> Path:
    """Where outbox, checkpoints, database, pid file and log of this user live: `given`, FORWARDER_DATA_DIR, or XDG's."""
    if given:
        return Path(given).expanduser().absolute()
    if value := environ.get("FORWARDER_DATA_DIR"):
        return _checked_path("FORWARDER_DATA_DIR", value)
    state = environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path("~/.local/state").expanduser()  # XDG: ignore relative ones
    return base / "forwarder"


def _checked_path(name: str, value: str) -> Path:
    path = PurePosixPath(value)
    where = f"environment variable {name}"
    if not path.is_absolute():
        raise ConfigError(f"{value!r} must be an absolute path", where=where)
    if ".." in path.parts:
        raise ConfigError(f"{value!r} must not contain `..`", where=where)
    return Path(value)
