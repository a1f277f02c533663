"""A topic of its own for each test of the shared broker, and brokers that a test may kill."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kafka.broker import Broker, missing
from tests.e2e.product.conftest import product, sample

__all__ = ["product", "sample"]  # fixtures, used here as they are there


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """One that is stopped, killed and started again."""
    if why := missing():
        pytest.skip(why)
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def topic() -> str:
    return f"audit-{uuid.uuid4().hex[:8]}"
