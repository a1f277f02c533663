"""`forwarder certs`: an authority, a certificate for the receiver and one for its clients, as PEM files.

    ca.crt ca.key           who signs; ca.key is needed for renewal only and belongs on no cluster
    server.crt server.key   the receiver, by every name that clients reach it under
    client.crt client.key   Fluent Bit, for mutual TLS; its name may stand for the cluster (`cluster_from_certificate`)

All of them are 0600. A file that is there stays unless --force says otherwise; the authority stays even then, so that
renewed certificates are trusted by everyone who trusted the old ones. A new authority begins in a new folder.
"""

from pathlib import Path
from typing import Annotated

import typer

from forwarder.cli import console
from forwarder.cli.authority import CA_DAYS, LEAF_DAYS, Pair, expires, issue, make_ca
from forwarder.cli.console import out, say, stop
from forwarder.cli.private_files import write_private
from forwarder.errors import ConfigError

SERVICE = (
    "friction-forwarder"  # the receiver's Service, and the name that fluent-bit/node.yaml expects in its certificate
)
NAMESPACE = "friction-forwarder"
MAX_PEM_BYTES = 64 << 10  # a chain of a dozen certificates


def certs(
    folder: Annotated[Path, typer.Option("--dir", "-d", help="Where the files go, and where the authority is.")] = Path(
        "certs"
    ),
    server: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Name or address that the receiver is reached as; again for more; default {SERVICE} and kin."
        ),
    ] = None,
    client: Annotated[str, typer.Option(help="Name in the client's certificate.")] = "fluent-bit",
    days: Annotated[int, typer.Option(help="How long server and client certificates are valid.", min=1)] = LEAF_DAYS,
    force: Annotated[bool, typer.Option("--force", help="Replace server and client; the authority stays.")] = False,
) -> None:
    """Make an authority, a server certificate and a client certificate; or renew the two with --force."""
    there = [name for name in ("server.crt", "server.key", "client.crt", "client.key") if (folder / name).exists()]
    if there and not force:
        stop(f"already there: {', '.join(there)}; nothing was written; --force replaces them", console.USAGE)
    ca, made = authority_in(folder)
    names = server or service_names(SERVICE, NAMESPACE)
    pairs = {
        "server": issue(ca, names[0][:64], names, server=True, days=days),
        "client": issue(ca, client, [client], server=False, days=days),
    }
    if made:
        write_pair(folder, "ca", ca)
    out(f"{folder / 'ca.crt'}  {'new authority' if made else 'authority kept'}, until {_day(ca)}")
    for name, pair in pairs.items():
        write_pair(folder, name, pair)
        out(f"{folder / name}.crt  until {_day(pair)}")
    say("all files are readable by their owner only (0600)")
    say(f"keep {folder / 'ca.key'} away from the cluster; it is needed for `forwarder certs --force` when these end")


def authority_in(folder: Path) -> tuple[Pair, bool]:
    """The authority of `folder`, and whether it had to be made; a made one is not written yet. Raises ConfigError."""
    certificate, key = folder / "ca.crt", folder / "ca.key"
    if certificate.exists() != key.exists():
        missing = key if certificate.exists() else certificate
        raise ConfigError("is missing; put it back, or begin in an empty folder", where=str(missing))
    if not certificate.exists():
        return make_ca("friction-forwarder CA", days=CA_DAYS), True
    return Pair(_read(certificate), _read(key)), False


def service_names(service: str, namespace: str) -> list[str]:
    """Every name of a Service inside its cluster; `localhost` is for port-forwards and for tests on one machine."""
    inside = f"{service}.{namespace}"
    return [service, inside, f"{inside}.svc", f"{inside}.svc.cluster.local", "localhost", "127.0.0.1"]


def write_pair(folder: Path, name: str, pair: Pair) -> None:
    """`name`.crt and `name`.key, both 0600: whoever copies the folder copies no key that others could read."""
    write_private(folder / f"{name}.crt", pair.certificate)
    write_private(folder / f"{name}.key", pair.key)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_PEM_BYTES)
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", where=str(path)) from None


def _day(pair: Pair) -> str:
    return f"{expires(pair.certificate):%Y-%m-%d}"
