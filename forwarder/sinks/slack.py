"""Tells a Slack channel about friction events, or about chosen audit events.

    sinks:
      platform-team:
        type: slack
        token: ${SLACK_TOKEN}             # of a bot, with the scope chat:write; or webhook_url: https://hooks.slack.com/…
        channel: ${CHANNEL_ID}            # C0123456789, or "#platform"; the app must have been invited to it
        minimum_severity: medium
        dashboard_url: https://friction.example.com

What is sent, and when, is the business of `forwarder.alerts`: repeats grouped, quiet hours, at most so many a minute, all
of it durable. Slack knows no ids of ours: a kill between its answer and our note of it posts that one message again; the
event's id stands below each message. Slack's own words for what is wrong (`invalid_auth`, `not_in_channel`) reach the
operator; whatever a person can mend makes events wait, and only what is wrong with the message itself refuses it.

Everything in a message comes from strangers. So it is escaped as Slack asks for (& < >), code cannot be left from within,
and nothing in it is turned into a mention, a channel or a link but our own.
"""

import functools
import logging
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.webhook import WebhookClient

from forwarder.alerts.alerter import BATCH_EVENTS, MAX_WAITING_EVENTS, Alerter, AlertSettings
from forwarder.alerts.wording import COLOURS, MARKS, Note
from forwarder.contracts import Done, Later, Outcome, Refused
from forwarder.errors import ConfigError
from forwarder.events.friction import FrictionEvent
from forwarder.telemetry import Telemetry
from forwarder.wire.deadline import Deadline, Overdue
from forwarder.wire.pacing import Backoff, retry_after_s

API_URL = "https://slack.com/api/"
BACKOFF_BASE_S, BACKOFF_CAP_S = 1.0, 60.0
OPERATOR_DELAY_S = 60.0  # a token, a channel or an invitation does not mend itself
MAX_SECTION_CHARS, MAX_FIELD_CHARS = 3000, 2000  # Slack's limits for one text, escaped

ADVICE: dict[str, str] = {
    "invalid_auth": "the token is wrong; copy the Bot User OAuth Token (xoxb-…) of the app",
    "not_authed": "set `token`",
    "account_inactive": "the app was removed or its user deactivated; install it again and set its new token",
    "token_revoked": "install the app again and set its new token",
    "token_expired": "set a new token, without rotation",
    "missing_scope": "add the scope chat:write to the app and install it again",
    "not_in_channel": "invite the app: type /invite @its-name in the channel (or give it chat:write.public)",
    "channel_not_found": "correct `channel` (its id is at the end of the channel's details); invite the app to a private one",
    "is_archived": "the channel is archived; set another `channel`",
    "channel_is_archived": "the channel is archived; make a webhook for another",
    "restricted_action": "the workspace does not let this app post here; ask its administrators",
    "no_service": "the webhook was removed; make a new one and set `webhook_url`",
    "no_team": "the webhook's workspace is gone; make a new one and set `webhook_url`",
    "invalid_token": "the webhook's address is wrong; copy it again into `webhook_url`",
    "action_prohibited": "the workspace does not let this webhook post; ask its administrators",
    "team_access_not_granted": "the workspace did not grant the app access; ask its administrators",
    "ekm_access_denied": "the workspace has suspended this; ask its administrators",
    "org_login_required": "the workspace is being moved; it comes back by itself",
}
_THE_MESSAGE = {"msg_too_long", "invalid_blocks", "invalid_blocks_format", "invalid_attachments", "no_text",
                "too_many_attachments", "invalid_payload", "invalid_arguments", "cannot_parse_attachment"}  # fmt: skip
_WORD = re.compile(r"[a-z0-9_]{1,60}")
logging.getLogger("slack_sdk").setLevel(
    logging.CRITICAL
)  # it logs every failed try, and bodies at debug; we say it once


class SlackSettings(AlertSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """token: of a bot user (xoxb-…), with the scope chat:write. channel: its id, or its name with `#`.
    webhook_url: an incoming webhook instead of both. api_url: for GovSlack; the default is https://slack.com/api/.
    timeout_s: how long one call may take in all, seconds; the default is 10.
    required: whether acks wait when too many events wait for this sink; by default the oldest become dead letters.
    """

    token: str | None = None
    channel: str = ""
    webhook_url: str | None = None
    api_url: str = API_URL
    timeout_s: float = 10.0
    required: bool = False

    def __repr__(self) -> str:  # the token must not come out by way of a traceback or a debugger's log
        return f"SlackSettings(channel={self.channel!r})"


class SlackState(msgspec.Struct, frozen=True, kw_only=True):
    """What `probe` learned. scopes: of the token, as Slack says. problem: why nothing can be posted; else empty."""

    team: str = ""
    bot: str = ""
    scopes: tuple[str, ...] = ()
    in_channel: bool | None = None
    problem: str = ""
    advice: str = ""


class SlackSink:
    """One channel. `clock` and `chance` stand in for the world in tests."""

    takes_updates = False  # one message per event; the end of a session wakes nobody again
    holds = True
    batch_events = BATCH_EVENTS
    max_waiting_events = MAX_WAITING_EVENTS

    def __init__(
        self,
        name: str,
        settings: SlackSettings,
        telemetry: Telemetry | None = None,
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Raises ConfigError."""
        _check(name, settings)
        self.name = name
        self.required = settings.required
        self._settings = settings
        self._clock = clock
        self._alerter = Alerter(name, settings, self._send, clock=clock)
        self._backoff = Backoff(base_s=BACKOFF_BASE_S, cap_s=BACKOFF_CAP_S, chance=chance)
        self._deadline = Deadline(f"slack {name}")
        timeout_s = max(1, int(settings.timeout_s))
        self._webhook = (
            WebhookClient(settings.webhook_url, timeout=timeout_s, retry_handlers=[]) if settings.webhook_url else None
        )
        self._api = WebClient(settings.token, base_url=settings.api_url, timeout=timeout_s, retry_handlers=[])

    # --- the sink ----------------------------------------------------------------------------------------------------

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
        """The clients keep no connections."""

    def probe(self) -> SlackState:
        """Ask Slack what the token is, and where Slack lets us, whether the app is in the channel; posts nothing."""
        if self._webhook is not None:
            return SlackState(advice="a webhook can only be tried by posting: see `forwarder doctor --send`")
        try:
            reply = self._deadline.run(self._api.auth_test, self._settings.timeout_s)
        except (SlackClientError, Overdue, OSError, ValueError) as error:
            word, _, _ = _failure(error)
            return SlackState(problem=word, advice=ADVICE.get(word, ""))
        scopes = _header(reply.headers, "x-oauth-scopes")
        state = SlackState(
            team=str(reply.get("team", "")),
            bot=str(reply.get("user", "")),
            scopes=tuple(scope.strip() for scope in scopes.split(",") if scope.strip()),
        )
        if state.scopes and "chat:write" not in state.scopes:
            return msgspec.structs.replace(state, problem="missing_scope", advice=ADVICE["missing_scope"])
        return self._membership(state)

    def _membership(self, state: SlackState) -> SlackState:
        """Needs the scope channels:read (groups:read for private ones) and the channel's id; without them: not known."""
        channel = self._settings.channel
        if channel.startswith("#"):
            return state
        try:
            reply = self._deadline.run(lambda: self._api.conversations_info(channel=channel), self._settings.timeout_s)
        except (SlackClientError, Overdue, OSError, ValueError) as error:
            word, _, _ = _failure(error)
            known = word in ADVICE and word != "missing_scope"
            return msgspec.structs.replace(state, problem=word, advice=ADVICE[word]) if known else state
        about = reply.get("channel") or {}
        member = bool(about.get("is_member"))
        if about.get("is_archived"):
            return msgspec.structs.replace(state, problem="is_archived", advice=ADVICE["is_archived"])
        if not member and "chat:write.public" not in state.scopes:
            return msgspec.structs.replace(
                state, in_channel=False, problem="not_in_channel", advice=ADVICE["not_in_channel"]
            )
        return msgspec.structs.replace(state, in_channel=member)

    # --- one message -------------------------------------------------------------------------------------------------

    def _send(self, note: Note) -> Outcome:
        body: dict[str, Any] = {
            "text": _escaped(f"{MARKS[note.severity]} {note.title}"),
            "attachments": [attachment(note)],
            "unfurl_links": False,
            "unfurl_media": False,
        }
        try:
            if self._webhook is not None:
                self._post_to_webhook(self._webhook, body)
            else:
                post = functools.partial(self._api.chat_postMessage, channel=self._settings.channel, **body)
                self._deadline.run(post, self._settings.timeout_s)
        except (SlackClientError, Overdue, OSError, ValueError, _HookError) as error:
            return self._failed(error)
        self._backoff.reset()
        return Done()

    def _post_to_webhook(self, webhook: WebhookClient, body: dict[str, Any]) -> None:
        reply = self._deadline.run(lambda: webhook.send(**body), self._settings.timeout_s)
        if reply.status_code != 200:
            raise _HookError(reply.status_code, reply.body, reply.headers)

    def _failed(self, error: Exception) -> Outcome:
        word, status, headers = _failure(error)
        if word in _THE_MESSAGE:
            return Refused(f"Slack refused the message: {word}")
        delay_s = self._backoff.next_s()
        if status == 429 or word in ("ratelimited", "rate_limited"):
            asked_s = retry_after_s(_header(headers, "retry-after"), self._clock())
            return Later(asked_s or delay_s, f"Slack asks for patience ({word})")
        if word in ADVICE:
            return Later(OPERATOR_DELAY_S, f"Slack says {word}: {ADVICE[word]}")
        return Later(delay_s, f"Slack: {word}")


# --- how it looks ----------------------------------------------------------------------------------------------------


def attachment(note: Note) -> dict[str, Any]:
    """A message as Slack's Block Kit in an attachment, which gives it the bar in the colour of its severity."""
    title = _fitting(note.title, MAX_FIELD_CHARS)
    title = f"<{_escaped(note.link)}|{title}>" if note.link else title
    blocks: list[dict[str, Any]] = [_section(f"{MARKS[note.severity]} *{title}*")]
    if note.lines:
        blocks.append(_section(_fitting("\n".join(note.lines), MAX_SECTION_CHARS)))
    if note.facts:
        fields = [_text(f"*{name}*\n{_fitting(value, MAX_FIELD_CHARS - 50)}") for name, value in note.facts[:10]]
        blocks.append({"type": "section", "fields": fields})
    if note.command:
        # A backtick inside would end the code.
        code = _fitting(note.command.replace("`", "\u02cb"), MAX_SECTION_CHARS - 10)
        blocks.append(_section(f"```{code}```"))
    if note.footer:
        blocks.append({"type": "context", "elements": [_text(_escaped(note.footer))]})
    return {"color": COLOURS[note.severity], "fallback": _escaped(note.title), "blocks": blocks}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": _text(text)}


def _text(text: str) -> dict[str, Any]:
    """verbatim: Slack makes no links, mentions or channels of what only looks like one."""
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _fitting(text: str, limit: int) -> str:
    """Escaped, and at most `limit` characters of that; no escape is cut in two."""
    escaped = _escaped(text)
    while len(escaped) > limit:
        text = text[: max(0, len(text) - max(1, (len(escaped) - limit) // 5) - 1)]
        escaped = _escaped(text) + "…"
    return escaped


# --- what Slack says -------------------------------------------------------------------------------------------------


class _HookError(Exception):
    def __init__(self, status: int, body: str, headers: Mapping[str, Any]) -> None:
        super().__init__()
        self.status, self.body, self.headers = status, body, headers


def _failure(error: Exception) -> tuple[str, int, Mapping[str, Any]]:
    """Slack's own word for it, or ours; the status; the headers. Never the text of an error, which may quote a request."""
    if isinstance(error, Overdue):
        return str(error), 0, {}
    if isinstance(error, _HookError):
        status, headers, said = error.status, error.headers, error.body.strip()
    elif isinstance(error, SlackApiError):
        reply: Any = error.response
        status = getattr(reply, "status_code", 0) or (reply.get("status", 0) if isinstance(reply, dict) else 0)
        headers = getattr(reply, "headers", None) or (reply.get("headers", {}) if isinstance(reply, dict) else {})
        said = str(reply.get("error", ""))
    elif isinstance(error, OSError):
        reason = getattr(error, "reason", error)
        return f"it cannot be reached ({getattr(reason, 'strerror', None) or type(reason).__name__})", 0, {}
    else:
        return f"the call failed ({type(error).__name__})", 0, {}
    if _WORD.fullmatch(said):
        return said, status, headers
    return f"it answers with {status}" if status else "its answer is not Slack's", status, headers


def _header(headers: Mapping[str, Any], name: str) -> str:
    for key, value in headers.items():
        if str(key).lower() == name:
            return str(value[0] if isinstance(value, list) and value else value)
    return ""


def _check(name: str, settings: SlackSettings) -> None:
    where = f"sinks.{name}"
    if settings.webhook_url:
        if settings.token or settings.channel:
            raise ConfigError("either `webhook_url`, or `token` and `channel`; a webhook has its channel", where=where)
        if urlsplit(settings.webhook_url).scheme not in ("https", "http"):
            raise ConfigError("`webhook_url` must begin with https://", where=where)
    elif not settings.token or not settings.channel:
        missing = "channel" if settings.token else "token"
        raise ConfigError(f"`{missing}` is missing; give `token` and `channel`, or a `webhook_url`", where=where)
    elif not re.fullmatch(r"[A-Za-z0-9-]+", settings.token):
        raise ConfigError("`token` has characters that no Slack token has (a space? a line break?)", where=where)
    if not settings.api_url.startswith(("https://", "http://")) or not settings.api_url.endswith("/"):
        raise ConfigError("`api_url` must begin with https:// and end with /", where=where)
    if not 0.1 <= settings.timeout_s <= 300:
        raise ConfigError("`timeout_s` must be between 0.1 and 300", where=where)
