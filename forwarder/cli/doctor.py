"""`forwarder doctor [--send]`: is every hop from the audit log to the backend in order, and if not, what to do next.

--send makes one event, marked as a test and kept out of the score, and follows it through Forward, detection, outbox and
backend until the backend gives it back.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forwarder.cli import console
from forwarder.cli.background import find_running
from forwarder.cli.console import FAILED, out
from forwarder.cli.environment import data_dir, receive_document
from forwarder.cli.hops import (
    Hop,
    check_audit_log,
    check_backend,
    check_feed,
    check_fluent_bit,
    check_forward_port,
    check_outbox,
    check_rules,
    check_telemetry,
)
from forwarder.cli.kafka_hop import check_kafka
from forwarder.cli.places import Config, DataDir
from forwarder.cli.sink_hops import check_sinks
from forwarder.errors import ConfigError
from forwarder.settings import Document

if TYPE_CHECKING:
    from forwarder.registry import Loaded

CHECKS: tuple[Callable[["Loaded"], Hop | list[Hop]], ...] = (
    check_rules,
    check_audit_log,
    check_fluent_bit,
    check_telemetry,
    check_forward_port,
    check_feed,
    check_kafka,
    check_outbox,
    check_backend,
    check_sinks,
)
BACKEND_CHECKS = (check_outbox, check_sinks)  # of a backend's settings file: what hangs off it


def doctor(
    config: Config = None,
    folder: DataDir = None,
    send: Annotated[
        bool, typer.Option("--send", help="Send one test event through all hops and read it back.")
    ] = False,
    client_cert: Annotated[
        Path | None, typer.Option(help="With --send: PEM certificate for a door that asks clients for one.")
    ] = None,
    client_key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per hop, for machines.")] = False,
) -> None:
    """Check every hop and say what to do next; exit 1 when one is not in order, 2 when the settings are not."""
    if bool(client_cert) is not bool(client_key):
        raise ConfigError("--client-cert and --client-key go together")
    logging.disable(logging.CRITICAL)  # what the parts would log is said here, once, with advice
    try:
        loaded = settings(config, folder)
    except ConfigError as error:
        _show(
            Hop("settings", good=False, text=str(error), advice="correct it; nothing else can be checked before"),
            as_json,
        )
        raise typer.Exit(console.USAGE) from None
    where = str(config) if config else "environment, or the process of `forwarder up`"
    hops = [Hop("settings", good=True, text=where)]
    _show(hops[0], as_json)
    for check in CHECKS if loaded.sources else BACKEND_CHECKS:
        found = check(loaded)
        for one in [found] if isinstance(found, Hop) else found:
            _show(one, as_json)
            hops.append(one)
    if send and not loaded.sources:
        raise ConfigError("a test event goes in at a receiver; give its settings file", where="--send")
    if send:
        from forwarder.cli.probe_event import ClientCertificate, follow_test_event

        certificate = ClientCertificate(str(client_cert), str(client_key)) if client_cert and client_key else None
        for one in follow_test_event(loaded, certificate):
            _show(one, as_json)
            hops.append(one)
    bad = [hop for hop in hops if hop.good is False]
    if not as_json:
        out("")
        out(
            "everything is in order"
            if not bad
            else f"{len(bad)} of {len(hops)} need a look: {', '.join(h.name for h in bad)}"
        )
    if bad:
        raise typer.Exit(FAILED)


def settings(config: Path | None, folder: Path | None) -> "Loaded":
    """The receiver's settings: of the file, else of the running `up`, else of the environment. Of a backend's file those of
    its sinks, without sources. Raises ConfigError.
    """
    from forwarder.cli.configuration import environment_in, from_environment, is_backend_config, read_config, read_exits

    if config is not None and is_backend_config(config):
        exits = read_exits(config)
        if exits is None:
            raise ConfigError(
                "no sink hangs off this backend; what reports to it, the receiver's file says", where=str(config)
            )
        return exits
    if config is not None:
        return read_config(config)
    directory = data_dir(os.environ, folder)
    environ = environment_in(directory)
    running = find_running(directory)
    if running is None:
        return from_environment(receive_document(environ | {"FORWARDER_DATA_DIR": str(directory)})[0])
    sources: dict[str, Any] = {}
    if running.forward:
        sources["forward"] = {"listen": running.forward.partition(",")[0]}  # the others are the same port
        if key := environ.get("FORWARD_SHARED_KEY"):
            sources["forward"]["shared_key"] = key
    if running.audit_log:
        sources["file"] = {"path": running.audit_log, "checkpoint": str(directory / "file.json")}
    sink = {"url": f"http://{running.backend}"}
    if key := environ.get("HEALERT_API_KEY"):
        sink["api_key"] = key
    data = {
        "cluster": running.cluster,
        "sources": sources,
        "detection": {"rules": list(running.rules)},
        "outbox": {"path": str(directory / "outbox.db")},
        "sinks": {"backend": sink},
        "telemetry": {"listen": running.telemetry},
    }
    if running.feed:
        data["feed"] = {"listen": running.feed}
    return from_environment(Document("forwarder up", data, {}))


def _show(hop: Hop, as_json: bool) -> None:
    if as_json:
        console.ndjson(hop)
        return
    out(f"{console.mark(hop.good)} {hop.name:<12} {hop.text}")
    if hop.advice:
        out(f"  {'':<12} → {hop.advice}")
