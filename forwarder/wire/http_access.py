"""Who may post to an HTTP door: a bearer token, a user with a password, a token that stands for a cluster, or a certificate.

    access = Access(token="…", users={"apiserver": "…"}, cluster_tokens={"prod-eu-1": "…"})
    access.check({"authorization": "Bearer …"})     Visitor(cluster="prod-eu-1"), or None: refused

A client certificate is asked for by TLS itself (`client_ca_file`); what is set here is asked for on top of it. Secrets are
compared in constant time, all of them each time.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping

import msgspec

FIREHOSE_KEY = "x-amz-firehose-access-key"  # how Amazon Data Firehose sends its key; Authorization is not its to set


class Visitor(msgspec.Struct, frozen=True):
    """Somebody who may come in. cluster: the one that the token stands for, or ""."""

    cluster: str = ""


class Access:
    """What is asked of every request; nothing at all where nothing is set."""

    def __init__(self, *, token: str | None, users: Mapping[str, str], cluster_tokens: Mapping[str, str]) -> None:
        self._tokens = [(value.encode(), "") for value in [token] if value]
        self._tokens += [(value.encode(), cluster) for cluster, value in cluster_tokens.items()]
        self._users = [f"{name}:{password}".encode() for name, password in users.items()]
        self.required = bool(self._tokens or self._users)
        self.challenge = ", ".join(
            (["Bearer"] if self._tokens else []) + (['Basic realm="audit"'] if self._users else [])
        )

    def check(self, headers: Mapping[str, str]) -> Visitor | None:
        """headers: names in lower case. None where the request may not come in."""
        if not self.required:
            return Visitor()
        scheme, _, given = headers.get("authorization", "").strip().partition(" ")
        if scheme.lower() == "basic":
            return self._user(given.strip())
        if scheme.lower() == "bearer":
            return self._bearer(given.strip().encode("utf-8", "replace"))
        return self._bearer(headers.get(FIREHOSE_KEY, "").encode("utf-8", "replace"))

    def _bearer(self, given: bytes) -> Visitor | None:
        matches = [cluster for token, cluster in self._tokens if hmac.compare_digest(given, token)]
        return Visitor(matches[0]) if matches else None

    def _user(self, given: str) -> Visitor | None:
        try:
            credentials = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            return None
        matches = [True for user in self._users if hmac.compare_digest(credentials, user)]
        return Visitor() if matches else None
