"""Who may post: every way, and nothing that only looks like one."""

import base64

import pytest

from forwarder.wire.http_access import Access, Visitor


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


ACCESS = Access(token="s3cret", users={"apiserver": "p:w", "other": "x"}, cluster_tokens={"prod-eu-1": "for-prod"})


@pytest.mark.parametrize(
    ("headers", "visitor"),
    [
        ({"authorization": "Bearer s3cret"}, Visitor()),
        ({"authorization": "bearer  s3cret "}, Visitor()),
        ({"authorization": "Bearer for-prod"}, Visitor("prod-eu-1")),
        ({"authorization": basic("apiserver:p:w")}, Visitor()),
        ({"x-amz-firehose-access-key": "for-prod"}, Visitor("prod-eu-1")),
        ({}, None),
        ({"authorization": ""}, None),
        ({"authorization": "Bearer"}, None),
        ({"authorization": "Bearer s3cre"}, None),
        ({"authorization": "s3cret"}, None),
        ({"authorization": "Bearer s3cret\u00e9"}, None),
        ({"authorization": basic("apiserver:x")}, None),
        ({"authorization": basic("apiserver")}, None),
        ({"authorization": "Basic %%%"}, None),
        ({"authorization": "Basic \u00e9"}, None),
        ({"x-amz-firehose-access-key": ""}, None),
    ],
)
def test_who_comes_in(headers, visitor):
    """A token, a password, a token of a cluster; not half of one, and not one in the other's place."""
    assert ACCESS.check(headers) == visitor


def test_where_nothing_is_set_everybody_comes_in():
    """Loopback, or `allow_anonymous`."""
    access = Access(token=None, users={}, cluster_tokens={})
    assert not access.required
    assert access.check({}) == Visitor()


def test_the_challenge_names_the_ways():
    """RFC 9110: a 401 says what is wanted."""
    assert ACCESS.challenge == 'Bearer, Basic realm="audit"'
    assert Access(token=None, users={"a": "b"}, cluster_tokens={}).challenge == 'Basic realm="audit"'
