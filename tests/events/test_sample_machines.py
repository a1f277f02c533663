"""What machines do in the sample."""

import json
import random

import pytest

from forwarder.events.sample_cluster import Cluster
from forwarder.events.sample_machines import traffic

VALUES = (b"id", b"ResponseComplete", b"2026-01-05T08:00:00.000000Z", b"2026-01-05T08:00:00.000000Z", b"1")


@pytest.fixture(scope="module")
def kinds():
    return traffic(Cluster(random.Random(1)))


def test_the_shares_add_up(kinds):
    """Weights are shares of all machine lines."""
    assert sum(kind.share for kind in kinds) == pytest.approx(1)


def test_every_actor_is_a_machine(kinds):
    """Nothing that machines do may be taken for a person's."""
    for kind in kinds:
        for template in kind.templates:
            assert json.loads(template.render(VALUES))["user"]["username"].startswith("system:")


def test_only_watches_have_two_stages(kinds):
    """Of what machines do, only watches stream."""
    for kind in kinds:
        for template in kind.templates:
            assert template.two_stages == (json.loads(template.render(VALUES))["verb"] == "watch")
