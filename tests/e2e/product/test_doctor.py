"""`forwarder doctor --send` at doors with TLS and with client certificates."""

import pytest
import trustme

pytestmark = pytest.mark.e2e


@pytest.fixture
def files(tmp_path):
    """CA, the receiver's certificate and a client's, as PEM files."""
    authority = trustme.CA()
    paths = {name: str(tmp_path / name) for name in ("ca.crt", "tls.crt", "tls.key", "client.crt", "client.key")}
    authority.cert_pem.write_to_path(paths["ca.crt"])
    for name, certificate in (
        ("tls", authority.issue_cert("receiver.test")),
        ("client", authority.issue_cert(common_name="prod-eu-7")),
    ):
        certificate.private_key_pem.write_to_path(paths[f"{name}.key"])
        for position, pem in enumerate(certificate.cert_chain_pems):
            pem.write_to_path(paths[f"{name}.crt"], append=position > 0)
    return paths


def doctor(product, until, *arguments):
    run = product.program("doctor", "doctor", "--config", "forwarder.yaml", "--send", *arguments)
    run.log.unlink(missing_ok=True)
    run.start()
    until(lambda: not run.running, "forwarder doctor")
    return run.stop(), run.output()


@pytest.mark.parametrize("key", [None, "0123456789abcdef"], ids=["without-key", "with-key"])
def test_the_test_event_goes_through_tls(product, until, files, key):
    """And is read back from the backend, where it counts for nothing."""
    tls = {"cert_file": files["tls.crt"], "key_file": files["tls.key"]}
    product.configure({"tls": tls} | ({"shared_key": key} if key else {}))
    product.start()
    code, output = doctor(product, until)
    assert "not scored" in output
    assert "with TLS" in output or "and TLS" in output
    assert product.get("/friction/component:forwarder-test/doctor")["frictionScore"]["bypassCount"] == 0
    assert code == (0 if "everything is in order" in output else 1)


def test_the_test_event_goes_through_a_door_that_asks_for_certificates(product, until, files):
    """With one of its own; without one it says which options to give. The cluster comes from the certificate's name."""
    tls = {"cert_file": files["tls.crt"], "key_file": files["tls.key"], "client_ca_file": files["ca.crt"]}
    product.configure({"tls": tls, "cluster_from_certificate": True})
    product.start()
    code, output = doctor(product, until)
    assert code == 1
    assert "--client-cert and --client-key" in output
    _, output = doctor(product, until, "--client-cert", files["client.crt"], "--client-key", files["client.key"])
    assert "not scored" in output
    (event,) = product.get("/api/v1/events?include_tests=true")
    assert event["cluster"] == "prod-eu-7"
    code, output = doctor(product, until, "--client-cert", files["client.crt"], "--client-key", files["tls.key"])
    assert code == 2
    assert "cannot be used as a client's certificate" in output
    code, output = doctor(product, until, "--client-cert", files["client.crt"])
    assert code == 2
    assert "go together" in output


def test_the_test_event_goes_through_the_webhook(product, until, files):
    """Where that is the only door; with its token, over TLS."""
    door = {
        "listen": f"127.0.0.1:{product.ports['forward']}",
        "token": "a-token",
        "tls": {"cert_file": files["tls.crt"], "key_file": files["tls.key"]},
    }
    product.configure(sources={"webhook": door})
    product.start()
    code, output = doctor(product, until)
    assert "over TLS" in output
    assert "not scored" in output
    assert code == (0 if "everything is in order" in output else 1)
