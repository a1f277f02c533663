"""Tells people by whatever they read: Teams, Discord, e-mail, PagerDuty and some hundred services more, each by its URL.

    sinks:
      people:
        type: notify
        minimum_severity: medium
        urls:                             # each is a sink of its own: people.mail, people.oncall
          mail: mailtos://user:${MAIL_PASSWORD}@mail.example.com?to=platform@example.com
          oncall: {url_file: /run/secrets/pagerduty, minimum_severity: high, rules: [secret-*], quiet_except: low}

The URLs are Apprise's (https://github.com/caronc/apprise lists them). Each URL has its own cursor, backlog, dead letters,
grouping, quiet hours and rate: one that is down delays no other and repeats none. What is sent, and when, is the business
of `forwarder.alerts`. At-least-once: a kill between the service's answer and our note of it sends that one message again.

A service's failure makes its events wait, with the words Apprise has for it; only an answer that says the message itself
is wrong (400, 413, 422) makes it a dead letter.
"""

import logging
import random
import re
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apprise

from forwarder.alerts.alerter import BATCH_EVENTS, MAX_WAITING_EVENTS, Alerter, AlertSettings
from forwarder.alerts.wording import MARKS, Note
from forwarder.contracts import Done, Later, Outcome, Refused
from forwarder.errors import ConfigError
from forwarder.events import redact
from forwarder.events.friction import FrictionEvent
from forwarder.telemetry import Telemetry
from forwarder.wire.deadline import Deadline, Overdue
from forwarder.wire.pacing import Backoff

BACKOFF_BASE_S, BACKOFF_CAP_S = 2.0, 120.0
OPERATOR_DELAY_S = 60.0  # a wrong password does not mend itself, and mail servers lock out who insists
MAX_WORDS_CHARS = 200

KINDS = {"high": "failure", "medium": "warning", "low": "info"}  # what services colour red, yellow and blue
_STATUS = re.compile(r"\berror[=:]\s?(\d{3})\b")
_MENTION = re.compile(r"@(?=everyone|here|channel|all\b|room)|(?<=<)(?=[@!#/\w])|\](?=\()")


class NotifySettings(AlertSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """url: where to, as Apprise writes it. urls: name -> URL, or name -> settings with a `url`, for several at once.
    timeout_s: how long one message may take in all, seconds; the default is 20: mail servers take their time.
    required: whether acks wait when too many events wait for this sink; by default the oldest become dead letters.
    """

    url: str = ""
    timeout_s: float = 20.0
    required: bool = False

    def __repr__(self) -> str:  # the URL holds passwords
        return "NotifySettings(url=…)"


def split(name: str, settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The sinks that an entry with `urls` stands for, by name; what is not said for one URL is as for all. Raises ConfigError."""
    urls = settings.get("urls")
    if urls is None:
        return {name: settings}
    if not isinstance(urls, dict) or not urls:
        raise ConfigError("`urls` is a mapping of names to URLs", where=f"sinks.{name}")
    common = {key: value for key, value in settings.items() if key != "urls"}
    if "url" in common or "url_file" in common:
        raise ConfigError("either `url` or `urls`", where=f"sinks.{name}")
    return {f"{name}.{key}": common | (one if isinstance(one, dict) else {"url": one}) for key, one in urls.items()}


class NotifySink:
    """One URL."""

    takes_updates = False  # one message per event; the end of a session wakes nobody again
    holds = True
    batch_events = BATCH_EVENTS
    max_waiting_events = MAX_WAITING_EVENTS

    def __init__(
        self,
        name: str,
        settings: NotifySettings,
        telemetry: Telemetry | None = None,
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Raises ConfigError."""
        self.name = name
        self.required = settings.required
        self._service = _service(name, settings)
        self._format = _format(self._service)
        self._timeout_s = settings.timeout_s
        self._alerter = Alerter(name, settings, self._send, clock=clock)
        self._backoff = Backoff(base_s=BACKOFF_BASE_S, cap_s=BACKOFF_CAP_S, chance=chance)
        self._deadline = Deadline(f"notify {name}")

    @property
    def where(self) -> str:
        """The URL without what is secret in it, for people."""
        return str(self._service.url(privacy=True)).partition("?")[0]

    @property
    def memory(self) -> bytes:
        return self._alerter.memory

    @memory.setter
    def memory(self, value: bytes) -> None:
        self._alerter.memory = value

    def wants(self, event: FrictionEvent, stored_s: float) -> bool:
        return self._alerter.wants(event, stored_s)

    def deliver(self, events: Sequence[FrictionEvent]) -> list[Outcome]:
        return self._alerter.deliver(events)

    def close(self) -> None:
        """Apprise keeps no connections."""

    def _send(self, note: Note) -> Outcome:
        said = _Said()
        try:
            good = self._deadline.run(lambda: self._notify(note, said), self._timeout_s)
        except Overdue as error:
            return Later(self._backoff.next_s(), str(error))
        except Exception as error:  # noqa: BLE001 - a hundred plug-ins, each with errors of its own
            return Later(self._backoff.next_s(), f"the call failed ({type(error).__name__})")
        if good:
            self._backoff.reset()
            return Done()
        return self._failed(said)

    def _notify(self, note: Note, said: "_Said") -> bool:
        said.thread = threading.get_ident()
        logger = logging.getLogger("apprise")
        logger.addHandler(said)
        try:
            return bool(
                self._service.notify(
                    body=body(note),
                    body_format=self._format,
                    title=_tame(f"{MARKS[note.severity]} {note.title}"),
                    notify_type=KINDS[note.severity],
                )
            )
        finally:
            logger.removeHandler(said)

    def _failed(self, said: "_Said") -> Outcome:
        status, words = said.status, said.words or "it was not sent, and Apprise does not say why"
        if status in (400, 413, 422):
            return Refused(words)
        delay_s = self._backoff.next_s()
        if status in (401, 403, 404, 405, 410):
            return Later(OPERATOR_DELAY_S, f"{words}; correct its URL")
        return Later(max(delay_s, OPERATOR_DELAY_S) if status == 429 else delay_s, words)


# --- how it looks ----------------------------------------------------------------------------------------------------


def body(note: Note) -> str:
    """A message as plain text, which every service takes; nothing in it calls people, links or is markup by looking like it."""
    parts = list(note.lines)
    parts += [f"{name}: {value}" for name, value in note.facts]
    if note.command:
        parts.append(f"Command: {note.command}")
    if note.link:
        parts.append(f"Dashboard: {note.link}")
    if note.footer:
        parts.append(note.footer)
    return _tame("\n".join(parts))


def _format(service: Any) -> Any:
    """What Apprise is told that our text is: plain, so that a service of HTML gets it escaped, with its line ends.

    Not for a service of Markdown: Apprise's escaping breaks links there, and `_tame` leaves names none to make.
    """
    spoken = service.notify_format  # one, or several with the preferred one first
    preferred = spoken[0] if isinstance(spoken, tuple) else spoken
    return None if preferred == apprise.NotifyFormat.MARKDOWN else apprise.NotifyFormat.TEXT


def _tame(text: str) -> str:
    return _MENTION.sub(lambda match: match.group() + "\u200b", text)


# --- Apprise ---------------------------------------------------------------------------------------------------------


class _Said(logging.Handler):
    """What Apprise logs about one message: it answers with yes or no, and says why only there."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.thread = 0
        self.status = 0
        self.words = ""

    def emit(self, record: logging.LogRecord) -> None:
        # Of its debug lines only the cause of a warning is of use; others quote what was sent.
        if record.thread != self.thread or (record.levelno < logging.WARNING and "Exception: " not in str(record.msg)):
            return
        text = record.getMessage()
        if match := _STATUS.search(text):
            self.status = int(match.group(1))
        self.words = redact.text(f"{self.words} {text}".strip(), MAX_WORDS_CHARS)


def _service(name: str, settings: NotifySettings) -> Any:
    where = f"sinks.{name}"
    if not settings.url:
        raise ConfigError(
            "`url` is missing; write one as Apprise does, such as mailtos://user:password@host", where=where
        )
    if not 0.1 <= settings.timeout_s <= 300:
        raise ConfigError("`timeout_s` must be between 0.1 and 300", where=where)
    asset = apprise.AppriseAsset(async_mode=False, storage_mode=apprise.PersistentStoreMode.MEMORY, app_id="friction-forwarder",
                                 app_desc="friction-forwarder", app_url="", image_url_mask="", image_url_logo="")  # fmt: skip
    logger = logging.getLogger("apprise")
    logger.propagate = False  # it logs bodies at debug, and URLs in errors; what matters is told as the sink's trouble
    logger.setLevel(logging.DEBUG)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of its plug-ins about the libraries they use: nothing an operator can mend
            service = apprise.Apprise.instantiate(settings.url, asset=asset, suppress_exceptions=False)
    except Exception:  # noqa: BLE001 - its text quotes the URL, which holds passwords
        service = None
    if service is None:
        scheme = settings.url.partition("://")[0][:20]
        shown = f"`{scheme}://…`" if scheme.isalnum() and "://" in settings.url else "this"
        raise ConfigError(f"`url`: {shown} is no URL that Apprise knows, or something is missing in it", where=where)
    return service
