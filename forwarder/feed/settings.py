"""Settings of the live feed; imports no gRPC, because a settings file is read before it is known whether there is a feed.

feed: {listen: 127.0.0.1:32767}
feed: {listen: 0.0.0.0:32767, tls: {cert_file: feed.crt, key_file: feed.key, client_ca_file: clients.crt}}
feed: {listen: 0.0.0.0:32767, tls: {cert_file: feed.crt, key_file: feed.key}, token: ${FEED_TOKEN}}
"""

import msgspec

from forwarder.errors import ConfigError
from forwarder.settings import Address, parse_address
from forwarder.wire.listen import TlsSettings, server_context

DEFAULT_PORT = 32767  # KubeArmor's, so that its clients need no other number
MAX_QUEUE_EVENTS = 100_000  # per client; more is a database, and there is one behind the outbox


class FeedSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """listen: HOST:PORT or unix:/path. tls: PEM files; with `client_ca_file` clients must show a certificate (mutual TLS).
    token: bearer token that clients must send as `authorization` metadata; needs TLS off loopback.
    allow_anonymous: open the door to everybody who reaches it; `karmor` can show neither certificate nor token.
    queue_events: how many events may wait for one client before it loses some, default 1000 as in KubeArmor.
    """

    listen: str = f"127.0.0.1:{DEFAULT_PORT}"
    tls: TlsSettings | None = None
    token: str | None = None
    allow_anonymous: bool = False
    queue_events: int = 1000

    @property
    def address(self) -> Address:
        return parse_address(self.listen, where="feed.listen", default_port=DEFAULT_PORT)


def check(settings: FeedSettings) -> None:
    """Raises ConfigError for settings that must not or cannot be served; reads the certificates, opens nothing."""
    address = settings.address
    if settings.tls:
        server_context(settings.tls, "feed.tls")
    if not 1 <= settings.queue_events <= MAX_QUEUE_EVENTS:
        raise ConfigError(f"from 1 to {MAX_QUEUE_EVENTS}", where="feed.queue_events")
    if address.local or settings.allow_anonymous:
        return
    if settings.token and not settings.tls:
        raise ConfigError(
            f"without `tls` the token would cross the network to {address} readable for everybody; add `tls`, or listen on "
            "127.0.0.1",
            where="feed.token",
        )
    if not settings.token and not (settings.tls and settings.tls.client_ca_file):
        raise ConfigError(
            f"the feed would show every event to anyone who reaches {address}. Give it a way to know its clients "
            "(`tls` with `client_ca_file`, or `tls` and `token`), listen on 127.0.0.1, or write `allow_anonymous: true`",
            where="feed.listen",
        )
