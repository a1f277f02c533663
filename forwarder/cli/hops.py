"""The hops that `forwarder doctor` looks at; each check looks and changes nothing.

A hop is good (True), bad (False), or not looked at because there is nothing to look at (None). Advice says what to do.
"""

import glob
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from forwarder.cli.console import plural
from forwarder.cli.status import probe
from forwarder.errors import ConfigError
from forwarder.settings import Address, parse_address

if TYPE_CHECKING:
    from forwarder.registry import Loaded

CONNECT_DEADLINE_S = 2.0
PROGRAM_DEADLINE_S = 5.0  # `fluent-bit --version` takes milliseconds
BACKEND_DEADLINE_S = 5.0
QUIET_LOG_S = 600.0  # an apiserver with any traffic writes every few seconds
LATE_S = 60.0  # a healthy sink has delivered within a second
START_IT = "start the receiver: `forwarder up`, or `forwarder receive --config …`"
FLUENT_BIT_NEEDED = (5, 0, 6)  # the shipped configurations; below 4.2 one long line stops the whole file


class Hop(msgspec.Struct, frozen=True):
    """One line of the report."""

    name: str
    good: bool | None
    text: str
    advice: str = ""


def check_rules(loaded: "Loaded") -> Hop:
    """They load, and their own tests pass."""
    from forwarder.detection.loader import load_rules
    from forwarder.detection.selftest import run_tests
    from forwarder.registry import takes_audit_events

    if not loaded.rules and all(takes_audit_events(settings) for _, settings in loaded.sinks.values()):
        return Hop("rules", good=True, text="none: audit events are passed on, nothing is looked for")
    try:
        ruleset = load_rules(loaded.rules)
    except ConfigError as error:
        return Hop(
            "rules", good=False, text=str(error), advice="correct the file; a running receiver keeps its old rules"
        )
    failed = [result for result in run_tests(ruleset) if not result.passed]
    text = f"{plural(len(ruleset.rules), 'rule')} from {', '.join(ruleset.files)}"
    if failed:
        names = ", ".join(dict.fromkeys(result.rule for result in failed))
        return Hop("rules", good=False, text=f"{text}; tests of {names} fail", advice="see `forwarder rules test`")
    advice = f"{plural(len(ruleset.warnings), 'warning')}; see `forwarder rules check`" if ruleset.warnings else ""
    return Hop("rules", good=True, text=text, advice=advice)


def check_audit_log(loaded: "Loaded") -> list[Hop]:
    """Each log that is tailed here exists, may be read, and is being written to."""
    hops = []
    for name, (entry, settings) in loaded.sources.items():
        if entry.component == "FileSource":
            paths = [settings.path] if isinstance(settings.path, str) else settings.path
            hops += [_audit_log(name, path) for path in paths]
    return hops


def _audit_log(name: str, path: str) -> Hop:
    files = [file for file in glob.glob(path) if os.path.isfile(file)] or ([path] if os.path.isfile(path) else [])
    title = "audit log" if name == "file" else name
    if not files:
        folder = Path(path).parent
        if folder.is_dir() and not os.access(folder, os.X_OK):
            return Hop(title, good=False, text=f"{folder} cannot be entered", advice="run as root, or give it a group")
        advice = "it is tailed once it is there; is --audit-log-path of kube-apiserver the same, and this its node?"
        return Hop(title, good=False, text=f"{path} does not exist", advice=advice)
    newest = max(files, key=os.path.getmtime)
    if not os.access(newest, os.R_OK):
        advice = f"kube-apiserver writes it for root: run as root, or chgrp and chmod 640 {newest}"
        return Hop(title, good=False, text=f"{newest} may not be read by this user", advice=advice)
    quiet_s = time.time() - os.path.getmtime(newest)
    text = f"{newest}, written {quiet_s:.0f} s ago"
    if quiet_s > QUIET_LOG_S:
        return Hop(title, good=True, text=text, advice="it is quiet; does kube-apiserver still write there?")
    return Hop(title, good=True, text=text)


def check_fluent_bit(loaded: "Loaded") -> Hop:
    """The program is here and new enough, where a Forward door waits for it; elsewhere it may run on another machine."""
    title = "fluent-bit"
    if not any(entry.component == "ForwardSource" for entry, _ in loaded.sources.values()):
        return Hop(title, good=None, text="not needed: no forward source")
    program = shutil.which("fluent-bit")
    if program is None:
        return Hop(title, good=None, text="not on this machine's PATH; fine where it runs on the nodes")
    try:
        asked = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=PROGRAM_DEADLINE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return Hop(title, good=False, text=f"{program} does not run", advice="install it again")
    found = re.search(r"v(\d+)\.(\d+)\.(\d+)", asked.stdout)
    if not found:
        return Hop(title, good=False, text=f"{program} tells no version", advice="is it Fluent Bit?")
    version = ".".join(found.groups())
    if tuple(map(int, found.groups())) < FLUENT_BIT_NEEDED:
        advice = f"the shipped configurations need {'.'.join(map(str, FLUENT_BIT_NEEDED))} or newer"
        return Hop(title, good=False, text=f"{program}, version {version}", advice=advice)
    return Hop(title, good=True, text=f"{program}, version {version}")


def check_telemetry(loaded: "Loaded") -> Hop:
    """Whether a receiver runs with these settings."""
    listen = loaded.config.telemetry.listen
    state = probe(listen)
    if state == "ready":
        return Hop("receiver", good=True, text=f"running and accepting, telemetry on {listen}")
    if state == "waiting":
        return Hop("receiver", good=False, text="running, but not accepting", advice="see its log")
    return Hop("receiver", good=None, text="not running, or without telemetry port", advice=START_IT)


def check_forward_port(loaded: "Loaded") -> list[Hop]:
    """Each Forward and webhook door is open where the receiver runs, and free where it does not."""
    running = probe(loaded.config.telemetry.listen) == "ready"
    hops = []
    for name, (entry, settings) in loaded.sources.items():
        if entry.component == "ForwardSource":
            title = "forward" if name == "forward" else f"forward {name}"
            hops.append(_port(title, parse_address(settings.listen), running=running))
        elif entry.component == "WebhookSource":
            title = "webhook" if name == "webhook" else f"webhook {name}"
            hops.append(_port(title, parse_address(settings.listen, default_port=9765), running=running))
    return hops


def check_feed(loaded: "Loaded") -> list[Hop]:
    """The live feed's door, where there is one: its settings hold, and it is open or free as the Forward doors are."""
    from forwarder.registry import build_feed
    from forwarder.telemetry import Telemetry

    if loaded.config.feed is None:
        return []
    try:
        build_feed(loaded, Telemetry())
    except ConfigError as error:
        return [Hop("feed", good=False, text=str(error), advice="correct it; the receiver does not start with it")]
    running = probe(loaded.config.telemetry.listen) == "ready"
    return [_port("feed", loaded.config.feed.address, running=running)]


def _port(title: str, address: Address, *, running: bool) -> Hop:
    if running:
        try:
            connect(address).close()
        except OSError as error:
            advice = "does the running receiver have these settings? restart it"
            return Hop(title, good=False, text=f"{address}: {error.strerror or 'no answer'}", advice=advice)
        return Hop(title, good=True, text=f"{address} is open")
    if address.path:
        return Hop(title, good=None, text=f"{address} is opened by the receiver")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address.host, address.port))
        except OSError as error:
            advice = "stop what listens there, or choose another `listen`"
            return Hop(title, good=False, text=f"{address}: {error.strerror}", advice=advice)
    return Hop(title, good=True, text=f"{address} is free")


def connect(address: Address) -> socket.socket:
    """A connection to where a listener with this address can be reached from here. Raises OSError."""
    if address.path:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(CONNECT_DEADLINE_S)
        connection.connect(address.path)
        return connection
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - where to connect
    return socket.create_connection((host, address.port), timeout=CONNECT_DEADLINE_S)


def check_outbox(loaded: "Loaded") -> Hop:
    """Its folder takes files, the disk has room, the ledger balances, and nothing waits for long."""
    from forwarder.outbox import read_ledger

    path = loaded.outbox_path
    folder = next((parent for parent in path.parents if parent.exists()), path.parent)
    if not os.access(path if path.exists() else folder, os.W_OK):
        advice = "give the folder to the user that runs the receiver, or set outbox.path"
        return Hop("outbox", good=False, text=f"{path} cannot be written by this user", advice=advice)
    free_bytes = shutil.disk_usage(folder).free
    room = f"{free_bytes / (1 << 30):.1f} GiB free"
    if not path.exists():
        return Hop("outbox", good=True, text=f"{path} will be made, {room}")
    try:
        ledger = read_ledger(path)
    except ConfigError as error:
        return Hop("outbox", good=False, text=str(error))
    if wrong := ledger.balanced():
        return Hop(
            "outbox", good=False, text="; ".join(wrong), advice="please report it; nothing of it is lost by waiting"
        )
    text = (
        f"{path}, {room}, {plural(ledger.new, 'event')}, {plural(ledger.dead_letters, 'dead letter')}, ledger balances"
    )
    if free_bytes < loaded.outbox_max_bytes - ledger.bytes:
        return Hop("outbox", good=False, text=text, advice="less room than outbox.max_bytes: make room or lower it")
    if (oldest_s := ledger.oldest_waiting_s) and oldest_s > LATE_S:
        return Hop(
            "outbox", good=True, text=text, advice=f"an event waits since {oldest_s:.0f} s; see `forwarder status`"
        )
    return Hop("outbox", good=True, text=text, advice="see `forwarder dead list`" if ledger.dead_letters else "")


def check_backend(loaded: "Loaded") -> list[Hop]:
    """Each backend answers, and takes the key."""
    from forwarder.cli.report import backend_advice, backend_words
    from forwarder.sinks.backend import BackendSink

    hops = []
    for name, (entry, settings) in loaded.sinks.items():
        if entry.component != "BackendSink":
            continue
        sink = BackendSink(name, msgspec.structs.replace(settings, timeout_s=BACKEND_DEADLINE_S))
        try:
            state = sink.probe()
        finally:
            sink.close()
        good = bool(state.reachable) and state.key_accepted is not False and not state.problem
        advice = backend_advice(state, has_key=bool(settings.api_key)) or state.problem
        title = "backend" if name == "backend" else f"backend {name}"
        hops.append(Hop(title, good=good, text=backend_words(settings.url, state), advice=advice))
    return hops
