"""The backend sink against answers of every kind, on a clock of its own."""

import json
import logging

import pytest
import requests

from forwarder.contracts import Done, Later, Refused
from forwarder.errors import ConfigError
from forwarder.sinks.backend import PLAIN_BURST, REPROBE_S, BackendSink, BackendSinkSettings, plain_body

NOW = 1_750_000_000.0
OURS = {"status": "ok", "version": "0.1.0", "auth": "enabled", "capabilities": ["batch", "ids", "updates"]}
PLAIN = {"status": "ok", "version": "v0.1.0", "auth": "enabled"}
KEY = "s3cr3t-k3y"


class Backend:
    """A backend: what /health says, and how POST /events is answered."""

    def __init__(self, health=OURS) -> None:
        self.health = (200, health)
        self.key = (422, {"detail": "entity_ref: field required"})
        self.events = self.record

    def __call__(self, asked):
        if asked.path.endswith("/health"):
            return self.health
        if asked.json == {}:
            return self.key
        answer = self.events
        return answer(asked.json) if callable(answer) else answer

    @staticmethod
    def record(sent):
        if isinstance(sent, dict):
            return 200, {"status": "ok", "message": "Event recorded"}
        return 200, {"status": "ok", "results": [{"status": "recorded"} for _ in sent]}


class Rig:
    """A sink, its backend, the network between them and a clock that tests move."""

    def __init__(self, network, health=OURS, **settings) -> None:
        self.now = 100.0
        self.backend = Backend(health)
        self.network = network(self.backend)
        self.sink = BackendSink(
            "backend", BackendSinkSettings(**({"url": "http://backend:8000", "api_key": KEY} | settings)),
            adapter=self.network, clock=lambda: self.now, wall=lambda: NOW + self.now - 100.0, chance=lambda: 1.0,
        )  # fmt: skip

    def deliver(self, *events):
        return self.sink.deliver(events)

    @property
    def calls(self) -> int:
        return len(self.network.asked)


@pytest.fixture
def rig(network):
    return lambda *arguments, **settings: Rig(network, *arguments, **settings)


# --- our backend -----------------------------------------------------------------------------------------------------


def test_a_batch_is_one_request_with_every_field_and_the_key(rig, event) -> None:
    """Revisions too: our backend tells them apart by id."""
    rig = rig()
    assert rig.deliver(event(1, command="ls", tags=("a",)), event(1, revision=1)) == [Done(), Done()]
    (sent,) = rig.network.posted()
    assert [(item["id"][-1], item["revision"]) for item in sent] == [("1", 0), ("1", 1)]
    assert (sent[0]["command"], sent[0]["tags"]) == ("ls", ["a"])
    assert {asked.headers["Authorization"] for asked in rig.network.asked} == {f"Bearer {KEY}"}
    assert rig.network.asked[-1].headers["Content-Type"] == "application/json"
    assert rig.network.asked[-1].path == "/events"


def test_each_event_has_its_own_result(rig, event) -> None:
    """One refused event refuses no neighbour; an answer we do not know is no delivery."""
    rig = rig()
    results = [{"status": "recorded"}, {"status": "refused", "detail": "actor: too\nlong"}, {"status": "updated"},
               {"status": "duplicate"}, {"status": "quarantined"}]  # fmt: skip
    rig.backend.events = (200, {"status": "ok", "results": results})
    outcomes = rig.deliver(*(event(number) for number in range(5)))
    assert outcomes[:4] == [Done(), Refused("actor: too long"), Done(), Done()]
    assert isinstance(outcomes[4], Later)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((200, {"status": "ok", "results": [{"status": "recorded"}]}), id="too-few-results"),
        pytest.param((200, {"status": "ok", "message": "Event recorded"}), id="no-results"),
        pytest.param((200, b"<html>sign in</html>"), id="a-portals-page"),
        pytest.param((204, b""), id="no-content"),
    ],
)
def test_a_200_that_does_not_say_what_was_recorded_delivers_nothing(rig, event, answer, caplog) -> None:
    """Something else answers there: said loudly, and tried again."""
    rig = rig()
    rig.backend.events = answer
    with caplog.at_level(logging.ERROR):
        outcomes = rig.deliver(event(1), event(2))
    assert all(isinstance(outcome, Later) for outcome in outcomes)
    assert "`sinks.backend.url`" in caplog.text


def test_capabilities_are_asked_for_once(rig, event) -> None:
    """While it works, a batch is one request; an upgrade is looked for now and then."""
    rig = rig()
    rig.deliver(event(1))
    first = rig.calls
    rig.deliver(event(2))
    assert rig.calls == first + 1
    rig.now += REPROBE_S
    rig.deliver(event(3))
    assert rig.calls == first + 4


def test_the_state_says_what_was_learned(rig) -> None:
    """For the report at start: reachable, version, whether a key is asked for and ours is right."""
    rig = rig()
    assert rig.sink.state.reachable is None
    state = rig.sink.probe()
    assert (state.reachable, state.version, state.auth, state.key_accepted, state.problem) == (
        True, "0.1.0", "enabled", True, "")  # fmt: skip
    assert state.capabilities == ("batch", "ids", "updates")


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "delay_s", "words"),
    [
        pytest.param((500, b""), 0.5, "out of order (500)", id="500"),
        pytest.param((503, b"", {"Retry-After": "7"}), 7.0, "out of order (503)", id="503-for-a-while"),
        pytest.param((429, b"", {"Retry-After": "20"}), 20.0, "patience (429)", id="429-seconds"),
        pytest.param((429, b"", {"Retry-After": "Sun, 15 Jun 2025 15:07:40 GMT"}), 60.0, "patience", id="429-date"),
        pytest.param((429, b"", {"Retry-After": "soon"}), 0.5, "patience", id="429-nonsense"),
        pytest.param((429, b""), 0.5, "patience", id="429-bare"),
        pytest.param((302, b"", {"Location": "http://evil/"}), 60.0, "redirects (302)", id="redirect"),
        pytest.param((401, b""), 60.0, "refuses the key (401)", id="401"),
        pytest.param((403, b""), 60.0, "refuses the key (403)", id="403"),
        pytest.param((404, b""), 60.0, "knows no friction events (404)", id="404"),
        pytest.param((405, b""), 60.0, "knows no friction events (405)", id="405"),
        pytest.param((407, b""), 60.0, "does not take our requests (407)", id="407"),
        pytest.param(requests.ConnectionError(ConnectionRefusedError(111, "Connection refused")), 0.5,
                     "Connection refused", id="refused"),
        pytest.param(requests.ReadTimeout("slow"), 0.5, "no answer within 10 s", id="timeout"),
        pytest.param(requests.ConnectionError("reset"), 0.5, "closed early", id="reset"),
        pytest.param(requests.exceptions.InvalidHeader(f"Bearer {KEY}"), 0.5, "InvalidHeader", id="unexpected"),
    ],
)  # fmt: skip
def test_a_failing_backend_is_tried_again(rig, event, answer, delay_s, words) -> None:
    """All events wait, nothing is asked before the delay is over, then first what is there."""
    rig = rig()
    rig.sink.prepare()
    rig.backend.events = answer
    outcomes = rig.deliver(event(1), event(2))
    assert [outcome.delay_s for outcome in outcomes] == [delay_s] * 2
    assert words in outcomes[0].reason
    assert KEY not in outcomes[0].reason
    assert words in rig.sink.state.problem
    calls = rig.calls
    rig.now += delay_s / 2
    assert [outcome.delay_s for outcome in rig.deliver(event(1))] == [pytest.approx(delay_s / 2)]
    assert rig.calls == calls
    rig.backend.events = rig.backend.record
    rig.now += delay_s / 2
    assert rig.deliver(event(1), event(2)) == [Done(), Done()]
    assert [asked.path for asked in rig.network.asked[calls:]] == ["/health", "/events", "/events"]
    assert rig.sink.state.problem == ""


def test_delays_grow_and_begin_anew_after_a_success(rig, event) -> None:
    """0.5, 1, 2 … up to 30 s."""
    rig = rig()
    rig.sink.prepare()
    rig.backend.health = rig.backend.events = (502, b"")
    delays = []
    for _ in range(8):
        delays.append(rig.deliver(event(1))[0].delay_s)
        rig.now += delays[-1]
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30]
    rig.backend.health, rig.backend.events = (200, OURS), rig.backend.record
    assert rig.deliver(event(1)) == [Done()]
    rig.backend.events = (502, b"")
    assert rig.deliver(event(1))[0].delay_s == 0.5


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_said_once_with_the_setting_to_change(rig, event, caplog, status) -> None:
    """As an error, without the key; again only after it had worked in between."""
    rig = rig()
    rig.backend.key = rig.backend.events = (status, {"detail": "Invalid API key"})
    with caplog.at_level(logging.DEBUG, logger="forwarder"):
        for _ in range(3):
            assert 30 <= rig.deliver(event(1))[0].delay_s <= 60
            rig.now += 60
    (line,) = caplog.messages
    assert "`sinks.backend.api_key`" in line
    assert "HEALERT_API_KEY" in line
    assert KEY not in caplog.text
    assert rig.sink.state.key_accepted is False
    rig.backend.key, rig.backend.events = (422, {}), rig.backend.record
    assert rig.deliver(event(1)) == [Done()]
    assert rig.sink.state.key_accepted is True
    rig.backend.events = (status, b"")
    rig.deliver(event(1))
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 2


@pytest.mark.parametrize(
    "health",
    [
        pytest.param((200, b"<html>"), id="a-web-page"),
        pytest.param((200, {"status": "starting"}), id="not-ready"),
        pytest.param((404, b""), id="nothing-there"),
        pytest.param((301, b"", {"Location": "https://backend/"}), id="moved"),
    ],
)
def test_what_is_no_backend_gets_no_event(rig, event, health) -> None:
    """Events hold names and commands: they are not posted to whatever listens there."""
    rig = rig()
    rig.backend.health = health
    outcomes = rig.deliver(event(1))
    assert isinstance(outcomes[0], Later)
    assert rig.network.posted() == []
    assert "`sinks.backend.url`" in rig.sink.state.problem


def test_too_large_a_request_is_halved(rig, event) -> None:
    """413 splits until it fits; an event that is too large alone is refused."""
    rig = rig()
    rig.sink.prepare()

    def at_most_two(sent):
        fits = len(sent) <= 2 and not any(item["description"] == "event 5" for item in sent)
        return rig.backend.record(sent) if fits else (413, {"detail": "too large"})

    rig.backend.events = at_most_two
    outcomes = rig.deliver(*(event(number) for number in range(8)))
    assert outcomes == [Done()] * 5 + [Refused("413: too large")] + [Done()] * 2


def test_a_backend_that_fails_while_a_request_is_halved_is_left_alone(rig, event) -> None:
    """What was recorded stays recorded, what was not asked for waits."""
    rig = rig()
    rig.sink.prepare()
    answers = iter([(413, b""), (200, {"status": "ok", "results": [{"status": "recorded"}] * 2}), (503, b"")])
    rig.backend.events = lambda sent: next(answers)
    outcomes = rig.deliver(*(event(number) for number in range(4)))
    assert outcomes[:2] == [Done(), Done()]
    assert all(isinstance(outcome, Later) for outcome in outcomes[2:])


def test_a_list_refused_as_a_whole_is_taken_apart(rig, event) -> None:
    """422 for a list says nothing about each of its events; only what is refused alone is a dead letter."""
    rig = rig()
    rig.sink.prepare()

    def picky(sent):
        bad = any(item["actor"] == "bad" for item in sent)
        return (422, {"detail": [{"loc": ["body", 0, "actor"], "msg": "no"}]}) if bad else rig.backend.record(sent)

    rig.backend.events = picky
    outcomes = rig.deliver(event(1), event(2), event(3, actor="bad"), event(4))
    assert outcomes == [Done(), Done(), Refused("422: 0.actor: no"), Done()]


def test_one_event_that_breaks_the_backend_is_singled_out(rig, event) -> None:
    """500 makes the next batches smaller; alone, the culprit waits while the others pass."""
    rig = rig()
    rig.sink.prepare()

    def fragile(sent):
        return (500, b"") if any(item["actor"] == "bad" for item in sent) else rig.backend.record(sent)

    rig.backend.events = fragile
    left = [event(number, actor="bad" if number == 3 else "jane") for number in range(8)]
    for _ in range(12):
        size = rig.sink.batch_events
        outcomes = rig.deliver(*left[:size])
        left = [item for item, outcome in zip(left[:size], outcomes, strict=True) if outcome != Done()] + left[size:]
        left.sort(key=lambda item: item.actor == "bad")  # the outbox offers what is not put off
        rig.now += 1
    assert [item.actor for item in left] == ["bad"]
    assert isinstance(rig.deliver(*left)[0], Later)
    assert rig.deliver(event(9)) == [Done()]  # at once: the culprit put off nobody but itself


# --- a plain Healert backend -----------------------------------------------------------------------------------------


def plain_rig(rig):
    made = rig(PLAIN)
    made.sink.prepare()
    return made


def test_a_plain_backend_gets_one_event_at_a_time_in_its_own_fields(rig, event) -> None:
    """And it gets no updates: the sink no longer takes any."""
    rig = plain_rig(rig)
    assert rig.sink.takes_updates is False
    assert rig.sink.batch_events == PLAIN_BURST
    assert rig.deliver(event(1, command="cat /etc/shadow"), event(2)) == [Done(), Done()]
    first, second = rig.network.posted()
    assert set(first) == {"entity_ref", "type", "severity", "actor", "service", "namespace", "workflow", "description",
                          "timestamp", "points"}  # fmt: skip
    assert first["description"] == f"event 1 [{event(1).id}]"
    assert second["description"].startswith("event 2")


def test_what_is_learned_in_the_middle_of_a_delivery_sends_nothing(rig, event) -> None:
    """The batch may hold updates, which the delivery sorts out once it knows."""
    rig = rig(PLAIN)
    assert rig.deliver(event(1, revision=1)) == [Later(0.0)]
    assert rig.network.posted() == []
    assert rig.deliver(event(1)) == [Done()]


def test_a_plain_backend_is_kept_below_its_sixty_a_minute(rig, event) -> None:
    """Over any minute, a fresh one included; what waits for its turn is not in trouble."""
    rig = plain_rig(rig)
    sent_at: list[float] = []
    rig.backend.events = lambda sent: sent_at.append(rig.now) or rig.backend.record(sent)
    while rig.now < 400:
        outcomes = rig.deliver(*(event(number) for number in range(PLAIN_BURST)))
        delays = [outcome.delay_s for outcome in outcomes if isinstance(outcome, Later)]
        assert delays == sorted(delays)
        assert all(outcome.reason == "" for outcome in outcomes if isinstance(outcome, Later))
        rig.now += min(delays, default=0.0)
    busiest = max(sum(start <= at < start + 60 for at in sent_at) for start in sent_at)
    assert 55 <= busiest <= 60


def test_texts_are_cut_to_the_bounds_of_the_healert_api(event) -> None:
    """A long description or actor must not cost the event; the id goes where it finds room."""
    sent = json.loads(plain_body(event(1, actor="a" * 300, description="d" * 600, workflow="w" * 200)))
    assert (len(sent["actor"]), len(sent["description"]), len(sent["workflow"])) == (200, 500, 200)
    assert sent["description"].endswith("…")
    assert json.loads(plain_body(event(1, description="d" * 461)))["description"].endswith(f"[{event(1).id}]")
    assert json.loads(plain_body(event(1, description="d" * 462)))["description"] == "d" * 462


def test_a_plain_backend_is_not_sent_tests(rig, event) -> None:
    """It would score them."""
    rig = plain_rig(rig)
    assert rig.deliver(event(1, test=True), event(2)) == [Done(), Done()]
    assert [sent["description"][:7] for sent in rig.network.posted()] == ["event 2"]


def test_a_plain_backend_that_refuses_or_fails(rig, event) -> None:
    """422 concerns one event; after a failure the others are not even tried."""
    rig = plain_rig(rig)
    answers = iter([(422, {"detail": "no"}), (200, {"status": "ok"}), (500, b"")])
    rig.backend.events = lambda sent: next(answers)
    outcomes = rig.deliver(*(event(number) for number in range(4)))
    assert outcomes[:2] == [Refused("422: no"), Done()]
    assert all(isinstance(outcome, Later) for outcome in outcomes[2:])
    assert len(rig.network.posted()) == 3


def test_an_upgrade_is_noticed(rig, event) -> None:
    """After a failure or in time; from then on updates are taken and batches sent again."""
    rig = plain_rig(rig)
    rig.backend.health = (200, OURS)
    rig.now += REPROBE_S
    assert rig.deliver(event(1)) == [Later(0.0)]
    assert rig.sink.takes_updates is True
    rig.deliver(event(1), event(1, revision=1))
    assert len(rig.network.posted()[0]) == 2


def test_a_downgrade_costs_no_event(rig, event) -> None:
    """A plain backend refuses every list with 422: that is no reason to give its events up."""
    rig = rig()
    rig.sink.prepare()
    rig.backend.health = (200, PLAIN)
    rig.backend.events = lambda sent: (
        (422, {"detail": "a mapping, please"}) if isinstance(sent, list) else rig.backend.record(sent)
    )
    assert all(isinstance(outcome, Later) for outcome in rig.deliver(event(1), event(2)))
    assert rig.sink.takes_updates is False
    assert rig.deliver(event(1), event(2)) == [Done(), Done()]


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        pytest.param({"url": "backend:8000"}, "`url` is no address", id="no-scheme"),
        pytest.param({"url": "ftp://backend"}, "`url` is no address", id="another-scheme"),
        pytest.param({"url": "http://"}, "`url` is no address", id="no-host"),
        pytest.param({"url": "http://backend:99999"}, "`url` is no address", id="no-such-port"),
        pytest.param({"url": "http://back end"}, "`url` is no address", id="a-space"),
        pytest.param({"url": "http://backend\n"}, "`url` is no address", id="a-line-break"),
        pytest.param({"url": f"http://user:{KEY}@backend"}, "`url` carries credentials", id="credentials"),
        pytest.param({"url": f"http://backend/?key={KEY}"}, "`url` ends at the path", id="a-query"),
        pytest.param({"api_key": f"{KEY}\nX-Other: 1"}, "`api_key` has characters", id="a-header-injection"),
        pytest.param({"api_key": f"{KEY}ü"}, "`api_key` has characters", id="not-ascii"),
        pytest.param({"ca_file": "/nowhere/ca.crt"}, "there is no file /nowhere/ca.crt", id="no-ca-file"),
        pytest.param({"timeout_s": 0.0}, "`timeout_s`", id="no-time"),
        pytest.param({"batch_events": 1001}, "`batch_events`", id="too-many"),
    ],
)
def test_settings_that_cannot_work_are_refused_without_quoting_secrets(settings, words) -> None:
    """At start, with the name of the setting."""
    with pytest.raises(ConfigError, match=r"sinks\.main") as caught:
        BackendSink("main", BackendSinkSettings(**settings))
    assert words in str(caught.value)
    assert KEY not in str(caught.value)


def test_the_key_is_in_no_description_of_the_settings() -> None:
    """A traceback with locals, or a debug line, must not give it away."""
    assert KEY not in repr(BackendSinkSettings(api_key=KEY))
    assert KEY not in repr([BackendSinkSettings(api_key=KEY)])


def test_without_a_key_none_is_sent(rig, event, monkeypatch, tmp_path) -> None:
    """Nor one from ~/.netrc, which would otherwise win over the settings."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine backend login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    bare, keyed = rig(api_key=None), rig()
    bare.deliver(event(1))
    keyed.deliver(event(1))
    assert all("Authorization" not in asked.headers for asked in bare.network.asked)
    assert {asked.headers["Authorization"] for asked in keyed.network.asked} == {f"Bearer {KEY}"}


def test_a_url_with_a_path_keeps_it(rig, event) -> None:
    """A backend behind a reverse proxy."""
    rig = rig(url="https://proxy.example/friction/")
    rig.deliver(event(1))
    assert [asked.path for asked in rig.network.asked] == ["/friction/health", "/friction/events", "/friction/events"]
