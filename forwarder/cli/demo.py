"""`forwarder demo`: the whole product for a minute, on this machine, with nothing set up and nothing left running.

A sample audit log is written, its past at once and then live; Fluent Bit tails it where it is installed, the built-in
file source elsewhere; receiver and backend run as `forwarder up` runs them. At the end the sample log's own list of
planted friction is compared with what the backend has.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forwarder.cli import console
from forwarder.cli.background import LOG_FILE, NotStartedError, Running, find_running, start_detached, stop_running
from forwarder.cli.console import out, plural, say, stop
from forwarder.cli.demo_view import Snapshot, View, ask, counters, event_table, score_table
from forwarder.cli.environment import SECRETS, VARIABLES
from forwarder.errors import ConfigError
from forwarder.settings import shipped

if TYPE_CHECKING:
    from forwarder.events.sample import SampleLog

MARKER = ".forwarder-demo"  # a folder without it is somebody else's and is not emptied
PAST_LINES = 20_000
PAST_S = 3600.0
FRICTION_SHARE = 0.004  # more, and every service scores 100 within the hour
TICK_S = 0.1
LOOK_EVERY_S = 1.0
DRAIN_DEADLINE_S = 30.0  # Fluent Bit's flush, the receiver and the backend's commits take about two seconds
STOP_DEADLINE_S = 8.0
MAX_COMPARED = 1000  # what the backend lists at once


def demo(
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long live lines are written.")] = 60.0,
    rate: Annotated[float, typer.Option(min=1, max=20_000, help="Live lines a second.")] = 200.0,
    folder: Annotated[Path, typer.Option("--dir", help="Folder for all it writes; made anew.")] = Path(".demo"),
    fluent_bit: Annotated[bool, typer.Option(help="Use Fluent Bit where it is installed.")] = True,
) -> None:
    """Show the whole product at work for a minute: a log, a receiver, a backend, scores. Nothing is left running."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: everything is stopped
    folder = folder.absolute()
    _fresh(folder)
    agent = _agent() if fluent_bit else None
    interrupted = False
    good = True
    with ExitStack() as stack:
        try:
            good = _play(stack, folder, agent, seconds, rate)
        except KeyboardInterrupt:
            interrupted = True
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # what was started is stopped first; that is bounded
    if interrupted:
        say("stopped early; everything that was started has ended")
        raise typer.Exit(console.FAILED)
    if not good:
        stop(f"not everything that was planted arrived; the logs are in {folder}")


def _play(stack: ExitStack, folder: Path, agent: str | None, seconds: float, rate: float) -> bool:
    """Whether the backend ended with exactly what was planted, and the ledger balances."""
    from forwarder.cli.demo_log import LogWriter, write_past
    from forwarder.events.sample import SampleLog

    audit_log = folder / "audit.log"
    say(f"writing an hour of an imaginary cluster's audit log, {PAST_LINES:,} lines, to {audit_log}")
    now = time.time()
    past = SampleLog(1, start_time=now - PAST_S, lines_per_s=PAST_LINES / PAST_S, friction_share=FRICTION_SHARE)
    writer = LogWriter(str(audit_log))
    stack.callback(writer.close)
    write_past(past, writer, PAST_LINES)
    running = stack.enter_context(_forwarder(folder, None if agent else audit_log))
    reader = "the built-in file source"
    if agent:
        stack.enter_context(_fluent_bit(agent, folder, audit_log, running))
        reader = "Fluent Bit"
    headline = f"{reader} → receiver → backend, for {seconds:.0f} s; look at http://{running.backend}"
    say(headline)
    live = SampleLog(2, start_time=now, lines_per_s=rate, friction_share=FRICTION_SHARE, clock=time.time)
    with View(headline) as view:
        _write_live(live, writer, running, view, seconds, rate)
    drained = _drain(running, writer.lines)
    return _summary(running, folder, past, live, drained=drained, lines=writer.lines)


def _fresh(folder: Path) -> None:
    """An empty folder with the marker; what an earlier demo left is stopped and removed."""
    if folder.exists():
        if not (folder / MARKER).exists() and any(folder.iterdir()):
            raise ConfigError("it is not empty and no demo made it; choose another with --dir", where=str(folder))
        left = find_running(folder / "data")
        if left and not stop_running(left, folder / "data"):
            stop(f"an earlier demo still runs as process {left.pid}")
        shutil.rmtree(folder)
    (folder / "data").mkdir(mode=0o700, parents=True)
    (folder / MARKER).touch()


def _agent() -> str | None:
    """Fluent Bit's program, where it and the configuration for it are there."""
    program = shutil.which("fluent-bit")
    try:
        shipped("fluent-bit/laptop.yaml")
    except ConfigError:
        return None
    return program


@contextmanager
def _forwarder(folder: Path, audit_log: Path | None) -> Iterator[Running]:
    data = folder / "data"
    ours = {variable.name for variable in VARIABLES} | {f"{name}_FILE" for name in SECRETS}
    ours |= {older for variable in VARIABLES for older in variable.older.split(", ")}
    environ = {name: value for name, value in os.environ.items() if name not in ours}
    arguments = ["up", "--data-dir", str(data), "--from-start", "--cluster", "demo"]
    arguments += ["--audit-log", str(audit_log or "none")]
    wanted = [_if_free(8000), _if_free(24224), _if_free(9000)]
    try:
        running = start_detached([*arguments, *_listen(wanted)], data, environ)
    except NotStartedError:
        try:
            running = start_detached([*arguments, *_listen([0, 0, 0])], data, environ)  # somebody was faster
        except NotStartedError as error:
            stop(error.words, error.code)
    try:
        yield running
    finally:
        if not stop_running(running, data):
            say(f"process {running.pid} still drains; see {data / LOG_FILE}")


@contextmanager
def _fluent_bit(program: str, folder: Path, audit_log: Path, running: Running) -> Iterator[None]:
    environ = os.environ | {
        "AUDIT_LOG_PATH": str(audit_log),
        "AUDIT_LOG_FROM_HEAD": "on",
        "FORWARDER_PORT": running.forward.rpartition(":")[2],
        "FLUENT_BIT_STATE": str(folder / "fluent-bit"),
        "FLUENT_BIT_HTTP_PORT": str(_if_free(0)),
    }
    (folder / "fluent-bit").mkdir()
    with (folder / "fluent-bit.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-c", str(shipped("fluent-bit/laptop.yaml"))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environ,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _write_live(live: "SampleLog", writer: Any, running: Running, view: View, seconds: float, rate: float) -> None:
    began = looked = time.monotonic()
    written = 0
    received = 0
    while (second := time.monotonic() - began) < seconds:
        due = int(second * rate) - written
        writer.write_many([live.line() for _ in range(due)])
        written += due
        now = time.monotonic()
        if now - looked >= LOOK_EVERY_S:
            snapshot = _look(running, writer.lines, second, seconds)
            if snapshot:
                snapshot.rate = max(0, snapshot.received - received) / (now - looked)
                received = snapshot.received
                view.show(snapshot)
            looked = now
        time.sleep(TICK_S)
    writer.write_many([live.close_one() for _ in range(live.open_requests)])


def _look(running: Running, written: int, second: float, seconds: float) -> Snapshot | None:
    """The present state; None when a part does not answer just now."""
    from forwarder.outbox import read_ledger

    try:
        sums = counters(running.telemetry)
        return Snapshot(
            second=second,
            seconds=seconds,
            written=written,
            received=int(sums.get("forwarder_lines_received_total", 0)),
            found=read_ledger(Path(running.outbox)).new,
            rate=0.0,
            events=ask(f"http://{running.backend}/events?limit=10"),
            entities=ask(f"http://{running.backend}/api/v1/entities?limit=10"),
        )
    except (OSError, ValueError, ConfigError):
        return None


def _drain(running: Running, lines: int) -> bool:
    """Whether every line that was written has been received and every event delivered, within the deadline."""
    deadline = time.monotonic() + DRAIN_DEADLINE_S
    while time.monotonic() < deadline:
        try:
            sums = counters(running.telemetry)
        except OSError:
            return False
        if sums.get("forwarder_lines_received_total", 0) >= lines and not _waiting(running):
            return True
        time.sleep(LOOK_EVERY_S / 2)
    return False


def _waiting(running: Running) -> int:
    from forwarder.outbox import read_ledger

    return sum(sink.waiting for sink in read_ledger(Path(running.outbox)).sinks)


def _summary(
    running: Running, folder: Path, past: "SampleLog", live: "SampleLog", *, drained: bool, lines: int
) -> bool:
    from forwarder.outbox import read_ledger

    planted = {(action.audit_id, action.rule) for log in (past, live) for action in log.actions}
    events = ask(f"http://{running.backend}/api/v1/events?limit={MAX_COMPARED}")
    entities = ask(f"http://{running.backend}/api/v1/entities?limit=10")
    ledger = read_ledger(Path(running.outbox))
    rows = [(event["audit_id"], event["type"]) for event in events]
    exact = len(events) >= MAX_COMPARED or (set(rows) == planted and len(rows) == len(planted))
    screen = console.console()
    out("")
    out("newest friction events")
    screen.print(event_table(events))
    out("")
    out("scores per service, 100 is the worst")
    screen.print(score_table(entities))
    out("")
    out(f"{console.mark(drained)} {lines:,} audit lines read and searched")
    if len(events) < MAX_COMPARED:
        out(f"{console.mark(exact)} {plural(len(planted), 'friction event')} planted, {len(rows):,} found, each once")
    else:
        out(f"{console.mark(None)} {plural(len(planted), 'friction event')} planted; too many to compare one by one")
    out(f"{console.mark(not ledger.balanced())} the ledger balances: {ledger.detected:,} detected = {ledger.new:,} new "
        f"+ {ledger.update:,} completed + {ledger.duplicate:,} seen before + {ledger.expired:,} too old")  # fmt: skip
    out("")
    out(f"look again     forwarder up --data-dir {folder / 'data'} --audit-log none")
    out(f"which rules    forwarder replay {folder / 'audit.log'}")
    out("your cluster   forwarder up --audit-log /path/to/audit.log")
    return drained and exact and not ledger.balanced()


def _listen(ports: list[int]) -> list[str]:
    """Options of `up` for backend, Forward and telemetry on loopback; port 0 lets the system choose."""
    options = ("--backend-listen", "--forward-listen", "--telemetry-listen")
    return [word for option, port in zip(options, ports, strict=True) for word in (option, f"127.0.0.1:{port}")]


def _if_free(port: int) -> int:
    """`port` where nobody listens there, else 0; for `port` 0 one that was free a moment ago."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return 0
        return int(listener.getsockname()[1])
