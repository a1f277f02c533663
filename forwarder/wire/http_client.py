"""HTTP calls that end: one total deadline, a bounded reply, no redirects, and errors as words for an operator.

`requests` bounds each wait for bytes, but not their sum: a peer that sends a header byte now and then, or a name server
that never answers, would hold a call for hours. So each call runs in a thread of its own and the caller waits until the
deadline; then the call's socket is shut down, which ends its thread. A thread that cannot be ended (it is inside a name
lookup) is left alone, and until it has ended further calls fail at once: there is never more than one.

The bearer token is sent by an `auth` object: `requests` would otherwise prefer what it finds for that host in ~/.netrc.
Proxies come from the environment (HTTPS_PROXY, NO_PROXY).
"""

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import requests
import requests.auth
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

MAX_REPLY_BYTES = 1 << 20  # 1000 results with a sentence each are a tenth of it; a stream without end is none of ours
ABORT_GRACE_S = 0.5  # for a thread to end once its socket is shut down
CONNECT_SHARE = 0.5  # of the deadline, for one address: a name with a dead first address gets to its second


class Reply(msgspec.Struct, frozen=True):
    """What came back. headers: any case. body: as sent, at most MAX_REPLY_BYTES."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Fault(msgspec.Struct, frozen=True):
    """Nothing usable came back; `reason` is free of secrets."""

    reason: str


class HttpClient:
    """Keeps connections alive between calls. One call at a time. `adapter` stands in for the network in tests.

    client_cert: PEM files of certificate and key, where the peer asks for one. keep_alive: False closes after each call.
    """

    def __init__(
        self,
        *,
        token: str = "",
        ca_file: str = "",
        client_cert: tuple[str, str] | None = None,
        keep_alive: bool = True,
        adapter: BaseAdapter | None = None,
    ) -> None:
        self._session = requests.Session()
        self._session.headers = requests.structures.CaseInsensitiveDict(
            # No compression: a small reply could unfold to any size before it can be bounded.
            {"User-Agent": "friction-forwarder", "Accept": "application/json", "Accept-Encoding": "identity"}
        )
        for prefix in ("http://", "https://"):
            self._session.mount(prefix, adapter or _Adapter(max_retries=0, pool_maxsize=1))
        if not keep_alive:
            self._session.headers["Connection"] = "close"
        self._session.cert = client_cert
        self._auth = _Bearer(token)
        self._verify: bool | str = ca_file or True
        self._last: _Call | None = None

    def call(self, method: str, url: str, *, deadline_s: float, body: bytes | None = None) -> Reply | Fault:
        """Returns within `deadline_s` (and ABORT_GRACE_S); raises nothing."""
        if self._last is not None and self._last.is_alive():
            return Fault("the call before this one still hangs")
        self._last = call = _Call(self._session, method, url, body, deadline_s, self._auth, self._verify)
        call.start()
        call.join(deadline_s)
        if call.is_alive():
            call.abort()
            call.join(ABORT_GRACE_S)
            return Fault(f"no answer within {deadline_s:g} s")
        if call.failure is not None:
            return Fault(_words(call.failure, deadline_s))
        assert call.reply is not None
        return call.reply

    def close(self) -> None:
        """Close idle connections."""
        self._session.close()


class _Bearer(requests.auth.AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


# --- one call --------------------------------------------------------------------------------------------------------

_here = threading.local()  # .call: the _Call whose thread this is


class _Call(threading.Thread):
    def __init__(
        self,
        session: requests.Session,
        method: str,
        url: str,
        body: bytes | None,
        deadline_s: float,
        auth: _Bearer,
        verify: bool | str,
    ) -> None:
        super().__init__(name=f"http {method}", daemon=True)
        self.reply: Reply | None = None
        self.failure: Exception | None = None
        self._session = session
        self._arguments: dict[str, Any] = {
            "method": method,
            "url": url,
            "data": body,
            "headers": {"Content-Type": "application/json"} if body is not None else {},
            "timeout": (deadline_s * CONNECT_SHARE, deadline_s),
            "allow_redirects": False,  # a redirect could carry the token to another host
            "stream": True,
            "auth": auth,
            "verify": verify,
        }
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._aborted = False

    def run(self) -> None:
        _here.call = self
        try:
            with self._session.request(**self._arguments) as response:
                body = bytearray()
                # To the very end: only there urllib3 notices a reply that was cut short.
                while piece := response.raw.read(MAX_REPLY_BYTES + 1 - len(body), decode_content=False):
                    body += piece
                    if len(body) > MAX_REPLY_BYTES:
                        raise _TooLongError
                self.reply = Reply(response.status_code, response.headers, bytes(body))
        except Exception as error:  # noqa: BLE001 - whatever happened, the caller is told in words
            self.failure = error

    def watch(self, connection_socket: socket.socket | None) -> None:
        """The call's connection uses this socket from now on."""
        with self._lock:
            self._socket = connection_socket
            if self._aborted:
                self._shut_down()

    def abort(self) -> None:
        """Make whatever the thread does on its socket fail."""
        with self._lock:
            self._aborted = True
            self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is None:
            return
        try:
            # Not SSLSocket.shutdown: that would forget the TLS state under the reading thread, which would then take
            # ciphertext for text.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            pass  # closed in the meantime


class _TooLongError(Exception):
    pass


def _watch(connection_socket: Any) -> None:
    call = getattr(_here, "call", None)
    if call is not None:
        call.watch(connection_socket)


class _HttpConnection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _watch(self.sock)

    def putrequest(self, *arguments: Any, **options: Any) -> None:
        _watch(self.sock)  # a connection that was kept alive
        super().putrequest(*arguments, **options)


class _HttpsConnection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _watch(self.sock)

    def putrequest(self, *arguments: Any, **options: Any) -> None:
        _watch(self.sock)
        super().putrequest(*arguments, **options)


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


class _Adapter(HTTPAdapter):
    """Connections whose sockets are known to the call that uses them."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **options)
        manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        return manager


# --- errors in words -------------------------------------------------------------------------------------------------


def _words(error: Exception, deadline_s: float) -> str:
    """The cause that a person can act on; the texts of requests and urllib3 bury it, and quote URLs."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, _TooLongError):
            return f"the reply is longer than {MAX_REPLY_BYTES >> 20} MiB"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"TLS: its certificate is not trusted ({cause.verify_message})"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed ({getattr(cause, 'reason', None) or 'connection closed'})"
        if isinstance(cause, socket.gaierror):
            return f"its name cannot be looked up ({cause.strerror})"
    for cause in causes:
        if isinstance(cause, urllib3.exceptions.NewConnectionError):  # which calls itself a TimeoutError, too
            return "it cannot be reached"
        if isinstance(cause, TimeoutError | requests.Timeout | urllib3.exceptions.TimeoutError):
            return f"no answer within {deadline_s:g} s"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    if isinstance(error, requests.ConnectionError | urllib3.exceptions.HTTPError):
        return "the connection was closed early"
    return f"the call failed ({type(error).__name__})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps, innermost first."""
    found: list[BaseException] = []
    ahead: list[Any] = [error]
    while ahead:
        item = ahead.pop()
        if isinstance(item, BaseException) and not any(item is other for other in found):
            found.append(item)
            ahead += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]
    return reversed(found)
