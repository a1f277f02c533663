"""The command line; one module per command group.

Modules here import only what a command line needs to explain itself; a command imports what it runs when it runs, so
that `--help` is instant and `receive` never loads a web framework.
"""

import os
import sys

import typer

from forwarder import logs
from forwarder.cli import (
    access_keys,
    backend,
    background,
    certs,
    console,
    dead,
    demo,
    demo_log,
    doctor,
    drain,
    init,
    keys,
    policy,
    receive,
    replay,
    rules,
    sidecar,
    status,
    up,
    version,
    watch,
)
from forwarder.errors import ConfigError, ForwarderError

RUN, LOOK, SET_UP = "Run", "Look", "Set up"

app = typer.Typer(
    name="forwarder",
    help="Finds the moments when people go around the platform, in the Kubernetes audit log; scores every service.",
    epilog="Start here: forwarder up --audit-log /var/log/kubernetes/audit/audit.log",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its traceback prints local variables: payloads and keys
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command(rich_help_panel=RUN)(up.up)
app.command(rich_help_panel=RUN)(background.down)
app.command(rich_help_panel=RUN)(background.logs)
app.command(rich_help_panel=RUN)(receive.receive)
app.command(rich_help_panel=RUN)(drain.drain)
app.add_typer(backend.app, name="backend", rich_help_panel=RUN)
app.command(rich_help_panel=RUN)(sidecar.sidecar)
app.command(rich_help_panel=LOOK)(watch.watch)
app.command(rich_help_panel=LOOK)(status.status)
app.command(rich_help_panel=LOOK)(doctor.doctor)
app.command(rich_help_panel=LOOK)(replay.replay)
app.add_typer(rules.app, name="rules", rich_help_panel=LOOK)
app.add_typer(policy.app, name="policy", rich_help_panel=LOOK)
app.add_typer(dead.app, name="dead", rich_help_panel=LOOK)
app.command(rich_help_panel=LOOK)(version.version)
app.command(rich_help_panel=SET_UP)(init.init)
app.add_typer(keys.app, name="keys", rich_help_panel=SET_UP)
keys.app.command()(access_keys.create)
keys.app.command("list")(access_keys.list_keys)
keys.app.command()(access_keys.revoke)
app.command(rich_help_panel=SET_UP)(certs.certs)
app.command(rich_help_panel=SET_UP)(demo.demo)
app.command("demo-log", rich_help_panel=SET_UP)(demo_log.demo_log)


def main() -> None:
    """Run the command line and end the process: 0 done, 1 failed at run time, 2 bad configuration or usage."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without ✓ shows `?` instead of a stack trace
    sys.exit(run())


def run() -> int:
    """Run the command line on sys.argv; the exit code."""
    logs.configure("warning")  # services choose for themselves
    try:
        app(prog_name="forwarder")
    except SystemExit as end:
        return _flushed(end.code if end.code in (console.DONE, console.USAGE) else console.FAILED)
    except ConfigError as error:
        console.fail(str(error))
        return console.USAGE
    except ForwarderError as error:
        console.fail(str(error))
        return console.FAILED
    except BrokenPipeError:
        return _closed_pipe()
    except KeyboardInterrupt:
        return console.FAILED
    except OSError as error:
        console.fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return console.FAILED
    except Exception as error:  # noqa: BLE001 - a fault of ours: say so without the local variables a traceback may quote
        console.fail("a fault in forwarder itself; please report it with these lines:")
        for line in logs.describe(error):
            console.say(f"    {line}")
        return console.FAILED
    return _flushed(console.DONE)


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _closed_pipe()
    except OSError as error:  # a full disk behind `> file`: the data is not there, so this is no success
        console.fail(f"standard output: {error.strerror}")
        return console.FAILED
    return code


def _closed_pipe() -> int:
    """`forwarder … | head` ended early: nothing is wrong, and Python must not complain when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return console.DONE
