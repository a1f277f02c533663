"""The hand-written lists of sources and sinks, and the settings file as a whole.

    cluster: prod-eu-1
    sources:                      # name -> settings; `type` defaults to the name, so two of a kind are possible
      forward: {listen: 0.0.0.0:24224, shared_key: ${FORWARD_SHARED_KEY}}
    detection: {rules: [rules/friction.yaml]}
    outbox: {path: /var/lib/forwarder/outbox.db, max_bytes: 1GiB}
    sinks:
      backend: {url: http://backend:8000, api_key: ${HEALERT_API_KEY}}
    feed: {listen: 127.0.0.1:32767}
    telemetry: {listen: 127.0.0.1:9000}
    log: {level: info, format: text}

A new source or sink is one file, one line here and one section in docs/settings.md; a test asserts all three. Modules are
imported when they are named, so that `forwarder receive` carries no web framework.
"""

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from forwarder.alerts.alerter import AlertSettings
from forwarder.contracts import AuditSink, Screen, Sink, Source, StreamSettings
from forwarder.detection.actors import ROBOTS
from forwarder.detection.loader import load_selection
from forwarder.detection.rules import Rule
from forwarder.errors import ConfigError
from forwarder.events.redaction import RedactionSettings
from forwarder.feed.settings import FeedSettings
from forwarder.outbox import SinkInfo
from forwarder.settings import Document, convert, expand, nearest, parse_bytes, resolve_path, rooted, shipped
from forwarder.telemetry import Telemetry
from forwarder.wire.budget import ByteBudget

if TYPE_CHECKING:
    from forwarder.feed.server import Feed


class Entry(msgspec.Struct, frozen=True):
    """Where a component stands: its module, its class, the class of its settings, and the extra that it needs."""

    module: str
    component: str
    settings: str
    extra: str = ""

    def load(self) -> tuple[Any, type[Any]]:
        """Raises ConfigError when a library that it needs is not installed."""
        module = self.imported()
        return getattr(module, self.component), getattr(module, self.settings)

    def imported(self) -> Any:
        """Its module. Raises ConfigError as `load` does."""
        try:
            return importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if not self.extra or (error.name or "").startswith("forwarder"):
                raise
            raise ConfigError(
                f"{error.name} is not installed: pip install 'friction-forwarder[{self.extra}]'", where=self.module
            ) from None


SOURCES: dict[str, Entry] = {
    "forward": Entry("forwarder.sources.forward", "ForwardSource", "ForwardSettings"),
    "file": Entry("forwarder.sources.file", "FileSource", "FileSettings"),
    "kafka": Entry("forwarder.sources.kafka", "KafkaSource", "KafkaSourceSettings", extra="kafka"),
    "webhook": Entry("forwarder.sources.webhook", "WebhookSource", "WebhookSettings"),
}

SINKS: dict[str, Entry] = {
    "backend": Entry("forwarder.sinks.backend", "BackendSink", "BackendSinkSettings"),
    "kafka": Entry("forwarder.sinks.kafka", "KafkaSink", "KafkaSinkSettings", extra="kafka"),
    "stdout": Entry("forwarder.sinks.stdout", "StdoutSink", "StdoutSettings"),
    "slack": Entry("forwarder.sinks.slack", "SlackSink", "SlackSettings", extra="notify"),
    "notify": Entry("forwarder.sinks.notify", "NotifySink", "NotifySettings", extra="notify"),
    "falco": Entry("forwarder.sinks.falco", "FalcoSink", "FalcoSettings"),
    "forward": Entry("forwarder.sinks.forward", "ForwardSink", "ForwardSinkSettings"),
    "file": Entry("forwarder.sinks.file", "FileSink", "FileSinkSettings"),
    "falcosidekick": Entry("forwarder.sinks.falcosidekick", "FalcosidekickSink", "FalcosidekickSettings"),
}

NOT_OFF_THE_BACKEND = ("backend",)  # it would send its events to a backend again


class DetectionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """rules: files or folders, from the settings file's folder; the shipped rules/friction.yaml is the default.
    entity_namespace: where cluster-scoped objects stand in entity references. own_namespace: always ignored (K8S_NAMESPACE).
    robots: globs of usernames outside `system:` that are machines; the default knows EKS, AKS, GKE, Argo CD and Flux.
    reload_interval_s: how often the files are looked at for changes, seconds; 0 is never (SIGHUP still works).
    """

    rules: list[str] = msgspec.field(default_factory=lambda: ["rules/friction.yaml"])
    entity_namespace: str = "default"
    own_namespace: str = ""
    robots: list[str] = msgspec.field(default_factory=lambda: list(ROBOTS))
    reload_interval_s: float = 2.0


class OutboxSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """path: the SQLite file; its folder must be on a disk that survives restarts. max_bytes: beyond it nothing more is
    accepted and senders wait (about 1 kB an event that some sink has yet to take). max_waiting_events: per sink.
    keep_payloads: whether dead letters keep the raw line, which may hold secrets; the file is 0600 either way.
    """

    path: str = "outbox.db"
    max_bytes: str = "1GiB"
    max_waiting_events: int = 1_000_000
    keep_payloads: bool = False


class TelemetrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """listen: where /metrics, /healthz and /readyz answer; "" is nowhere. token: bearer token for /metrics, required off
    loopback unless allow_anonymous.
    """

    listen: str = "127.0.0.1:9000"
    token: str | None = None
    allow_anonymous: bool = False


class LogSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """level: debug, info, warning or error. format: text for people, json for machines."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings file of `forwarder receive`. cluster: the name that goes into every event of sources without their own.
    feed: absent: nobody can watch, and gRPC is not loaded.
    """

    cluster: str = ""
    sources: dict[str, Any] = {}
    detection: DetectionSettings = DetectionSettings()
    redaction: RedactionSettings = RedactionSettings()
    outbox: OutboxSettings = OutboxSettings()
    sinks: dict[str, Any] = {}
    feed: FeedSettings | None = None
    telemetry: TelemetrySettings = TelemetrySettings()
    log: LogSettings = LogSettings()


class ExitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands beside the key `backend` where sinks hang off it. backend, log: read elsewhere."""

    backend: Any = None
    log: Any = None
    sinks: dict[str, Any] = {}
    outbox: OutboxSettings = OutboxSettings(path="onward.db")
    telemetry: TelemetrySettings = TelemetrySettings(listen="")


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A checked configuration: typed settings of every component, and the folder that relative paths start from.

    selections: by sink of audit events, what its `select` says.
    """

    config: Config
    base: Path
    sources: dict[str, tuple[Entry, Any]]
    sinks: dict[str, tuple[Entry, Any]]
    selections: dict[str, list[Rule]] = {}

    @property
    def rules(self) -> list[Path]:
        return [_rules_path(rule, self.base) for rule in self.config.detection.rules]

    @property
    def outbox_path(self) -> Path:
        return resolve_path(self.config.outbox.path, self.base)

    @property
    def outbox_max_bytes(self) -> int:
        return parse_bytes(self.config.outbox.max_bytes, where="outbox.max_bytes")


def load_config(document: Document, environ: Mapping[str, str]) -> Loaded:
    """Check a settings document as a whole, before anything is opened. Raises ConfigError."""
    document = _split(expand(document, environ))
    config = convert(document, Config)
    sources = _typed(document, "sources", SOURCES, config.sources)
    sinks = _typed(document, "sinks", SINKS, config.sinks)
    if not sources:
        raise ConfigError(
            f"no source: say under `sources:` where audit events come in ({', '.join(SOURCES)})", where=document.file
        )
    if not sinks:
        raise ConfigError(
            f"no sink: say under `sinks:` where friction events go ({', '.join(SINKS)})", where=document.file
        )
    _refuse_unused(document, config.sinks, sinks)
    selections = {
        name: load_selection(document, ("sinks", name, "select"))
        for name, (_, settings) in sinks.items()
        if takes_audit_events(settings) and settings.select
    }
    loaded = Loaded(config=config, base=Path(document.file).parent, sources=sources, sinks=sinks, selections=selections)
    _ = loaded.outbox_max_bytes
    return loaded


def load_exits(document: Document) -> Loaded | None:
    """The `sinks`, `outbox` and `telemetry` of a backend's settings, where variables are expanded: where first-seen events
    go on to. None where no sink is named. Raises ConfigError.
    """
    config = convert(document, ExitsConfig)
    for name, settings in config.sinks.items():
        kind = settings.get("type", name) if isinstance(settings, dict) else name
        if kind in NOT_OFF_THE_BACKEND:
            raise ConfigError(
                f"`sinks.{name}`: a sink of type {kind} belongs into a receiver; this is the backend",
                where=document.where(("sinks", name)),
            )
    kinds = {name: entry for name, entry in SINKS.items() if name not in NOT_OFF_THE_BACKEND}
    sinks = _typed(document, "sinks", kinds, config.sinks)
    for name, (_, typed) in sinks.items():
        if takes_audit_events(typed):
            raise ConfigError(
                f"`sinks.{name}.stream`: audit events pass through receivers only; here it can be friction",
                where=document.where(("sinks", name, "stream")),
            )
    _refuse_unused(document, config.sinks, sinks)
    whole = Config(sinks=config.sinks, outbox=config.outbox, telemetry=config.telemetry)
    loaded = Loaded(config=whole, base=Path(document.file).parent, sources={}, sinks=sinks)
    _ = loaded.outbox_max_bytes
    return loaded if sinks else None


def build_source(name: str, loaded: Loaded, screen: Screen, telemetry: Telemetry, budget: ByteBudget) -> Source:
    """The source of that name; nothing is opened yet. budget: what all sources of the process may hold together."""
    entry, settings = loaded.sources[name]
    component, _ = entry.load()
    cluster = getattr(settings, "cluster", "") or loaded.config.cluster
    if getattr(settings, "workers", 1) > 1:
        shared: Source = importlib.import_module("forwarder.workers.door").WorkersSource(
            name, settings, telemetry, cluster
        )
        return shared
    source: Source = component(name, settings, screen, telemetry, cluster, budget=budget)
    return source


def takes_audit_events(settings: Any) -> bool:
    """Whether a sink with these settings is given the audit stream instead of friction events."""
    return isinstance(settings, StreamSettings | AlertSettings) and settings.stream == "audit"


def _refuse_unused(document: Document, written: Mapping[str, Any], sinks: Mapping[str, tuple[Entry, Any]]) -> None:
    """A sink of friction events has no use for what chooses audit events: who wrote it expects something else."""
    for name, (_, settings) in sinks.items():
        if takes_audit_events(settings):
            continue
        for key in StreamSettings.__struct_fields__:
            if key != "stream" and key in (written[name] or ()):
                raise ConfigError(
                    f"`sinks.{name}.{key}` is about audit events, and this sink is sent friction events; add"
                    " `stream: audit`, or leave it out",
                    where=document.where(("sinks", name, key)),
                )


def takes_audit_stream(settings: Any) -> bool:
    """Whether they reach it as a stream; those for people go by way of the outbox."""
    return takes_audit_events(settings) and not isinstance(settings, AlertSettings)


def build_sink(name: str, loaded: Loaded, telemetry: Telemetry) -> Sink:
    """The sink of friction events of that name; nothing is opened yet."""
    sink: Sink = _built(name, loaded, telemetry)
    return sink


def outbox_entry(sink: Sink, loaded: Loaded) -> SinkInfo:
    """What the outbox has to know of a sink, in a receiver and off a backend alike."""
    limit = loaded.config.outbox.max_waiting_events
    return SinkInfo(
        sink.name,
        takes_updates=sink.takes_updates,
        required=sink.required,
        max_waiting_events=min(limit, getattr(sink, "max_waiting_events", limit)),
        holds=getattr(sink, "holds", False),
    )


def build_audit_sink(name: str, loaded: Loaded, telemetry: Telemetry) -> AuditSink:
    """The sink of audit events of that name; nothing is opened yet."""
    sink: AuditSink = _built(name, loaded, telemetry)
    return sink


def build_feed(loaded: Loaded, telemetry: Telemetry) -> "Feed | None":
    """The live feed, where the settings have one; nothing is opened yet. Raises ConfigError."""
    settings = loaded.config.feed
    if settings is None:
        return None
    try:
        from forwarder.feed.server import Feed  # noqa: PLC0415 - a receiver without a feed carries no gRPC
    except ImportError:
        raise ConfigError("the feed needs gRPC: pip install 'friction-forwarder[feed]'", where="feed") from None
    return Feed(rooted(settings, loaded.base), telemetry, cluster=loaded.config.cluster)


def _built(name: str, loaded: Loaded, telemetry: Telemetry) -> Any:
    entry, settings = loaded.sinks[name]
    component, _ = entry.load()
    return component(name, settings, telemetry)


def _split(document: Document) -> Document:
    """An entry under `sinks` that stands for several becomes several; its module's `split` says which."""
    given = document.data.get("sinks")
    if not isinstance(given, dict):
        return document
    sinks: dict[str, Any] = {}
    for name, settings in given.items():
        kind = settings.get("type", name) if isinstance(settings, dict) else name
        split = getattr(SINKS[kind].imported(), "split", None) if kind in SINKS else None
        parts = split(name, settings) if split and isinstance(settings, dict) else {name: settings}
        sinks |= {part: {"type": kind, **one} for part, one in parts.items()} if split else parts
    return msgspec.structs.replace(document, data={**document.data, "sinks": sinks})


def _typed(
    document: Document, section: str, kinds: Mapping[str, Entry], given: Mapping[str, Any]
) -> dict[str, tuple[Entry, Any]]:
    typed: dict[str, tuple[Entry, Any]] = {}
    for name, settings in given.items():
        where = document.where((section, name))
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}(?:\.[A-Za-z0-9][A-Za-z0-9_-]{0,39})?", name):
            raise ConfigError(f"`{section}.{name}`: a name has up to 40 letters, digits, `-` and `_`", where=where)
        if settings is not None and not isinstance(settings, dict):
            raise ConfigError(f"`{section}.{name}`: expected its settings as a mapping", where=where)
        kind = (settings or {}).get("type", name)
        if kind not in kinds:
            hint = nearest(str(kind), list(kinds))
            raise ConfigError(f"`{section}.{name}`: `{kind}` is no type of {section[:-1]}{hint}", where=where)
        entry = kinds[kind]
        _, settings_type = entry.load()
        data = dict(document.data)
        data[section] = {**document.data[section], name: {k: v for k, v in (settings or {}).items() if k != "type"}}
        plain = msgspec.structs.replace(document, data=data)
        typed[name] = (entry, rooted(convert(plain, settings_type, (section, name)), Path(document.file).parent))
    return typed


def _rules_path(rule: str, base: Path) -> Path:
    """From the settings file's folder; a shipped name works everywhere."""
    path = resolve_path(rule, base)
    if path.exists() or Path(rule).is_absolute():
        return path
    try:
        return shipped(rule)
    except ConfigError:
        return path
