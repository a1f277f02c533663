"""The hops of `forwarder doctor` behind the outbox, but for the backend: each sink's peer is asked, and nothing is sent.

Slack is asked who the token is; Falcosidekick, Falco and Forward servers whether they are there; a file's folder whether
it can be written. What carries messages by way of Apprise can only be tried by sending one.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import msgspec

from forwarder.cli.hops import Hop

if TYPE_CHECKING:
    from forwarder.registry import Loaded

DEADLINE_S = 5.0
SLACK_SCOPES = (
    "the token needs the scope chat:write, and the app must be in the channel: /invite @its-name (or chat:write.public);"
    " with channels:read this check can tell"
)


def check_sinks(loaded: "Loaded") -> list[Hop]:
    """One hop for each sink that is not the backend."""
    checks = {
        "SlackSink": _slack,
        "NotifySink": _notify,
        "FalcosidekickSink": _falcosidekick,
        "FalcoSink": _falco,
        "ForwardSink": _forward,
        "FileSink": _file,
    }
    return [
        checks[entry.component](name, settings)
        for name, (entry, settings) in loaded.sinks.items()
        if entry.component in checks
    ]


def _slack(name: str, settings: Any) -> Hop:
    from forwarder.sinks.slack import SlackSink

    state = SlackSink(name, msgspec.structs.replace(settings, timeout_s=DEADLINE_S)).probe()
    if settings.webhook_url:
        return Hop(name, good=None, text="an incoming webhook", advice=state.advice)
    if state.problem:
        return Hop(name, good=False, text=f"Slack says {state.problem}", advice=state.advice or SLACK_SCOPES)
    text = f"{state.bot} of {state.team}, channel {settings.channel}"
    if state.in_channel:
        return Hop(name, good=True, text=f"{text}, which the app is in")
    return Hop(name, good=True, text=text, advice=SLACK_SCOPES)


def _notify(name: str, settings: Any) -> Hop:
    from forwarder.sinks.notify import NotifySink

    where = NotifySink(name, settings).where
    return Hop(name, good=None, text=where, advice="it can only be tried by sending: see `forwarder doctor --send`")


def _falcosidekick(name: str, settings: Any) -> Hop:
    reply = _asked(settings, urljoin(settings.url, "/ping"))
    if isinstance(reply, str):
        return Hop(name, good=False, text=f"{settings.url}: {reply}", advice=f"correct `sinks.{name}.url`")
    good = reply.status == 200 and reply.body.strip() == b"pong"
    return Hop(name, good=good, text=f"{settings.url} {'answers' if good else 'is not Falcosidekick'}")


def _falco(name: str, settings: Any) -> Hop:
    """k8saudit takes POST alone: 405 is its yes."""
    reply = _asked(settings, settings.url)
    if isinstance(reply, str):
        return Hop(name, good=False, text=f"{settings.url}: {reply}", advice=f"correct `sinks.{name}.url`")
    good = reply.status == 405
    advice = "" if good else f"k8saudit answers 405 to this question, not {reply.status}: is the path right?"
    return Hop(name, good=good, text=f"{settings.url} answers", advice=advice)


def _asked(settings: Any, url: str) -> Any:
    """What a GET brings, or in words why nothing."""
    from forwarder.wire.http_client import Fault, HttpClient

    pair = (getattr(settings, "client_cert_file", ""), getattr(settings, "client_key_file", ""))
    client = HttpClient(ca_file=settings.ca_file, client_cert=pair if pair[0] else None)
    try:
        reply = client.call("GET", url, deadline_s=DEADLINE_S)
    finally:
        client.close()
    return reply.reason if isinstance(reply, Fault) else reply


def _forward(name: str, settings: Any) -> Hop:
    from forwarder.sinks.forward import ForwardSink

    problem = ForwardSink(name, settings).probe(DEADLINE_S)
    return Hop(name, good=not problem, text=problem or f"{settings.address} lets us in")


def _file(name: str, settings: Any) -> Hop:
    path = Path(settings.path)
    there = path if path.exists() else next((parent for parent in path.parents if parent.exists()), path.parent)
    if os.access(there, os.W_OK):
        return Hop(name, good=True, text=str(path))
    return Hop(name, good=False, text=f"{path} cannot be written by this user", advice="give this user the folder")
