"""The rules that a backend without a book knows."""

from forwarder.backend.dashboard.rulebook import no_rules


def test_no_rules() -> None:
    """None."""
    assert no_rules() == {}
