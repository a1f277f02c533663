"""The Forward protocol's handshake: HELO, PING, PONG; both sides prove a shared key, and the client perhaps a user.

    server                                                client
    ["HELO", {nonce, auth, keepalive}]          ------->
                                                <-------  ["PING", host, salt, sha512(salt+host+nonce+key),
                                                           user, sha512(auth+user+password)]
    ["PONG", ok, reason, host, sha512(salt+host+nonce+key)]  ->

Digests are lower-case hex over the plain concatenation. Sans-IO: takes and gives bytes and messages, and is told its
random numbers. Each of HELO and PONG must leave in one write: Fluent Bit fails on a partial read of either.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any

import msgpack
import msgspec

from forwarder.errors import ForwardProtocolError

MAX_HANDSHAKE_BYTES = 4 << 10  # a PING is below 500 bytes; nobody is authenticated yet, so nobody may make us hold more
NONCE_BYTES = 16

SERVER_NAME = "friction-forwarder"
"""Our name in PONG. Fluentd and the node client refuse a server with their own host name, so it is none."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the server made of a PING. reply: the PONG, to be sent whether ok or not; then, if not ok, close at once.

    reason: why not, for the client and the log; it holds nothing that the client sent. user: authenticated, "" for none.
    """

    ok: bool
    reply: bytes
    reason: str = ""
    user: str = ""


class ServerHandshake:
    """The server's side of one connection. users: name -> password; empty means that the key alone is enough."""

    def __init__(self, shared_key: str, users: Mapping[str, str], *, nonce: bytes = b"", auth: bytes = b"") -> None:
        self._key = shared_key.encode()
        self._users = users
        self._nonce = nonce or secrets.token_bytes(NONCE_BYTES)
        # An `auth` that is present and empty makes Fluent Bit send digests of nothing; that is how "no users" is said.
        self._auth = (auth or secrets.token_bytes(NONCE_BYTES)) if users else b""

    def hello(self) -> bytes:
        """HELO. Nonce and auth go as bin: the node client decodes a str as UTF-8 and would change them."""
        return _pack(["HELO", {"nonce": self._nonce, "auth": self._auth, "keepalive": True}])

    def judge(self, message: bytes) -> Verdict:
        """The verdict on a PING. Raises ForwardProtocolError for what is none."""
        kind, *parts = _texts(message)
        if kind != b"PING" or len(parts) != 5:
            raise ForwardProtocolError("expected PING with five values")
        host, salt, digest, user, password_digest = parts
        if not hmac.compare_digest(_digest(salt, host, self._nonce, self._key), digest):
            return self._refuse("the shared key is wrong")  # Fluent Bit shows the first 31 characters
        if self._users and not self._knows(user, password_digest):
            return self._refuse("user name or password is wrong")
        proof = _digest(salt, SERVER_NAME.encode(), self._nonce, self._key).decode()
        name = user.decode("utf-8", "replace") if self._users else ""
        return Verdict(ok=True, reply=_pack(["PONG", True, "", SERVER_NAME, proof]), user=name)

    def _knows(self, user: bytes, digest: bytes) -> bool:
        """Compares for an unknown user too, so that the time says nothing about which names exist."""
        try:
            password = self._users.get(user.decode())
        except UnicodeDecodeError:
            password = None
        expected = _digest(self._auth, user, (password or "").encode())
        return hmac.compare_digest(expected, digest) and password is not None

    def _refuse(self, reason: str) -> Verdict:
        return Verdict(ok=False, reply=_pack(["PONG", False, reason, "", ""]), reason=reason)


class ClientHandshake:
    """The client's side of one connection, for `doctor`, the relay's check and the tests."""

    def __init__(
        self, shared_key: str, *, user: str = "", password: str = "", host: str = "localhost", salt: bytes = b""
    ) -> None:
        self._key, self._user, self._password = shared_key.encode(), user.encode(), password.encode()
        self._host = host.encode()
        self._salt = salt or secrets.token_hex(NONCE_BYTES).encode()
        self._nonce = b""

    def answer(self, hello: bytes) -> bytes:
        """PING for the HELO received. Raises ForwardProtocolError for what is none."""
        message = _unpack(hello)
        if len(message) < 2 or message[0] != b"HELO" or not isinstance(message[1], dict):
            raise ForwardProtocolError("expected HELO")
        self._nonce, auth = message[1].get(b"nonce", b""), message[1].get(b"auth", b"")
        if not isinstance(self._nonce, bytes) or not isinstance(auth, bytes):
            raise ForwardProtocolError("expected HELO with a nonce")
        user = (self._user, _digest(auth, self._user, self._password)) if auth else (b"", b"")
        proof = _digest(self._salt, self._host, self._nonce, self._key)
        # Everything but HELO's random numbers goes as str, as other clients send it.
        return bytes(msgpack.packb(["PING", self._host, self._salt, proof, *user], use_bin_type=False))

    def check(self, pong: bytes) -> None:
        """Raises ForwardProtocolError when the server refuses, or does not know the key itself."""
        message = _unpack(pong)
        if len(message) != 5 or message[0] != b"PONG":
            raise ForwardProtocolError("expected PONG with four values")
        _, ok, reason, host, digest = message
        if not ok:
            raise ForwardProtocolError(f"the server refused: {_plain(reason)}")
        if not isinstance(host, bytes) or not isinstance(digest, bytes):
            raise ForwardProtocolError("expected PONG with text in it")
        if not hmac.compare_digest(_digest(self._salt, host, self._nonce, self._key), digest):
            raise ForwardProtocolError("the server does not know the shared key")


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha512(b"".join(parts)).hexdigest().encode()


def _pack(message: list[Any]) -> bytes:
    return bytes(msgpack.packb(message, use_bin_type=True))


def _unpack(message: bytes) -> list[Any]:
    """Raw: strings carry salts that are not UTF-8 (Fluent Bit's is 16 random bytes)."""
    try:
        parts = msgpack.unpackb(message, raw=True, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        parts = None
    if not isinstance(parts, list) or not parts:
        raise ForwardProtocolError("a handshake message that is no list")
    return parts


def _texts(message: bytes) -> list[bytes]:
    parts = _unpack(message)
    if not all(isinstance(part, bytes) for part in parts):
        raise ForwardProtocolError("a handshake message whose values are not all text")
    return parts


def _plain(text: object) -> str:
    """The server's words, short and without control characters."""
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else ""
    return "".join(char for char in shown[:200] if char.isprintable()) or "it gave no reason"
