"""Rules are changed under a running receiver."""

import json
import signal
import time

import pytest

pytestmark = pytest.mark.e2e

RULES = "rules:\n  - {name: RULE, description: x, severity: high, match: {resource: secrets, verb: get}}\n"


def read_secret(number: int) -> bytes:
    line = {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": f"00000000-0000-4000-8000-{number:012d}", "stage": "ResponseComplete",
        "requestURI": "/api/v1/namespaces/shop/secrets/db", "verb": "get", "user": {"username": "alice"}, "sourceIPs": ["10.0.0.9"], "userAgent": "kubectl",
        "objectRef": {"resource": "secrets", "namespace": "shop", "name": "db", "apiVersion": "v1"}, "responseStatus": {"code": 200},
        "requestReceivedTimestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
    }  # fmt: skip
    return json.dumps(line, separators=(",", ":")).encode()


def types(product) -> list[str]:
    return [row[0] for row in sorted(product.stored(), key=lambda row: row[3])]


@pytest.mark.parametrize("how", ["file-change", "sighup"])
def test_new_rules_are_used_and_bad_ones_are_not(product, until, how):
    """Within seconds of the change, or at SIGHUP; a bad set leaves the old one in force and says what is wrong with it."""
    rules = product.folder / "rules.yaml"
    rules.write_text(RULES.replace("RULE", "first-rule"))
    interval_s = 0.2 if how == "file-change" else 0
    product.configure(
        sources={"file": {"path": str(product.audit_log), "start": "beginning"}},
        detection={"rules": [str(rules)], "reload_interval_s": interval_s},
    )
    product.audit_log.touch()
    product.start()

    def change(text: str, words: str) -> None:
        new = rules.with_suffix(".new")
        new.write_text(text)
        new.replace(rules)
        if how == "sighup":
            assert words not in product.receiver.output()
            assert product.receiver.running
            product.receiver.signal(signal.SIGHUP)
        until(lambda: words in product.receiver.output(), words)

    product.append([read_secret(1)])
    until(lambda: types(product) == ["first-rule"], "the first rule's event")
    change(RULES.replace("RULE", "second-rule"), "rules loaded again: 1 in force")
    product.append([read_secret(2)])
    until(lambda: types(product) == ["first-rule", "second-rule"], "the second rule's event")
    change(RULES.replace("RULE", "third-rule").replace("resource", "resouce"), "did you mean `resource`?")
    product.append([read_secret(3)])
    until(lambda: types(product) == ["first-rule", "second-rule", "second-rule"], "the second rule's second event")
    assert "the old 1 stay in force" in product.receiver.output()
