"""The backend's settings, and the one rule that joins them: no open door to strangers.

backend:
  listen: 127.0.0.1:8000
  database: /var/lib/forwarder/backend.db      # or postgresql://user:password@host/name
  api_key_file: /run/secrets/healert-api-key
  threshold: 50
  half_life_days: 7
"""

import ipaddress
from typing import Annotated

import msgspec

from forwarder.backend.scoring import MAX_DAYS, Chosen
from forwarder.errors import ConfigError
from forwarder.settings import Address, parse_address

Days = Annotated[int, msgspec.Meta(ge=1, le=MAX_DAYS)]


class BackendSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the backend listens, what it keeps and how it scores.

    listen: HOST:PORT of the HTTP server; default 127.0.0.1:8000; port 0 lets the system choose one (for tests).
    database: path of a SQLite file, or a URL (`sqlite:///…`, `postgresql://…`); default ./healert.db.
    api_key: what writers send as `Authorization: Bearer <key>`; default empty: no key is asked for.
    allow_anonymous: listen beyond this machine without a key; default false, and such a backend does not start.
    anonymous_reads: whether reading needs no key; default: on loopback yes, elsewhere no.
    anonymous_cards: whether cards and badges (a service's score, nothing else) need no key; default false.
    allowed_origins: origins whose pages may call the API (CORS) and show a card in a frame; default
        http://localhost:3000; empty: none, `*`: any.
    trusted_proxies: addresses or networks of proxies whose X-Forwarded-For and -Proto are believed; default none.
    rules: rules files or folders that the pages of rules show; default the shipped ones. Relative to the working folder.
    session_hours: how long a browser stays signed in; default 12.
    rate_limit_per_minute: requests of one key, or of one address without a key; default 6000; 0: no limit.
    retention_days: age in days at which events are deleted, at start and every 24 h; default 30, least 1.
    threshold: decayed points that make a score of 100; default 50; smaller is stricter.
    half_life_days: days after which an event counts half; default 7, least 0.01.
    score_retention_days: days that the score looks back; default 30; beyond retention_days there is nothing to see.
    """

    listen: str = "127.0.0.1:8000"
    database: str = "./healert.db"
    api_key: str = ""
    allow_anonymous: bool = False
    anonymous_reads: bool | None = None
    anonymous_cards: bool = False
    allowed_origins: tuple[str, ...] = ("http://localhost:3000",)
    trusted_proxies: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    session_hours: Annotated[float, msgspec.Meta(gt=0, le=8760)] = 12.0
    # 100 a second: a receiver that flushes 50,000 events sends 250; Healert's own limit is 60.
    rate_limit_per_minute: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] = 6000
    retention_days: Days = 30
    threshold: Annotated[float, msgspec.Meta(gt=0, le=1e9)] = 50.0
    half_life_days: Annotated[float, msgspec.Meta(ge=0.01, le=MAX_DAYS)] = 7.0
    score_retention_days: Days = 30

    def __repr__(self) -> str:
        """Without the key and the database's password, so that no log can hold them."""
        return f"BackendSettings(listen={self.listen!r}, api_key={'set' if self.api_key else 'not set'})"

    @property
    def chosen(self) -> Chosen:
        """What the score depends on, until a call changes it."""
        return Chosen(
            threshold=self.threshold,
            half_life_days=self.half_life_days,
            score_retention_days=self.score_retention_days,
            retention_days=self.retention_days,
        )


def listen_address(settings: BackendSettings) -> Address:
    """The address to bind. Raises ConfigError when it is none, or a trusted proxy is none."""
    address = parse_address(settings.listen, where="backend.listen")
    if address.path:
        raise ConfigError("the backend listens on TCP only; write HOST:PORT", where="backend.listen")
    for proxy in settings.trusted_proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            raise ConfigError(
                f"{proxy!r} is no IP address or network, such as 10.0.0.7 or 10.0.0.0/8",
                where="backend.trusted_proxies",
            ) from None
    return address


def refuse_strangers(settings: BackendSettings, address: Address, *, keys: bool) -> None:
    """Raises ConfigError where strangers could write. keys: whether any is in force."""
    if not address.local and not keys and not settings.allow_anonymous:
        raise ConfigError(
            f"{address} can be reached from other machines, and no key protects it; set `api_key` (HEALERT_API_KEY),"
            " make one with `forwarder keys create`, listen on 127.0.0.1, or write `allow_anonymous: true`",
            where="backend.listen",
        )
