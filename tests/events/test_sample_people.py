"""What people do in the sample."""

import random
from urllib.parse import parse_qs

from forwarder.events.sample_cluster import Cluster
from forwarder.events.sample_people import People


def test_a_deed_of_friction_is_exactly_one_event():
    """kubectl's reads on the way trip nothing: one deed, one request with a rule, and it is the last."""
    people = People(Cluster(random.Random(1)))
    for _ in range(300):
        requests = people.friction()
        assert [bool(request.rule) for request in requests] == [False] * (len(requests) - 1) + [True]


def test_a_near_miss_trips_nothing():
    """No request of a near miss carries a rule."""
    people = People(Cluster(random.Random(1)))
    assert not [request.rule for _ in range(100) for request in people.near_miss() if request.rule]


def test_commands_in_the_uri_can_be_read_back():
    """An exec's words are escaped so that the query gives them back whole, `&` and spaces included."""
    people = People(Cluster(random.Random(1)))
    seen = set()
    for _ in range(100):
        request = people.exec()[-1]
        assert tuple(parse_qs(request.event["requestURI"].partition("?")[2])["command"]) == request.command
        seen.add(request.command)
    assert any("&" in word for command in seen for word in command)
