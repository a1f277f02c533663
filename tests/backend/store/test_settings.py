"""Settings of the score: from the start, changed by a call, reset."""

import msgspec
import pytest

from forwarder.backend.scoring import Chosen
from forwarder.backend.store import Store

NOW_US = 1_780_000_000_000_000


def test_where_they_come_from(store: Store) -> None:
    """A call wins over the start until it is reset; each setting says where it comes from and who set it."""
    store.settings.start_with(Chosen(threshold=20.0), NOW_US)
    store.settings.change({"half_life_days": 3.0}, author="me", now_us=NOW_US)
    told = {setting.name: (setting.value, setting.source, setting.author) for setting in store.settings.all()}
    assert told["threshold"] == (20.0, "start", "")
    assert told["half_life_days"] == (3.0, "call", "me")
    store.settings.start_with(Chosen(half_life_days=9.0), NOW_US)
    assert store.settings.chosen().half_life_days == 3.0
    assert store.settings.reset(now_us=NOW_US) == Chosen(half_life_days=9.0)
    assert store.scores.explain("c:n/a", NOW_US).half_life_days == 9.0


@pytest.mark.parametrize(
    "changes", [{"threshold": 0}, {"half_life_days": 0.001}, {"retention_days": 1.5}, {"colour": 1}]
)
def test_refused(store: Store, changes: dict[str, float]) -> None:
    """A value out of bounds, or what is no setting, changes nothing."""
    with pytest.raises(msgspec.ValidationError):
        store.settings.change({"threshold": 30.0, **changes}, author="", now_us=NOW_US)
    assert store.settings.chosen() == Chosen()


def test_changed_by_another_process(store: Store) -> None:
    """What another process wrote is followed with the next maintenance."""
    store.settings.change({"half_life_days": 2.0, "score_retention_days": 5}, author="", now_us=NOW_US, apply=False)
    assert store.scores.explain("c:n/a", NOW_US).half_life_days == 7.0
    store.maintain(NOW_US)
    told = store.scores.explain("c:n/a", NOW_US)
    assert (told.half_life_days, told.window_days) == (2.0, 5)


def test_retention(store: Store) -> None:
    """How long events are kept is one of them."""
    store.settings.change({"retention_days": 90}, author="", now_us=NOW_US)
    assert store.settings.retention_days() == 90
