"""Audit lines that nobody should write, for the question whether the fast path and the full decode agree on them.

    for line in lines(random.Random(1), 100_000): ...

Each begins as an event with hostile values and is then, most of the time, bent: keys reordered, doubled, spelled with
escapes, other types, spaces, cuts, broken bytes, deep bodies, lists. What stands twice, or out of order, stands no further
back than sourceIPs, or in front of the first objectRef: the screen promises nothing about what follows (its module says why).
"""

import json
import random
from collections.abc import Iterator
from typing import Any

# Of each pool the first part is what honest clusters write; the second is only drawn from in hostile moods.
USERS = (("alice", "bob@corp", "system:node:a", "system:serviceaccount:shop:ci", "system:admin", "eks:x", "m\u00fcller"),
         ('al"ice', "\\", "al\\ice", 'system:node:"},"sourceIPs":[', 'alice","groups":["x', "a&b", ""))  # fmt: skip
VERBS = (("get", "list", "watch", "create", "update", "patch", "delete"), ("deletecollection", "proxy", "", "g\u00e9t"))
RESOURCES = (
    ("pods", "secrets", "deployments", "nodes", "configmaps", "clusterrolebindings", "namespaces", "things"),
    ('pods"}', ""),
)
SUBRESOURCES = (
    (None, None, None, "exec", "attach", "portforward", "scale", "status", "log", "ephemeralcontainers", "token"),
    ("", 'exec"'),
)
NAMESPACES = (
    (None, "shop", "kube-system", "prod-eu", "team-1"),
    ('n"}', "a\\", "", 'prod","name":"x', "\u00e9", "a<b"),
)
NAMES = (
    (None, "web-0", "db"),
    ('n"}', 'n"},"responseStatus":{', '","subresource":"exec', 'x\\"', "\\", "db\u2028", "a]b", "{["),
)
TEXTS = (("", "/", "/version", "kubectl/v1.31 (linux/amd64)", "/api/v1/namespaces/shop/pods/web-0/exec?command=sh"),
         ('","verb":"get', '"', "\\", "a\nb", '},"sourceIPs":[', "]", "\u0000", '","user":{"username":"alice', "a&b"))  # fmt: skip
STAGES = (("ResponseComplete", "ResponseComplete", "ResponseStarted", "RequestReceived"), ("Panic", "x"))
AUDIT_IDS = (("6a2becae-d9e6-43e4-879b-179b8f413699", "x"), ('","stage":"Panic',))
GROUPS = ((None, "apps", "batch"), ('a"b',))
MOODS = (0.0, 0.0, 0.08, 0.4)  # how often an event's values are hostile
REFERENCE_ORDER = ("resource", "namespace", "name", "uid", "apiGroup", "apiVersion", "resourceVersion", "subresource")
ODD = (
    b"null",
    b"true",
    b"7",
    b"1e999",
    b"[]",
    b"{}",
    b'""',
    b'"x"',
    b'["x"]',
    b'{"a":{"b":[1]}}',
    b'{"username":"alice"}',
    b'"\\ud800"',
)


def text(value: Any) -> bytes:
    """As Go's encoder writes it."""
    plain = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return (
        plain.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e").encode("utf-8", "surrogatepass")
    )


def event(rng: random.Random) -> dict[str, Any]:
    """A whole event in kube-apiserver's order."""
    mood = rng.choice(MOODS)
    left = rng.randrange(15) if mood == 0.0 else -1  # often just one value is hostile, and the rest leads up to it

    def pick(pool: tuple[tuple[Any, ...], tuple[Any, ...]]) -> Any:
        nonlocal left
        left -= 1
        return rng.choice(pool[left == 0 or rng.random() < mood])

    user: dict[str, Any] = {"username": pick(USERS)}
    if rng.random() < 0.3:
        user["uid"] = pick(TEXTS)
    if rng.random() < 0.6:
        user["groups"] = [pick(TEXTS), "system:authenticated"]
    if rng.random() < 0.3:
        user["extra"] = {pick(TEXTS): [pick(TEXTS)]}
    made: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": rng.choice(("Metadata", "Request", "RequestResponse")),
        "auditID": pick(AUDIT_IDS),
        "stage": pick(STAGES),
        "requestURI": pick(TEXTS),
        "verb": pick(VERBS),
        "user": user,
    }
    if rng.random() < 0.1:
        made["impersonatedUser"] = {"username": pick(USERS)}
    made["sourceIPs"] = rng.choice((["10.0.0.7"], ["::1", pick(TEXTS)], []))
    if rng.random() < 0.8:
        made["userAgent"] = pick(TEXTS)
    if rng.random() < 0.9:
        values = {
            "resource": pick(RESOURCES),
            "namespace": pick(NAMESPACES),
            "name": pick(NAMES),
            "subresource": pick(SUBRESOURCES),
        }
        values |= {
            "apiVersion": "v1",
            "apiGroup": pick(GROUPS),
            "uid": rng.choice((None, "u")),
            "resourceVersion": rng.choice((None, "1")),
        }
        made["objectRef"] = {key: values[key] for key in REFERENCE_ORDER if values[key] is not None}
    made["responseStatus"] = {"metadata": {}, "code": rng.choice((101, 200, 201, 403, 404, 500))}
    if made["level"] != "Metadata":
        made["requestObject"] = rng.choice(
            (
                {"kind": "X", "spec": {"verb": "delete", "user": "alice"}},
                {"metadata": {"annotations": {"ci/bypass": "true"}}},
                "skipped-too-big-size-object",
            )
        )
    made["requestReceivedTimestamp"] = "2026-03-02T10:15:01.000000Z"
    made["annotations"] = {
        "authorization.k8s.io/decision": "allow",
        rng.choice(("x", "objectRef", "ci/bypass")): "true",
    }
    return made


Members = list[tuple[bytes, bytes]]


def joined(members: Members, comma: bytes = b",", colon: bytes = b":") -> bytes:
    return b"{" + comma.join(key + colon + value for key, value in members) + b"}"


def bent(rng: random.Random) -> bytes:
    """One line."""
    made = event(rng)
    members = [(text(key), text(value)) for key, value in made.items()]
    way = rng.random()
    if way < 0.35:
        return joined(members)
    keys = list(made)
    head = keys.index("sourceIPs") + 1  # how many members stand no further back than sourceIPs
    reference = keys.index("objectRef") if "objectRef" in made else head
    at = rng.randrange(len(members))
    if way < 0.43:  # two members of the head change places
        one, two = rng.randrange(head - 1), rng.randrange(head - 1)
        members[one], members[two] = members[two], members[one]
    elif way < 0.53:  # one stands twice, with another value
        other = event(rng)
        key = rng.choice(("verb", "user", "objectRef", "stage", "kind", "impersonatedUser", "auditID"))
        value = text(other.get(key, rng.choice(("x", None))))
        where = rng.randrange(reference + 1) if key == "objectRef" else rng.randrange(head)
        members.insert(where, (text(key), value))
    elif way < 0.59 and at < max(head, reference + 1):  # a key spelled with escapes
        name = keys[at]
        letter = rng.randrange(len(name))
        members[at] = (
            b'"' + name[:letter].encode() + b"\\u%04x" % ord(name[letter]) + name[letter + 1 :].encode() + b'"',
            members[at][1],
        )
    elif way < 0.65:  # another type
        members[at] = (members[at][0], rng.choice(ODD))
    elif way < 0.70:  # a member of the user or the object twice, out of order, or of another type
        name = rng.choice(("user", "objectRef"))
        if name in made:
            inner = [(text(key), text(value)) for key, value in made[name].items()]
            inner.insert(
                rng.randrange(len(inner) + 1),
                (
                    rng.choice((b'"username"', b'"resource"', b'"subresource"', b'"namespace"', b'"name"')),
                    rng.choice((*ODD, b'"secrets"', b'"exec"', b'"alice"')),
                ),
            )
            rng.shuffle(inner)
            members[keys.index(name)] = (text(name), joined(inner))
    elif way < 0.75:
        return joined(members, rng.choice((b",", b", ", b" ,\n")), rng.choice((b":", b": ", b" : ")))
    elif way < 0.80:  # cut
        line = joined(members)
        return line[: rng.randrange(len(line))] + rng.choice((b"", b"", b"[Truncated...]", b'"}'))
    elif way < 0.92:  # bytes broken, dropped or doubled, in front of where repeated keys are out of bounds
        line = bytearray(joined(members))
        limit = max(60, line.find(b'"sourceIPs"'))
        for _ in range(rng.choice((1, 1, 2, 5))):
            place = rng.randrange(min(limit, len(line) - 1))
            change = rng.random()
            if change < 0.6:
                line[place] = rng.choice(b'"\\{}[],:a\x00\xff ')
            elif change < 0.8:
                del line[place]
            else:
                line.insert(place, line[place])
        return bytes(line)
    elif way < 0.93:  # deeper than any decoder goes
        depth = rng.choice((10, 100, 1100))
        body = rng.choice((b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth))
        members.insert(rng.randrange(head, len(members) + 1), (b'"responseObject"', body))
    elif way < 0.97:
        return (
            b'{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":['
            + joined(members)
            + b","
            + joined([(text(k), text(v)) for k, v in event(rng).items()])
            + b"]}"
        )
    elif way < 0.98:
        return b"[" + joined(members) + b"]"
    else:
        return rng.choice((b" ", b"\xef\xbb\xbf", b"\x00", b"\t")) + joined(members) + rng.choice((b"", b"\r", b" "))
    return joined(members)


def lines(rng: random.Random, count: int) -> Iterator[bytes]:
    """`count` of them."""
    for _ in range(count):
        yield bent(rng)
