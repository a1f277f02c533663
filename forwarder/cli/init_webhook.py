"""What `forwarder init --webhook` writes: the kubeconfig for kube-apiserver, and certificates where its URL begins with https.

    forwarder init --webhook --webhook-url https://10.0.0.5:9765/audit
    kube-apiserver --audit-webhook-config-file=…/audit-webhook.kubeconfig --audit-policy-file=…

The kubeconfig holds the token and the authority's certificate, so that it is the only file to copy. It is 0600.
"""

import base64
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import msgspec
import yaml

from forwarder.cli.private_files import write_private
from forwarder.errors import ConfigError
from forwarder.settings import Address

KUBECONFIG = "audit-webhook.kubeconfig"
TOKEN = "WEBHOOK_TOKEN"  # noqa: S105 - its name
CERTS = "certs"
DEFAULT_URL = "http://127.0.0.1:9765/audit"


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """Where kube-apiserver posts to, as checked. listen: where the receiver listens for it. path: of the URL."""

    url: str
    listen: str
    path: str
    host: str
    tls: bool


def read_url(url: str) -> Webhook:
    """Raises ConfigError for a URL that cannot be served or would show the token to the network."""
    where = "--webhook-url"
    try:
        parts: SplitResult = urlsplit(url)
        port = parts.port or 9765
    except ValueError:
        raise ConfigError(f"{url!r}: write https://HOST:PORT/audit", where=where) from None
    host = parts.hostname or ""
    if (
        parts.scheme not in ("http", "https")
        or not host
        or parts.username
        or parts.query
        or not url.isprintable()
        or '"' in url
    ):
        raise ConfigError(f"{url!r}: write https://HOST:PORT/audit", where=where)
    local = Address(host=host, port=port).local
    if parts.scheme == "http" and not local:
        raise ConfigError("over http the token crosses the network for everybody to read; write https://", where=where)
    name = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/") or "/audit"
    listen = f"{name if local else '0.0.0.0'}:{port}"  # noqa: S104 - it asks for the token
    return Webhook(
        url=f"{parts.scheme}://{name}:{port}{path}", listen=listen, path=path, host=host, tls=parts.scheme == "https"
    )


def make_certificates(folder: Path, webhook: Webhook) -> list[Path]:
    """The authority and the server's certificate in `folder`/certs, as far as they are not there; the files written."""
    from forwarder.cli.authority import LEAF_DAYS, issue
    from forwarder.cli.certs import NAMESPACE, SERVICE, authority_in, service_names, write_pair

    certs = folder / CERTS
    if (certs / "server.crt").exists() and (certs / "server.key").exists():
        return []
    ca, made = authority_in(certs)
    names = [webhook.host, *service_names(SERVICE, NAMESPACE)]
    server = issue(ca, names[0][:64], list(dict.fromkeys(names)), server=True, days=LEAF_DAYS)
    certs.mkdir(parents=True, exist_ok=True)
    if made:
        write_pair(certs, "ca", ca)
    write_pair(certs, "server", server)
    return [certs / f"{name}.{end}" for name in (["ca"] if made else []) + ["server"] for end in ("crt", "key")]


def write_kubeconfig(folder: Path, webhook: Webhook, token: str) -> Path:
    """The file that kube-apiserver is given."""
    cluster: dict[str, str] = {"server": webhook.url}
    if webhook.tls:
        cluster["certificate-authority-data"] = base64.b64encode((folder / CERTS / "ca.crt").read_bytes()).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "friction-forwarder", "cluster": cluster}],
        "users": [{"name": "kube-apiserver", "user": {"token": token}}],
        "contexts": [{"name": "audit", "context": {"cluster": "friction-forwarder", "user": "kube-apiserver"}}],
        "current-context": "audit",
    }
    text = "# kube-apiserver --audit-webhook-config-file=… --audit-webhook-batch-max-wait=1s; it holds a token: keep it 0600\n"
    path = folder / KUBECONFIG
    write_private(path, (text + yaml.safe_dump(document, sort_keys=False)).encode())
    return path
