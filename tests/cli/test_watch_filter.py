"""What is shown and what is not."""

from typing import Any

import pytest

from forwarder.cli.watch_filter import Filter
from forwarder.cli.watch_view import facts
from forwarder.errors import ConfigError
from forwarder.feed.client import Seen
from tests.cli.watching import alert, log, message


@pytest.mark.parametrize(
    ("filters", "seen", "shown"),
    [
        ({}, alert(), True),
        ({"namespaces": ["pay*"]}, alert(), True),
        ({"namespaces": ["PAYMENTS"]}, alert(), True),
        ({"namespaces": ["pay"]}, alert(), False),
        ({"namespaces": ["x", "payments"]}, alert(), True),
        ({"namespaces": ["payments"]}, log(), False),
        ({"namespaces": ["payments"]}, message(), True),
        ({"rules": ["kubectl-*"]}, alert(), True),
        ({"rules": ["config-*"]}, alert(), False),
        ({"rules": ["config-*"]}, log(), True),
        ({"actors": ["alice@*"]}, alert(), True),
        ({"actors": ["alice@*"]}, log(), False),
        ({"actors": ["b.b"]}, log(), False),
        ({"severity": "high"}, alert(), True),
        ({"severity": "high"}, alert(severity="medium"), False),
        ({"severity": "medium"}, alert(severity="high"), True),
        ({"severity": "low"}, alert(severity="low"), True),
        ({"severity": "high"}, log(), True),
        ({"regex": "SH -c"}, alert(), True),
        ({"regex": "^eu-1/payments/web alice"}, alert(), True),
        ({"regex": "nothing"}, alert(), False),
        ({"regex": "loaded"}, message(), True),
        ({"regex": "lost"}, message(), False),
        ({"namespaces": ["payments"], "severity": "high", "regex": "nothing"}, alert(), False),
    ],
)
def test_all_that_is_given_must_hold(filters: dict[str, Any], seen: Seen, shown: bool) -> None:
    """And what a stream does not have is not asked of it."""
    assert Filter(**filters)(facts(seen)) is shown


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"severity": "critical"}, "--severity: 'critical' is no severity"),
        ({"regex": "("}, "--regex: .* is no regular"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(filters: dict[str, Any], words: str) -> None:
    """With the option's name."""
    with pytest.raises(ConfigError, match=words):
        Filter(**filters)
