"""The sinks that hang off a backend: an outbox of their own, with real files and threads, without sockets."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forwarder import registry
from forwarder.contracts import Done, Later, Outcome
from forwarder.errors import ConfigError, Overloaded
from forwarder.events.friction import FrictionEvent
from forwarder.exits import Exits, NoExits
from forwarder.outbox import Outbox, read_ledger
from forwarder.registry import Entry, TelemetrySettings, load_exits
from forwarder.settings import parse_document
from forwarder.telemetry import Telemetry

NOW = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
TAKEN: dict[str, list[str]] = {}


def friction(number: int, revision: int = 1) -> FrictionEvent:
    """An event of now: the outbox counts old ones as expired."""
    return FrictionEvent(
        entity_ref="component:shop/web", type="kubectl-exec", severity="high", actor="alice", workflow="deploy",
        description="a shell", timestamp=NOW, points=10, id=f"00000000-0000-5000-8000-{number:012d}", revision=revision,
        audit_id=f"a-{number}", verb="get", resource="pods",
    )  # fmt: skip


class NoteSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """down: it takes nothing."""

    down: bool = False


class NoteSink:
    """Remembers ids by its name."""

    takes_updates = True
    required = False

    def __init__(self, name: str, settings: NoteSettings, telemetry: Telemetry, **_: Any) -> None:
        self.name = name
        self._down = settings.down

    def deliver(self, events: Sequence[FrictionEvent]) -> Sequence[Outcome]:
        if self._down:
            return [Later(60.0)] * len(events)
        TAKEN.setdefault(self.name, []).extend(event.id for event in events)
        return [Done()] * len(events)

    def close(self) -> None: ...


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Exits]:
    """`exits(sinks={…})`: built from a settings file in `tmp_path`."""
    monkeypatch.setitem(registry.SINKS, "note", Entry(__name__, "NoteSink", "NoteSettings"))
    TAKEN.clear()

    def make(**settings: Any) -> Exits:
        text = json.dumps({"backend": {}, "log": {}, **settings})
        loaded = load_exits(parse_document(text, str(tmp_path / "backend.yaml")))
        assert loaded is not None
        return Exits(loaded)

    return make


def test_what_was_put_arrives_once_whatever_is_put_again(exits: Callable[..., Exits], tmp_path: Path) -> None:
    """The id decides: a crash between here and the store repeats a `put`, and nobody is told twice."""
    one = exits(sinks={"note": {}, "other": {"type": "note"}})
    for _ in range(2):  # the process dies after the first and starts again
        one.open()
        one.put([friction(1), friction(2)])
        one.put([friction(1)])
        one.close()
        one = exits(sinks={"note": {}, "other": {"type": "note"}})
    assert {name: [friction(1).id, friction(2).id] for name in ("note", "other")} == TAKEN
    ledger = read_ledger(tmp_path / "onward.db")
    assert ledger.balanced() == []
    assert (ledger.new, ledger.duplicate) == (2, 4)


def test_a_later_revision_is_no_news_even_after_a_crash(exits: Callable[..., Exits]) -> None:
    """A sink that takes updates from a receiver is given none here."""
    one = exits(sinks={"note": {}})
    one.open()
    one.put([friction(1, revision=0)])
    one.put([friction(1)])
    one.close()
    assert {"note": [friction(1).id]} == TAKEN


def test_what_a_sink_could_not_take_waits_for_the_next_start(exits: Callable[..., Exits], tmp_path: Path) -> None:
    """Nothing is lost by a restart."""
    one = exits(sinks={"note": {"down": True}})
    one.open()
    one.put([friction(1)])
    one.close()
    assert read_ledger(tmp_path / "onward.db").sinks[0].waiting == 1
    one = exits(sinks={"note": {}})
    one.open()
    one.close()
    assert {"note": [friction(1).id]} == TAKEN


def test_a_full_outbox_is_told_to_the_backend(exits: Callable[..., Exits]) -> None:
    """So that it does not store, and its sender keeps the event."""
    one = exits(sinks={"note": {"down": True}}, outbox={"max_bytes": "1MiB"})
    one.open()
    for start in range(0, 3000, 1000):  # 1 MiB and more
        one.put([friction(start + number) for number in range(1000)])
    with pytest.raises(Overloaded):
        one.put([friction(5000)])
    one.close()


def test_an_outbox_in_use_stops_the_start(exits: Callable[..., Exits], tmp_path: Path) -> None:
    """With the words of the outbox."""
    other = Outbox(tmp_path / "onward.db", [], telemetry=Telemetry())
    other.open()
    with pytest.raises(ConfigError, match="in use"):
        exits(sinks={"note": {}}).open()
    other.close()


def test_the_ledger_is_in_the_metrics(exits: Callable[..., Exits]) -> None:
    """Read when Prometheus asks."""
    one = exits(sinks={"note": {}})
    one.open()
    one.put([friction(1)])
    one.skipped("test", 3)
    text = one._exposition().decode()
    one.close()
    assert 'forwarder_sink_eligible{sink="note"} 1.0' in text
    assert 'forwarder_events_total{result="new"} 1.0' in text
    assert 'forwarder_onward_skipped_total{reason="test"} 3.0' in text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sinks": {"backend": {}}}, "`sinks.backend`: a sink of type backend belongs into a receiver"),
        ({"sinks": {"x": {"type": "backend"}}}, "`sinks.x`: a sink of type backend belongs"),
        ({"sinks": {"x": {"type": "nott"}}}, "did you mean `note`"),
        ({"sinks": {"note": {"dwn": True}}}, "did you mean `down`"),
        ({"sinks": {"stdout": {"stream": "audit"}}}, "`sinks.stdout.stream`: audit events pass through receivers only"),
        ({"sinks": {"note": {}}, "outbox": {"max_bytes": "much"}}, "is no size"),
        ({"snks": {}}, "did you mean `sinks`"),
    ],
)
def test_what_is_wrong_is_named(exits: Callable[..., Exits], settings: dict[str, Any], said: str) -> None:
    """With its path and the nearest valid one."""
    with pytest.raises(ConfigError) as caught:
        exits(**settings)
    assert said in str(caught.value)


def test_without_sinks_there_is_nothing_to_run() -> None:
    """A backend as before: no outbox, no threads."""
    assert load_exits(parse_document("backend: {}\n", "b.yaml")) is None


def test_telemetry_beyond_this_machine_needs_a_token(exits: Callable[..., Exits]) -> None:
    """As for a receiver; and nowhere by default, for a backend beside a receiver."""
    with pytest.raises(ConfigError, match=r"telemetry\.token"):
        exits(sinks={"note": {}}, telemetry={"listen": "0.0.0.0:0"})
    assert exits(sinks={"note": {}})._http is None


def test_without_sinks_there_is_at_most_a_port() -> None:
    """Where none is named nothing is opened; one that strangers reach needs a token."""
    nowhere = NoExits(TelemetrySettings(listen=""))
    nowhere.open()
    assert nowhere.telemetry_address is None
    nowhere.close()
    with pytest.raises(ConfigError, match=r"telemetry\.token"):
        NoExits(TelemetrySettings(listen="0.0.0.0:9000"))
