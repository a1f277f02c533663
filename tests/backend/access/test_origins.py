"""Which page a request comes from, and which names are this machine's."""

import pytest

from forwarder.backend.access.origins import from_our_page, host_is_this_machine

OURS = "backend.example.com"


@pytest.mark.parametrize(
    ("headers", "with_cookie", "allowed"),
    [
        pytest.param({"sec-fetch-site": "same-origin"}, True, True, id="our own form"),
        pytest.param({"sec-fetch-site": "none"}, True, True, id="typed by the user"),
        pytest.param({"sec-fetch-site": "cross-site"}, True, False, id="another site"),
        pytest.param({"sec-fetch-site": "same-site"}, True, False, id="a neighbour under the same domain"),
        pytest.param({"sec-fetch-site": "cross-site"}, False, False, id="another site, no cookie"),
        pytest.param(
            {"sec-fetch-site": "cross-site", "origin": f"https://{OURS}"}, True, False, id="both, one against"
        ),
        pytest.param({"origin": f"https://{OURS}"}, True, True, id="an older browser, our page"),
        pytest.param({"origin": f"http://{OURS}"}, True, False, id="another scheme"),
        pytest.param({"origin": f"https://{OURS}.evil.example"}, True, False, id="a name that begins like ours"),
        pytest.param({"origin": "null"}, True, False, id="a sandboxed frame"),
        pytest.param({}, True, False, id="a cookie and no word where from"),
        pytest.param({}, False, True, id="a program"),
    ],
)
def test_from_our_page(headers: dict[str, str], with_cookie: bool, allowed: bool) -> None:
    """A cookie is no proof; only a page of ours, or a program without one, may change something."""
    assert from_our_page({"host": OURS, **headers}, "https", with_cookie=with_cookie) is allowed


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "127.0.0.1:8000", "127.1.2.3", "[::1]:8000", "[::1]", "x.localhost", "LOCALHOST."],
)
def test_this_machine(host: str) -> None:
    """Loopback under every name that cannot be somebody else's."""
    assert host_is_this_machine(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "10.0.0.1:8000",
        "localhost.evil.example",
        "[::2]",
    ],
)
def test_not_this_machine(host: str) -> None:
    """A name that somebody pointed at 127.0.0.1 is theirs."""
    assert not host_is_this_machine(host)
