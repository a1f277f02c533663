"""Where a Service is to be dialled; the watches themselves are in tests/e2e/sidecar."""

from collections.abc import Callable
from typing import Any

import pytest

from forwarder.errors import ConfigError
from forwarder.sidecar.discovery import target_of
from forwarder.sidecar.settings import SidecarSettings
from forwarder.sidecar.tunnel import Target

Make = Callable[..., SidecarSettings]


def service(*ports: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"metadata": {}, "spec": {"clusterIP": "10.0.0.7", "ports": list(ports), **spec}}


FORWARD, METRICS = {"name": "forward", "port": 24224, "protocol": "TCP"}, {"name": "metrics", "port": 9000}


@pytest.mark.parametrize(
    ("found", "wanted", "target"),
    [
        pytest.param(service(FORWARD), "", Target("10.0.0.7", 24224), id="only-one"),
        pytest.param(service({"port": 53, "protocol": "UDP"}, FORWARD), "", Target("10.0.0.7", 24224), id="one-of-tcp"),
        pytest.param(service(FORWARD, METRICS), "metrics", Target("10.0.0.7", 9000), id="by-name"),
        pytest.param(service(FORWARD, METRICS), "24224", Target("10.0.0.7", 24224), id="by-number"),
        pytest.param(service(FORWARD, clusterIP="fd00::7"), "", Target("fd00::7", 24224), id="ipv6"),
        pytest.param(
            service(FORWARD, clusterIP="None"), "",
            Target("kubernetes-audit-tailer.kube-system.svc", 24224), id="headless",
        ),
        pytest.param(
            service(FORWARD, type="ExternalName", externalName="logs.example"), "",
            Target("logs.example", 24224), id="external",
        ),
        pytest.param(None, "", None, id="absent"),
        pytest.param({"metadata": {"deletionTimestamp": "now"}}, "", None, id="going"),
    ],
)  # fmt: skip
def test_where_a_service_is(settings: Make, found: dict[str, Any] | None, wanted: str, target: Target | None) -> None:
    """Its cluster IP and the one port that is meant."""
    assert target_of(found, settings(service_port=wanted)) == target


@pytest.mark.parametrize(
    ("found", "wanted", "said"),
    [
        pytest.param(service(FORWARD, METRICS), "", r"several ports \(forward, metrics\)", id="two"),
        pytest.param(service(), "", r"no TCP port \(none\)", id="none"),
        pytest.param(service(FORWARD), "other", r"no TCP port `other` \(it has: forward\)", id="another"),
    ],
)
def test_a_port_that_is_not_clear_names_those_there_are(
    settings: Make, found: dict[str, Any], wanted: str, said: str
) -> None:
    """With the option to set."""
    with pytest.raises(ConfigError, match=rf"Service kube-system/kubernetes-audit-tailer: .*{said}.*--service-port"):
        target_of(found, settings(service_port=wanted))


def test_an_ipv6_target_is_written_with_brackets() -> None:
    """As CONNECT wants it."""
    assert str(Target("fd00::7", 1)) == "[fd00::7]:1"
