"""Our own log lines as notices."""

import logging
from collections.abc import Iterator

import pytest

from forwarder.feed.notices import Notices


@pytest.fixture
def told() -> Iterator[list[tuple[str, str, float]]]:
    """What was told; attached, and with everything logged."""
    found: list[tuple[str, str, float]] = []
    handler = Notices(lambda level, text, time_s: found.append((level, text, time_s)))
    logger = logging.getLogger("forwarder")
    before = logger.level
    logger.setLevel(logging.DEBUG)
    handler.attach()
    yield found
    handler.detach()
    logger.setLevel(before)


def test_what_we_log_is_told_with_its_level(told: list[tuple[str, str, float]]) -> None:
    """From INFO on; others' loggers are not ours to tell."""
    logging.getLogger("forwarder.pipeline").info("rules loaded again: %d in force", 20)
    logging.getLogger("forwarder.delivery").warning("the sink %s puts events off", "backend")
    logging.getLogger("forwarder").error("lost")
    logging.getLogger("forwarder").debug("detail")
    logging.getLogger("uvicorn").error("not ours")
    assert [(level, text) for level, text, _ in told] == [
        ("INFO", "rules loaded again: 20 in force"),
        ("WARN", "the sink backend puts events off"),
        ("ERROR", "lost"),
    ]


def test_after_detach_nothing_is_told(told: list[tuple[str, str, float]]) -> None:
    """The handler leaves the logger as it was."""
    handler = Notices(lambda *_: told.append(("x", "y", 0.0)))
    handler.attach()
    handler.detach()
    logging.getLogger("forwarder").error("once")
    assert len(told) == 1
