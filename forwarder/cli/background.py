"""`forwarder up --detach`, `down` and `logs`: a process that outlives its terminal, and how to find it again.

A run file in the data folder says which process it is and where it listens. A process id alone says nothing after a
crash or a reboot, when the number belongs to somebody else; so the process's start time stands beside it, and both
must fit before a signal is sent.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import typer

from forwarder.cli.console import FAILED, USAGE, out, stop
from forwarder.cli.environment import data_dir
from forwarder.errors import ConfigError

RUN_FILE = "up.json"
LOG_FILE = "forwarder.log"
READY_DEADLINE_S = 30.0  # migrations of a large database included; a laptop's start takes about a second
STOP_DEADLINE_S = 30.0  # the drain of a pipeline that has a backlog; Kubernetes gives the same
POLL_S = 0.1
MAX_LOG_BYTES = 10 << 20  # then the log of the run before moves to forwarder.log.1
MAX_RUN_FILE_BYTES = 64 << 10
TAIL_LINES = 15

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The folder given to `forwarder up`.")]


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A process of `forwarder up`. began: its start time, opaque. The addresses are HOST:PORT, empty where there is none."""

    pid: int
    began: str
    backend: str = ""
    forward: str = ""
    telemetry: str = ""
    feed: str = ""
    audit_log: str = ""
    cluster: str = ""
    outbox: str = ""
    rules: tuple[str, ...] = ()


def process_began(pid: int) -> str:
    """When process `pid` began, in whatever words its system has for it; empty when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
        asked = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return asked.stdout.strip()
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return "" if fields[0] in "ZX" else fields[19]  # a zombie has ended; field 22 of proc(5): ticks after boot


def write_run_file(folder: Path, running: Running) -> None:
    """Say that this process is ready. Readers see the old file or the new one, nothing between."""
    temporary = folder / f"{RUN_FILE}.{os.getpid()}"
    temporary.write_bytes(msgspec.json.encode(running))
    temporary.replace(folder / RUN_FILE)


def remove_run_file(folder: Path, pid: int) -> None:
    """Say that the process has ended; the file of another one stays."""
    written = read_run_file(folder)
    if written and written.pid == pid:
        (folder / RUN_FILE).unlink(missing_ok=True)


def read_run_file(folder: Path) -> Running | None:
    """What the last process wrote, whether it lives or not; None when there is nothing readable."""
    try:
        with (folder / RUN_FILE).open("rb") as file:
            return msgspec.json.decode(file.read(MAX_RUN_FILE_BYTES), type=Running)
    except (OSError, msgspec.DecodeError):
        return None


def find_running(folder: Path) -> Running | None:
    """The living process of this data folder; None when it has ended or its number belongs to another one."""
    running = read_run_file(folder)
    return running if running and running.began and process_began(running.pid) == running.began else None


def make_data_dir(folder: Path) -> None:
    """The folder for all that `up` keeps, where it is missing. Raises ConfigError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError("it is no folder; choose another with --data-dir", where=str(folder)) from None
    except OSError as error:
        raise _unusable(folder, error) from None


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot write it: {error.strerror}; choose a folder that this user may write with --data-dir", where=str(path)
    )


class NotStartedError(Exception):
    """A background process that did not become ready. code: for the command; words: what it said, and where its log is."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


def start_detached(arguments: Sequence[str], folder: Path, environ: Mapping[str, str] | None = None) -> Running:
    """Run `forwarder <arguments>` in a session of its own, with this or the given environment; returns when ready.

    Raises NotStartedError when it does not become ready; nothing is left running then, nor after Ctrl-C.
    """
    make_data_dir(folder)
    log = folder / LOG_FILE
    try:
        if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
            log.replace(folder / f"{LOG_FILE}.1")
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise _unusable(log, error) from None
    start = os.fstat(handle).st_size
    try:
        # -P: a folder named `forwarder` where the command is typed must not be imported in our place
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "forwarder", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
            env=environ,
        )
    finally:
        os.close(handle)
    try:
        return _when_ready(process, folder, start)
    except BaseException:
        process.terminate()  # does nothing where it has ended
        raise


def _when_ready(process: "subprocess.Popen[bytes]", folder: Path, log_start: int) -> Running:
    log = folder / LOG_FILE
    deadline = time.monotonic() + READY_DEADLINE_S
    while time.monotonic() < deadline:
        code = process.poll()
        if code is not None:
            words = f"{_written_since(log, log_start).rstrip()}\nit did not start; all of its log is in {log}"
            raise NotStartedError(code if code in (FAILED, USAGE) else FAILED, words)
        running = find_running(folder)
        if running and running.pid == process.pid:
            return running
        time.sleep(POLL_S)
    raise NotStartedError(FAILED, f"it was not ready after {READY_DEADLINE_S:.0f} s and was stopped; see {log}")


def down(given: DataDir = None) -> None:
    """Stop what `forwarder up` started: it drains, commits and acknowledges first. Nothing to stop is no error."""
    folder = data_dir(os.environ, given)
    running = find_running(folder)
    if running is None:
        (folder / RUN_FILE).unlink(missing_ok=True)
        out("not running")
    elif stop_running(running, folder):
        out(f"stopped (process {running.pid})")
    else:
        stop(f"process {running.pid} still drains after {STOP_DEADLINE_S:.0f} s; see {folder / LOG_FILE}")


def stop_running(running: Running, folder: Path) -> bool:
    """SIGTERM to this process and wait until it has ended; False when it still drains after STOP_DEADLINE_S."""
    if _terminate(running):
        deadline = time.monotonic() + STOP_DEADLINE_S
        while process_began(running.pid) == running.began:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
    remove_run_file(folder, running.pid)
    return True


def logs(
    given: DataDir = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are written; Ctrl-C ends.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 100,
) -> None:
    """Show the log of `forwarder up --detach`."""
    log = data_dir(os.environ, given) / LOG_FILE
    if not log.exists():
        stop(f"{log} is not there: nothing was started with `forwarder up --detach`")
    with log.open("rb") as file:
        for line in _last_lines(file.read(), lines):
            out(line)
        sys.stdout.flush()
        if follow:
            try:
                _follow(file, log)
            except KeyboardInterrupt:  # how it is meant to end
                return


def _follow(file: BinaryIO, log: Path) -> None:
    while True:
        piece = file.read()
        if piece:
            sys.stdout.write(piece.decode("utf-8", "replace"))
            sys.stdout.flush()
        elif log.exists() and log.stat().st_ino != os.fstat(file.fileno()).st_ino:
            with log.open("rb") as begun_anew:
                return _follow(begun_anew, log)
        else:
            time.sleep(POLL_S)


def _last_lines(raw: bytes, number: int) -> list[str]:
    return raw.decode("utf-8", "replace").splitlines()[-number:] if number else []


def _written_since(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return "\n".join(_last_lines(file.read(), TAIL_LINES))


def _terminate(running: Running) -> bool:
    """Send SIGTERM to exactly this process; False when it has ended meanwhile."""
    if not hasattr(os, "pidfd_open"):
        try:
            os.kill(running.pid, signal.SIGTERM)
        except ProcessLookupError:
            return False
        return True
    try:
        handle = os.pidfd_open(running.pid)  # holds on to the process, so that its number cannot change hands below
    except ProcessLookupError:
        return False
    try:
        if process_began(running.pid) != running.began:
            return False
        signal.pidfd_send_signal(handle, signal.SIGTERM)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True
