"""Discovery against an apiserver over real HTTP: resume, relist, bad credentials, and what an operator reads."""

import datetime as dt
import re
import time

import pytest

from forwarder.sidecar.certificates import Certificates
from forwarder.sidecar.discovery import Discovery
from forwarder.sidecar.metrics import SIDECAR_METRICS
from forwarder.sidecar.settings import SidecarSettings
from forwarder.sidecar.tunnel import Target
from forwarder.telemetry import Telemetry

pytestmark = pytest.mark.e2e


@pytest.fixture
def discover(tmp_path):
    """A function that starts a discovery; what it tells is in `.targets` and `.certificates`."""
    started = []

    def start(kubecfg, **settings):
        telemetry = Telemetry(SIDECAR_METRICS)
        targets, certificates = [], []
        options = {"kubecfg": str(kubecfg), "run_dir": str(tmp_path / "run"), "backoff_timer": "500ms", **settings}
        made = Discovery(SidecarSettings(**options), telemetry, target=targets.append, certificates=certificates.append)
        made.targets, made.certificates, made.telemetry = targets, certificates, telemetry
        made.start()
        started.append(made)
        return made

    yield start
    for made in started:
        made.stop()


def watches(apiserver, kind):
    return [parameters for path, parameters in apiserver.requests if path.endswith(kind) and "watch" in parameters]


def lists(apiserver, kind):
    return [parameters for path, parameters in apiserver.requests if path.endswith(kind) and "watch" not in parameters]


def test_each_change_is_told_once_and_only_for_the_named_object(apiserver, kubeconfig, discover, authority, wait_until):
    """What is there at the start, what comes later and what goes; other objects are none of our business."""
    apiserver.put_service(1111)
    found = discover(kubeconfig(apiserver.url))
    wait_until(lambda: found.targets == [Target("127.0.0.1", 1111)], "the Service")
    wait_until(lambda: watches(apiserver, "secrets"), "the watch for the Secret")
    apiserver.put_service(3333, name="another")
    apiserver.put_secret(authority.secret())
    apiserver.put_service(1111)  # touched, not changed
    apiserver.put_service(2222)
    wait_until(lambda: len(found.targets) == 2, "the change")
    apiserver.delete("services", "kubernetes-audit-tailer")
    wait_until(lambda: len(found.targets) == 3, "its end")
    assert found.targets == [Target("127.0.0.1", 1111), Target("127.0.0.1", 2222), None]
    wait_until(lambda: len(found.certificates) == 1, "the Secret")
    assert isinstance(found.certificates[0], Certificates)
    assert all(p["fieldSelector"] == "metadata.name=kubernetes-audit-tailer" for p in watches(apiserver, "services"))


def test_a_cut_watch_goes_on_from_the_last_version_and_misses_nothing(apiserver, kubeconfig, discover, wait_until):
    """No new list after a disconnect; what happened in between is told. A bookmark moves the version."""
    apiserver.put_service(1000)
    found = discover(kubeconfig(apiserver.url), secret_name="")
    for port in range(1001, 1006):
        wait_until(lambda: watches(apiserver, "services"), "a watch")
        apiserver.disconnect()
        apiserver.put_service(port)
        wait_until(lambda port=port: found.targets[-1] == Target("127.0.0.1", port), "the change")
    assert len(lists(apiserver, "services")) == 1
    apiserver.put_service(5, name="another")
    apiserver.bookmark = True
    wait_until(lambda: not apiserver.bookmark, "the bookmark")
    time.sleep(0.1)
    apiserver.disconnect()
    wait_until(lambda: watches(apiserver, "services")[-1]["resourceVersion"] == "107", "the version of the bookmark")


def test_a_version_that_is_gone_leads_to_a_new_list(apiserver, kubeconfig, discover, wait_until):
    """410 Gone, as after a compaction."""
    apiserver.put_service(1000)
    found = discover(kubeconfig(apiserver.url), secret_name="")
    wait_until(lambda: watches(apiserver, "services"), "a watch")
    apiserver.forget()
    wait_until(lambda: len(lists(apiserver, "services")) == 2, "a second list")
    apiserver.put_service(2000)
    wait_until(lambda: found.targets == [Target("127.0.0.1", 1000), Target("127.0.0.1", 2000)], "the change")


def test_a_replaced_kubeconfig_is_used_and_a_broken_one_is_not(apiserver, kubeconfig, discover, wait_until, caplog):
    """Credentials rotate by a new file; one that is no kubeconfig leaves the connection as it is, and is reported."""
    apiserver.token = "first"
    apiserver.put_service(1000)
    found = discover(kubeconfig(apiserver.url, token="first"), secret_name="")
    wait_until(lambda: found.targets, "the Service")
    kubeconfig(apiserver.url).write_text("no kubeconfig: [hunter2")
    wait_until(lambda: "no kubeconfig" in caplog.text, "the complaint")
    apiserver.put_service(2000)
    wait_until(lambda: len(found.targets) == 2, "a change over the old connection")
    apiserver.token = "second"
    kubeconfig(apiserver.url, token="second")
    apiserver.disconnect()
    apiserver.put_service(3000)
    wait_until(lambda: len(found.targets) == 3, "a change over the new connection")
    assert "hunter2" not in caplog.text
    assert "second" not in caplog.text


@pytest.mark.parametrize(
    ("status", "said"),
    [
        pytest.param(401, r"does not know these credentials \(401\); renew the kubeconfig", id="401"),
        pytest.param(403, r"not allowed \(403\); give the kubeconfig's user `list` and `watch` on services", id="403"),
        pytest.param(404, r"no such path \(404\); check the kubeconfig's `server`", id="404"),
        pytest.param(503, "answers 503; trying again", id="503"),
    ],
)
def test_an_apiserver_that_refuses_is_explained_and_asked_again(
    apiserver, kubeconfig, discover, wait_until, caplog, status, said
):
    """In words that say what to do, without the answer's body; once it takes us, all goes on. It is not hammered."""
    apiserver.status = status
    apiserver.put_service(1000)
    found = discover(kubeconfig(apiserver.url), secret_name="")
    wait_until(lambda: found.telemetry.value("forwarder_watch_failures") >= 3, "some tries")
    assert len(apiserver.requests) < 30
    apiserver.status = 0
    wait_until(lambda: found.targets, "the Service")
    assert caplog.text.count("WARNING") <= 2
    assert re.search(said, caplog.text)
    assert "hunter2" not in caplog.text


def test_a_server_that_is_not_there_or_not_the_one_is_named(
    apiserver, secure_apiserver, kubeconfig, discover, wait_until, caplog
):
    """Connection refused, and a certificate of another authority; then the right one works."""
    server, ca = secure_apiserver
    server.put_service(1000)
    found = discover(kubeconfig("https://127.0.0.1:1"), secret_name="")
    wait_until(lambda: "connection refused; is the apiserver running?" in caplog.text, "the first complaint")
    kubeconfig(server.url)
    wait_until(lambda: "its certificate cannot be verified" in caplog.text, "the second")
    assert found.targets == []
    kubeconfig(server.url, ca=ca.cert_pem.bytes())
    wait_until(lambda: found.targets, "the Service")


def test_what_cannot_be_used_is_explained_and_what_was_found_stays(
    apiserver, kubeconfig, discover, authority, wait_until, caplog
):
    """Two ports and none named; a Secret without its key. The target and the certificates of before stay in force."""
    whole = authority.secret()
    apiserver.put_service(1000)
    apiserver.put_secret(whole)
    found = discover(kubeconfig(apiserver.url))
    wait_until(lambda: found.targets and found.certificates, "both")
    apiserver.put_service(0, ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2}])
    wait_until(lambda: "it has several ports (a, b); name one with --service-port" in caplog.text, "the ports")
    apiserver.put_secret({key: value for key, value in whole.items() if not key.endswith(".crt")} | {"tls.crt": b"x"})
    said = "it has no key `ca.crt` (it has: audittailer-client.key, tls.crt); add it, or set --tls-ca-file"
    wait_until(lambda: said in caplog.text, "the key")
    assert (len(found.targets), len(found.certificates)) == (1, 1)


def test_an_expired_certificate_is_parsed_with_its_date(apiserver, kubeconfig, discover, authority, wait_until):
    """So that it can be refused with that date, and alerted on before."""
    day = dt.datetime(2020, 1, 2, tzinfo=dt.UTC)
    apiserver.put_secret(authority.secret(not_after=day, not_before=day - dt.timedelta(days=9)))
    found = discover(kubeconfig(apiserver.url))
    wait_until(lambda: found.certificates, "the Secret")
    assert found.certificates[0].expires == day.timestamp()
