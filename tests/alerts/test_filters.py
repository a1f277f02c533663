"""Which events a sink is for."""

import pytest

from forwarder.alerts.filters import FilterSettings, check, wanted
from forwarder.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "fields", "expected"),
    [
        ({}, {}, True),
        ({"minimum_severity": "medium"}, {"severity": "low"}, False),
        ({"minimum_severity": "medium"}, {"severity": "medium"}, True),
        ({"rules": ["secret-*", "kubectl-exec"]}, {}, True),
        ({"rules": ["secret-*"]}, {}, False),
        ({"ignore_rules": ["kubectl-*"]}, {}, False),
        ({"rules": ["*"], "ignore_rules": ["kubectl-exec"]}, {}, False),
        ({"namespaces": ["prod-*"]}, {"namespace": "prod-eu"}, True),
        ({"namespaces": ["prod-*"]}, {"namespace": ""}, False),
        ({"ignore_namespaces": ["shop"]}, {}, False),
    ],
)
def test_severity_rules_and_namespaces(event, clock, settings, fields, expected) -> None:
    """What is ignored wins; an empty list is no condition."""
    assert wanted(event(**fields), clock.now, FilterSettings(**settings)) is expected


def test_old_when_it_came_in_is_not_old_from_waiting(event, clock) -> None:
    """A first read of old logs wakes nobody; an outage of the service that carries messages loses none."""
    old = event(at=clock.now - 3601)
    assert not wanted(old, clock.now, FilterSettings())
    assert wanted(old, clock.now - 3600, FilterSettings())
    assert wanted(old, clock.now, FilterSettings(max_age_s=0))
    assert wanted(event(timestamp="when?"), clock.now, FilterSettings())


def test_an_age_below_nothing_is_refused() -> None:
    """By name."""
    with pytest.raises(ConfigError, match=r"sinks\.slack: `max_age_s`"):
        check("slack", FilterSettings(max_age_s=-1))
