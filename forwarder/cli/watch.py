"""`forwarder watch [TARGET]…`: friction events, audit events and notices as they happen, from one feed or several."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from forwarder.cli import console
from forwarder.cli.console import FAILED, plural, say, warn
from forwarder.errors import ConfigError

if TYPE_CHECKING:
    from forwarder.cli.watch_filter import Filter
    from forwarder.cli.watch_view import View
    from forwarder.feed.audience import Stream
    from forwarder.feed.client import News, Seen, Target, Tls

TOKEN_VARIABLE = "FEED_TOKEN"  # noqa: S105 - the name of a variable


def watch(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[TARGET]…", help="HOST:PORT of feeds; default 127.0.0.1:32767.")
    ] = None,
    alerts: Annotated[bool, typer.Option("--alerts", help="Friction events; the default.")] = False,
    logs: Annotated[bool, typer.Option("--logs", help="All audit events.")] = False,
    messages: Annotated[bool, typer.Option("--messages", help="Notices of the receiver itself.")] = False,
    namespace: Annotated[list[str] | None, typer.Option(help="Only these namespaces (glob); again for more.")] = None,
    rule: Annotated[list[str] | None, typer.Option(help="Only these rules (glob); again for more.")] = None,
    actor: Annotated[list[str] | None, typer.Option(help="Only these people (glob); again for more.")] = None,
    severity: Annotated[str, typer.Option(help="The lowest to show: low, medium or high.")] = "",
    regex: Annotated[str, typer.Option(help="Only lines that this is found in; ignores case.")] = "",
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line, with KubeArmor's names.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="End after so many were shown; 0 is never.")] = 0,
    tls: Annotated[bool, typer.Option("--tls", help="TLS, with the authorities of this machine.")] = False,
    tls_ca: Annotated[Path | None, typer.Option(help="TLS, with this authority (PEM).")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate to show (PEM), with --tls-key.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).")] = None,
    tls_name: Annotated[str, typer.Option(help="Name in the feed's certificate, where it is not the host.")] = "",
    token_file: Annotated[
        Path | None, typer.Option(help=f"File with the feed's token; else the variable {TOKEN_VARIABLE}.")
    ] = None,
) -> None:
    """Watch friction events as they happen; Ctrl-C ends it."""
    from forwarder.cli.watch_filter import Filter

    chosen: list[Stream] = []
    if alerts or not (logs or messages):
        chosen.append("alerts")
    if logs:
        chosen.append("logs")
    if messages:
        chosen.append("messages")
    accepts = Filter(namespaces=namespace or (), rules=rule or (), actors=actor or (), severity=severity, regex=regex)
    import asyncio

    _needs_grpc()
    wanted = tls or tls_ca or tls_cert or tls_key or tls_name
    found = _targets(targets or [], _tls(tls_ca, tls_cert, tls_key, tls_name) if wanted else None, _token(token_file))
    from forwarder.cli.watch_view import View

    view = View(colour=_in_colour(), show_target=len(found) > 1, columns=_columns if _on_a_terminal() else None)
    printer = Printer(accepts, None if json else view, limit=limit)
    asyncio.run(_run(found, chosen, printer))
    printer.summary()
    if printer.gave_up == len(found):
        raise typer.Exit(FAILED)


class Printer:
    """Shows what the feeds tell, and counts it. view: for people; None prints JSON."""

    def __init__(self, accepts: "Filter", view: "View | None", *, limit: int = 0) -> None:
        import asyncio

        self.stopping = asyncio.Event()
        self.gave_up = 0
        self._accepts = accepts
        self._view = view
        self._limit = limit
        self._received = self._shown = self._dropped = 0
        self._blind_s = 0.0

    def tell(self, news: "News") -> None:
        """One piece of news of any feed; events to stdout, what is to be known about feeds to stderr (JSON: all to stdout)."""
        from forwarder.feed import client

        match news:
            case client.Seen():
                self._seen(news)
            case client.Connected(target):
                say(f"watching {target}")
            case client.Missed(target, seconds):
                self._blind_s += seconds
                self._notice(
                    "Missed", target, f"{target}: back; what happened in {seconds:.1f} s was not seen", seconds
                )
            case client.Lost(target, reason):
                self._notice("Lost", target, f"{target}: {reason}; trying again", reason)
            case client.GaveUp(target, reason):
                self.gave_up += 1
                console.fail(f"{target}: {reason}")

    def summary(self) -> None:
        """The last line: what was shown and what was missed."""
        words = f"{plural(self._shown, 'line')} shown"
        if self._received != self._shown:
            words += f" of {self._received:,} received"
        if self._dropped:
            words += f"; {self._dropped:,} lost because this side was too slow"
        if self._blind_s:
            words += f"; not watching for {self._blind_s:.1f} s"
        say(words)

    # --- private -----------------------------------------------------------------------------------------------------

    def _seen(self, seen: "Seen") -> None:
        from forwarder.cli.watch_view import as_object, facts

        if self.stopping.is_set():
            return
        if seen.dropped:
            self._dropped += seen.dropped
            if self._view:
                say(self._view.dropped(seen))
            else:
                self._print(msgspec.json.encode(as_object(seen)).decode())
            return
        self._received += 1
        fact = facts(seen)
        if not self._accepts(fact):
            return
        self._print(self._view.line(seen.target, fact) if self._view else msgspec.json.encode(as_object(seen)).decode())
        self._shown += 1
        if self._shown == self._limit:
            self.stopping.set()

    def _notice(self, kind: str, target: str, words: str, value: object) -> None:
        if self._view:
            warn(words)
        else:
            name = "Seconds" if kind == "Missed" else "Reason"
            self._print(msgspec.json.encode({"Target": target, "Stream": kind.lower(), name: value}).decode())

    def _print(self, line: str) -> None:
        try:
            console.out(line)
            sys.stdout.flush()  # whoever reads a pipe wants it now, too
        except BrokenPipeError:  # `watch | head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.stopping.set()


async def _run(targets: Sequence["Target"], streams: Sequence["Stream"], printer: Printer) -> None:
    import asyncio
    import signal

    from forwarder.feed.client import follow

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, printer.stopping.set)
    await asyncio.gather(*(follow(target, streams, printer.tell, printer.stopping) for target in targets))


def _needs_grpc() -> None:
    try:
        import grpc  # noqa: F401 - only whether it is there
    except ImportError:
        raise ConfigError("`watch` needs gRPC: pip install 'friction-forwarder[feed]'") from None


def _targets(texts: Sequence[str], tls: "Tls | None", token: str) -> list["Target"]:
    from forwarder.feed.client import Target
    from forwarder.feed.settings import DEFAULT_PORT
    from forwarder.settings import parse_address

    addresses = [
        parse_address(text, where=f"target {text}", default_port=DEFAULT_PORT)
        for text in texts or [f"127.0.0.1:{DEFAULT_PORT}"]
    ]
    if token and tls is None and not all(address.local for address in addresses):
        raise ConfigError("a token goes to another machine over TLS only; add --tls or --tls-ca", where="--token-file")
    return [Target(address=address, tls=tls, token=token) for address in dict.fromkeys(addresses)]


def _tls(ca: Path | None, cert: Path | None, key: Path | None, name: str) -> "Tls":
    from forwarder.feed.client import Tls

    if bool(cert) != bool(key):
        raise ConfigError("both are needed, or none", where="--tls-cert, --tls-key")
    return Tls(ca_file=str(ca or ""), cert_file=str(cert or ""), key_file=str(key or ""), name=name)


def _token(file: Path | None) -> str:
    from forwarder.settings import read_secret

    return read_secret(str(file), where="--token-file") if file else os.environ.get(TOKEN_VARIABLE, "")


def _on_a_terminal() -> bool:
    return console.is_terminal(sys.stdout)


def _in_colour() -> bool:
    return _on_a_terminal() and not os.environ.get("NO_COLOR")


def _columns() -> int:
    return shutil.get_terminal_size().columns
