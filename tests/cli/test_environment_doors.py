"""Event Hubs, Falco and the webhook from the environment alone, with the names of the programs that they come from."""

from typing import Any

import pytest

from forwarder.cli.configuration import from_environment
from forwarder.cli.environment import receive_document
from forwarder.errors import ConfigError
from forwarder.pipeline import Pipeline
from forwarder.telemetry import Telemetry

HUB = "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=listen;SharedAccessKey=c2VjcmV0"
AKS = {"EHUBNAMESPACECONNECTIONSTRING": HUB, "EVENTHUBNAME": "audit", "WEBSINKURL": "http://falco:9765/k8s-audit"}


def receive(**environ: str) -> tuple[dict[str, Any], str]:
    document, notices = receive_document({"HOME": "/root"} | environ)
    return document.data, "\n".join(notices)


def test_aks_audit_log_go_moves_with_its_environment() -> None:
    """Event Hubs in, Falco out, with its defaults; no rules, because nobody would be told."""
    data, notices = receive(**AKS, BLOBSTORAGECONNECTIONSTRING="x", BLOBCONTAINERNAME="y")
    assert data["sources"] == {
        "kafka": {"connection_string": HUB, "topics": ["audit"], "group": "$Default", "cluster_from_envelope": True}
    }
    assert data["sinks"] == {
        "falco": {
            "url": "http://falco:9765/k8s-audit",
            "max_retries": 5,
            "retry_increment_s": 1.0,
            "burst": 50,
            "keep_alive": False,
        }
    }
    assert data["detection"]["rules"] == []
    assert "BLOBSTORAGECONNECTIONSTRING and BLOBCONTAINERNAME need not be set" in notices
    assert "auto_offset_reset" in notices
    assert "FORWARDER_TELEMETRY_LISTEN=:9000" in notices
    assert "c2VjcmV0" not in notices


def test_its_environment_makes_a_receiver(tmp_path: Any) -> None:
    """Every setting is one that source and sink know; without rules there is nothing to detect, and that is no error."""
    document, _ = receive_document({"HOME": "/root", "FORWARDER_DATA_DIR": str(tmp_path)} | AKS)
    loaded = from_environment(document)
    pipeline = Pipeline(loaded, Telemetry())
    assert set(pipeline.sources) == {"kafka"}
    assert (pipeline.sinks, len(pipeline.detector.ruleset.rules)) == ({}, 0)


def test_all_of_its_names() -> None:
    """In its units."""
    data, _ = receive(
        **AKS, POSTMAXRETRIES="7", POSTRETRYINCREMENTALDELAY="250", RATELIMITEREVENTSPERSECONDS="100", RATELIMITERBURST="9",
        KEEPALIVE="true", LOGLEVEL="trace",
    )  # fmt: skip
    falco = data["sinks"]["falco"]
    assert (falco["max_retries"], falco["retry_increment_s"], falco["rate_limit_events_per_s"]) == (7, 0.25, 100)
    assert (falco["burst"], falco["keep_alive"], data["log"]["level"]) == (9, True, "debug")


@pytest.mark.parametrize("more", [{"HEALERT_BACKEND_URL": "http://b"}, {"RULES_PATH": "/rules"}])
def test_detection_beside_it(more: dict[str, str]) -> None:
    """A backend or rules ask for it."""
    data, _ = receive(**AKS, **more)
    assert set(data["sinks"]) == {"falco", "backend"}
    assert data["detection"]["rules"]


def test_event_hubs_without_falco_report_to_a_backend() -> None:
    """As every other door does; its settings are good ones."""
    data, _ = receive(FORWARDER_EVENT_HUB=HUB, EVENTHUBNAME="audit", FORWARDER_CLUSTER="prod")
    assert set(data["sinks"]) == {"backend"}
    assert "cluster_from_envelope" not in data["sources"]["kafka"]
    document, _ = receive_document({"HOME": "/root", "FORWARDER_EVENT_HUB": HUB, "EVENTHUBNAME": "audit"})
    assert from_environment(document).sources["kafka"][1].connection_string == HUB


def test_the_connection_string_from_a_file(tmp_path: Any) -> None:
    """As every secret."""
    (tmp_path / "hub").write_text(HUB)
    data, _ = receive(FORWARDER_EVENT_HUB_FILE=str(tmp_path / "hub"), EVENTHUBNAME="audit")
    assert data["sources"]["kafka"]["connection_string"] == HUB


@pytest.mark.parametrize(
    ("environ", "source"),
    [
        ({"WEBHOOK_TOKEN": "t"}, {"listen": "127.0.0.1:9765", "token": "t"}),
        ({"FORWARDER_WEBHOOK_LISTEN": ":9765", "WEBHOOK_TOKEN": "t"}, {"listen": ":9765", "token": "t"}),
    ],
    ids=["a token", "everywhere"],
)
def test_the_webhook(environ: dict[str, str], source: dict[str, Any]) -> None:
    """No other door opens beside it."""
    data, _ = receive(**environ)
    assert data["sources"] == {"webhook": source}


@pytest.mark.parametrize(
    "environ",
    [{**AKS, "KEEPALIVE": "perhaps"}, {**AKS, "POSTMAXRETRIES": "many"}],
)
def test_what_cannot_be_meant_is_named(environ: dict[str, str]) -> None:
    """With the variable."""
    with pytest.raises(ConfigError) as caught:
        receive(**environ)
    assert "environment" in str(caught.value)
