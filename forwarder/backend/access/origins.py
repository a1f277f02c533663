"""Whether a request comes from our own pages, or at least from no other page.

A browser sends our session's cookie, or reaches an open backend on its own machine, whatever page told it to. So what
changes something and shows no key must come from a page of ours: `Sec-Fetch-Site` says so in every browser of today,
`Origin` in older ones, and no page can forge either. That is why forms carry no token of their own.
"""

import ipaddress
from collections.abc import Mapping


def from_our_page(headers: Mapping[str, str], scheme: str, *, with_cookie: bool) -> bool:
    """Whether a request that shows no key may change something. headers: by lower-case name.

    Programs send neither header and are let through where there is no cookie that a page could have borrowed.
    """
    site = headers.get("sec-fetch-site", "")
    if site:
        return site in ("same-origin", "none")
    origin = headers.get("origin", "")
    if origin:
        return origin == f"{scheme}://{headers.get('host', '')}"
    return not with_cookie


def host_is_this_machine(host: str) -> bool:
    """Whether a Host header names this machine.

    A page elsewhere can have its name point at 127.0.0.1 (DNS rebinding) and would then be "our own" page; its name
    in the Host header gives it away.
    """
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    name = name.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
