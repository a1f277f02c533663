"""What is taken for a credential, and what is not."""

import pytest

from forwarder.events.credentials import REDACTED, mask, sensitive


@pytest.mark.parametrize(
    "name",
    [
        *(
            "password",
            "DB_PASSWORD",
            "--api-key",
            "clientSecret",
            "X-Auth-Token",
            "pw",
            "MYSQL_PWD",
            "userPass",
            "SSH_KEY",
        ),
        *(
            "connectionString",
            "-Djavax.net.ssl.keyStorePassword",
            "AWS_SECRET_ACCESS_KEY",
            "authorization",
            "Signature",
            "mypass",
        ),
    ],
)
def test_a_telling_name(name: str) -> None:
    """In every way that names are written: with dashes, underscores, capitals."""
    assert sensitive(name)
    assert mask(f"{name}=hunter2") == f"{name}={REDACTED}"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "user",
            "--token-file",
            "secretName",
            "PWD",
            "OLDPWD",
            "--password-stdin",
            "policy.admission.k8s.io/bypass",
            "key",
        ),
        *("compass", "--authorization-mode", "tokenURL", "author", "keys", "", "--no-password", "monkey", "passenger"),
    ],
)
def test_an_ordinary_name(name: str) -> None:
    """Names of files, of settings about credentials, and words that only contain such a word."""
    assert not sensitive(name)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('{"password": "a\\"b c", "x": 1}', '{"password": [redacted], "x": 1}'),
        ("password: hunter2 next", "password: [redacted] next"),
        ("app --token hunter2 -v", "app --token [redacted] -v"),
        ("Server=x;Password=hunter2;Timeout=5", "Server=x;Password=[redacted];Timeout=5"),
        ("https://bob:hunter2@host/x", "https://bob:[redacted]@host/x"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        ("Authorization: Basic aHVudGVyMg== more", "Authorization: [redacted] more"),
        ("bearer abcdef1234", "bearer [redacted]"),
        ("SET PASSWORD 'hunter2'", "SET PASSWORD '[redacted]'"),
        ("SET PASSWORD FOR 'a'@'%' = 'hunter2'", "SET PASSWORD FOR 'a'@'%' = '[redacted]'"),
        ("SET PASSWORD = PASSWORD('hunter2')", "SET PASSWORD = [redacted]"),
        ("set password = crypt('hunter2', gen_salt('bf'))", "set password = [redacted], gen_salt('bf'))"),
        ("client.auth('hunter2').x", "client.auth([redacted]).x"),
        ("secret={a:b} c", "secret=[redacted] c"),
        ("https://hooks.slack.com/services/T000/B000/XXXXXXXX", "https://[redacted]"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQ==\n-----END PRIVATE KEY----- x", "[redacted] x"),
        ("-----BEGIN PRIVATE KEY-----\\nMIIEvQ", "[redacted]"),
        ("xeyJhbGciOiJSUzI1NiJ9.e30.c2ln", "x[redacted]"),
        ("[redacted] password=[redacted],x", "[redacted] password=[redacted],x"),
    ],
)
def test_text_is_masked(value: str, expected: str) -> None:
    """Each form that a credential takes in text, and no more than it."""
    assert mask(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "system:serviceaccount:kube-system:horizontal-pod-autoscaler",
        "system:serviceaccount:vault:vault-secret-operator",
        "system:serviceaccount:auth:token-cleaner",
        "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_AdministratorAccess_0123456789abcdef/alice@corp.example",
        "ip-10-0-1-23.eu-west-1.compute.internal",
        "aks-nodepool1-12345678-vmss000001",
        "ca1ed9f4-7bf4-4c85-81a8-1b11253d1ba6",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
        "registry.example/app@sha256:" + "0a1b2c3d" * 8,
        "Direct secret access: db in shop by alice",
        "RBAC modified: clusterrolebindings/HorizontalPodAutoscalerController by alice",
        "2026-11-21T06:20:57.893198Z",
    ],
)
def test_ordinary_words_are_no_credentials(value: str) -> None:
    assert mask(value) == value
