"""The doors that the environment alone can open: Event Hubs, as aks-audit-log-go names them, and the audit webhook.

EHUBNAMESPACECONNECTIONSTRING=Endpoint=sb://… EVENTHUBNAME=audit WEBSINKURL=http://falco:9765/k8s-audit forwarder receive
SLACK_TOKEN=… CHANNEL_ID=… FORWARDER_WEBHOOK_USER=apiserver FORWARDER_WEBHOOK_PASSWORD=… forwarder receive
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forwarder.errors import ConfigError

if TYPE_CHECKING:
    from forwarder.cli.environment import Environment

EVENT_HUBS_GROUP = "$Default"  # the group that aks-audit-log-go reads with
FALCO_MAX_RETRIES = 5
FALCO_RETRY_INCREMENT_MS = 1000.0
FALCO_BURST = 50
WEBHOOK_LISTEN = "127.0.0.1:9765"

CHECKPOINTS = (
    "positions are offsets that Event Hubs keeps. The first start reads from the oldest event that is still there "
    "(`auto_offset_reset: earliest` in a settings file; `latest` passes over them), so what was sent to Falco before the "
    "move is sent once more; friction events are counted once all the same"
)
AKS_WITHOUT_MEANING = {"BLOBSTORAGECONNECTIONSTRING": CHECKPOINTS, "BLOBCONTAINERNAME": CHECKPOINTS}


def event_hub(env: "Environment", environ: Mapping[str, str]) -> dict[str, Any] | None:
    """The settings of a `kafka` source on Event Hubs; None where the environment names none."""
    connection = env.text("FORWARDER_EVENT_HUB")
    if not connection:
        return None
    said = [name for name in AKS_WITHOUT_MEANING if environ.get(name)]
    if said:
        env.notices.append(f"{' and '.join(said)} need not be set: {CHECKPOINTS}")
    if not env.text("FORWARDER_TELEMETRY_LISTEN"):
        env.notices.append(
            "metrics stand on 127.0.0.1:9000 only; for a Prometheus elsewhere set FORWARDER_TELEMETRY_LISTEN=:9000 and "
            "FORWARDER_TELEMETRY_TOKEN"
        )
    source: dict[str, Any] = {"connection_string": connection, "group": EVENT_HUBS_GROUP}
    if name := env.text("FORWARDER_EVENT_HUB_NAME"):
        source["topics"] = [name]
    if not env.text("FORWARDER_CLUSTER"):
        source["cluster_from_envelope"] = True
    return source


def falco(env: "Environment") -> dict[str, Any] | None:
    """The settings of a `falco` sink with aks-audit-log-go's defaults; None where the environment names no Falco."""
    url = env.text("FORWARDER_FALCO_URL")
    if not url:
        return None
    increment_ms = env.number("FORWARDER_FALCO_RETRY_INCREMENT_MS")
    retries = env.number("FORWARDER_FALCO_MAX_RETRIES", int)
    sink: dict[str, Any] = {
        "url": url,
        "max_retries": FALCO_MAX_RETRIES if retries is None else retries,
        "retry_increment_s": (FALCO_RETRY_INCREMENT_MS if increment_ms is None else increment_ms) / 1000,
        "burst": int(env.number("FORWARDER_FALCO_BURST", int) or FALCO_BURST),
        "keep_alive": _flag(env, "FORWARDER_FALCO_KEEP_ALIVE"),
    }
    if rate := env.number("FORWARDER_FALCO_RATE_LIMIT"):
        sink["rate_limit_events_per_s"] = rate
    return sink


def webhook(env: "Environment") -> dict[str, Any] | None:
    """The settings of a `webhook` source; None where nothing asks for one."""
    listen, token = env.text("FORWARDER_WEBHOOK_LISTEN"), env.text("WEBHOOK_TOKEN")
    if not (listen or token):
        return None
    return {"listen": listen or WEBHOOK_LISTEN} | ({"token": token} if token else {})


def _flag(env: "Environment", name: str) -> bool:
    value = env.text(name).strip().lower()
    if value not in ("", "true", "false", "1", "0", "t", "f"):  # what Go's ParseBool takes
        raise ConfigError(f"{value!r} is neither true nor false", where=f"environment variable {name}")
    return value in ("true", "1", "t")
