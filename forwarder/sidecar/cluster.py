"""The apiserver as the sidecar needs it: read one object, and watch it. The only module that knows the `kubernetes` client.

Both requests select the object by name, so that a role which is limited to that name (`resourceNames`) is enough. Every
failure is a ClusterError in words that say what to do; the bodies of answers, which may be Secrets, are never in them.
"""

import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import quote, urlencode

import msgspec

from forwarder import __version__
from forwarder.errors import ConfigError, ForwarderError

Kind = Literal["Service", "Secret"]
Object = dict[str, Any]

CONNECT_TIMEOUT_S = 5.0
LIST_TIMEOUT_S = 10.0
WATCH_S = 240  # after which the apiserver ends a watch and we go on from where it was; its own range is 5 to 10 min
SILENCE_S = 90.0  # bookmarks come about once a minute: a watch that is silent longer hangs behind a dead connection
MAX_OBJECT_BYTES = 4 << 20  # etcd takes 1.5 MiB, and a Secret is written in base64 with its managed fields
READ_BYTES = 64 << 10


class ClusterError(ForwarderError):
    """A request that failed. cause: a short word for the metric; `gone` asks for a new list."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class Cluster:
    """One kubeconfig's apiserver. May be used by several threads; `close` ends their requests."""

    def __init__(self, kubecfg: str, temporary: str) -> None:
        """temporary: folder for what the kubeconfig holds inline, which OpenSSL reads from files only. Raises ConfigError."""
        self._api, self.server = _client(kubecfg, temporary)
        self._closed = False
        self._open: set[Any] = set()

    def read(self, kind: Kind, namespace: str, name: str) -> tuple[Object | None, str]:
        """The object, or None where there is none, and the version to watch from. Raises ClusterError."""
        with self._request(kind, namespace, name, LIST_TIMEOUT_S, {}) as answer:
            body = answer.read(MAX_OBJECT_BYTES + 1)
        found = _decode(body if len(body) <= MAX_OBJECT_BYTES else b"")
        items = found.get("items") or []
        version = str((found.get("metadata") or {}).get("resourceVersion", ""))
        return (items[0] if items else None), version

    def watch(self, kind: Kind, namespace: str, name: str, version: str) -> Iterator[tuple[str, Object]]:
        """Events (`ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`) after `version`, until the apiserver ends the watch. Raises
        ClusterError; its cause is `gone` where the version is too old.
        """
        options: dict[str, str | int] = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": WATCH_S,
            "resourceVersion": version,
        }
        with self._request(kind, namespace, name, SILENCE_S, options) as answer:
            for line in _lines(answer):
                event = _decode(line)
                changed = event.get("object") or {}
                if event.get("type") == "ERROR":
                    raise _status_error(int(changed.get("code", 500)), kind, namespace, name, self.server)
                yield str(event.get("type")), changed

    def close(self) -> None:
        """End every request that is open; threads that read see it fail."""
        self._closed = True
        for answer in list(self._open):
            with contextlib.suppress(Exception):
                answer.shutdown()  # unblocks a read in another thread; close alone would wait for it

    @contextlib.contextmanager
    def _request(
        self, kind: Kind, namespace: str, name: str, read_s: float, options: Mapping[str, str | int]
    ) -> Iterator[Any]:
        import urllib3  # noqa: PLC0415 - comes with the extra `sidecar`

        parameters = {"fieldSelector": f"metadata.name={name}", **options}
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/{kind.lower()}s?{urlencode(parameters)}"
        answer = None
        try:
            answer = self._api.rest_client.pool_manager.request(
                "GET",
                self.server + path,
                headers=self._headers(),
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_s),
                preload_content=False,
                redirect=False,  # nobody else is told our token
            )
            self._open.add(answer)
            if answer.status >= 300:
                raise _status_error(answer.status, kind, namespace, name, self.server)
            if self._closed:
                raise ClusterError("closed", "closed")
            yield answer
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ClusterError(*_explain(error, self.server)) from None
        finally:
            if answer is not None:
                self._open.discard(answer)
                answer.close()

    def _headers(self) -> dict[str, str]:
        """With the token of now: one from a file or a program is renewed by the client."""
        headers = {"Accept": "application/json", "User-Agent": f"friction-forwarder/{__version__}"}
        for way in self._api.configuration.auth_settings().values():
            if way["in"] == "header" and way["value"]:
                headers[way["key"]] = way["value"]
        return headers


def _client(kubecfg: str, temporary: str) -> tuple[Any, str]:
    """ApiClient and the server's address."""
    try:
        import kubernetes.client  # noqa: PLC0415 - only this command needs it, and it is an extra
        import kubernetes.config  # noqa: PLC0415
    except ImportError:
        raise ConfigError("the sidecar needs the extra `sidecar`: pip install 'friction-forwarder[sidecar]'") from None
    logging.getLogger("kubernetes").setLevel(logging.ERROR)
    logging.getLogger("kubernetes.client.rest").setLevel(logging.WARNING)  # at debug it logs bodies: Secrets
    if not os.path.exists(kubecfg):  # the client would say that it is invalid
        raise ConfigError("there is no kubeconfig; mount it there, or set --kubecfg", where=kubecfg)
    settings = kubernetes.client.Configuration()
    settings.retries = False  # ours are counted and backed off
    settings.socket_options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    ]
    try:
        kubernetes.config.load_kube_config(  # type: ignore[no-untyped-call,unused-ignore]
            config_file=kubecfg, client_configuration=settings, persist_config=False, temp_file_path=temporary
        )
    except kubernetes.config.ConfigException as error:
        # Its messages name keys of the file, never values.
        raise ConfigError(f"no kubeconfig that can be used: {error}", where=kubecfg) from None
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}; set --kubecfg", where=kubecfg) from None
    except Exception as error:  # noqa: BLE001 - a YAML error or a wrong type, whose text quotes the file
        raise ConfigError(f"no kubeconfig ({type(error).__name__}); check that it is YAML", where=kubecfg) from None
    return kubernetes.client.ApiClient(settings), str(settings.host).rstrip("/")


def _lines(answer: Any) -> Iterator[bytes]:
    """The lines of a watch as they come; a last one without its end is dropped: it was cut."""
    waiting = bytearray()
    while piece := answer.read1(READ_BYTES):
        waiting += piece
        *whole, rest = bytes(waiting).split(b"\n")
        waiting = bytearray(rest)
        if len(waiting) > MAX_OBJECT_BYTES:
            raise ClusterError("too_large", f"an event of the watch is larger than {MAX_OBJECT_BYTES >> 20} MiB")
        yield from filter(None, whole)


def _decode(body: bytes) -> Object:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        raise ClusterError("no_json", "what answers is no apiserver; check the kubeconfig's `server`") from None


def _status_error(status: int, kind: Kind, namespace: str, name: str, server: str) -> ClusterError:
    what = f"{kind} {namespace}/{name}"
    if status == 410:
        return ClusterError("gone", f"{what}: the version is too old; listing again")
    if status == 401:
        return ClusterError("unauthorized", f"{server} does not know these credentials (401); renew the kubeconfig")
    if status == 403:
        verbs = f"`list` and `watch` on {kind.lower()}s in {namespace}"
        return ClusterError("forbidden", f"{what}: not allowed (403); give the kubeconfig's user {verbs}")
    if status == 404:
        return ClusterError("not_found", f"{server} has no such path (404); check the kubeconfig's `server`")
    if status == 429 or status >= 500:
        return ClusterError("unavailable", f"{server} answers {status}; trying again")
    return ClusterError("refused", f"{what}: {server} answers {status}")


def _explain(error: BaseException, server: str) -> tuple[str, str]:
    """Cause and words for what happened below HTTP."""
    chain: list[BaseException] = []
    link: Any = error
    while isinstance(link, BaseException) and link not in chain:
        chain.append(link)
        link = getattr(link, "reason", None) or link.__cause__ or link.__context__
    for inner in chain:
        if isinstance(inner, ssl.SSLCertVerificationError):
            hint = "check `certificate-authority` in the kubeconfig"
            return "tls", f"{server}: its certificate cannot be verified ({inner.verify_message}); {hint}"
    for inner in chain:
        if isinstance(inner, ssl.SSLError):
            return "tls", f"{server}: TLS failed ({inner.reason or 'no reason given'})"
        if isinstance(inner, socket.gaierror):
            return "unreachable", f"{server}: no such host; check the kubeconfig's `server` and the DNS"
        if isinstance(inner, ConnectionRefusedError):
            return "unreachable", f"{server}: connection refused; is the apiserver running?"
        if isinstance(inner, TimeoutError) or "Timeout" in type(inner).__name__:
            return "timeout", f"{server}: no answer in time; check routes and firewalls"
    return "disconnected", f"{server}: the connection ended ({type(error).__name__})"
