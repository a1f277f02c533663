"""Batches out of messages: screened, counted, one for each origin and cluster."""

import hashlib

from forwarder.envelopes.batches import SLICE_LINES, Gathering
from forwarder.envelopes.contents import Bad, Contents, Found


def gathering(**changes):
    settings = {"cluster": "prod", "cluster_from_envelope": False, "keep_raw": False} | changes
    return Gathering(lambda data, start, end: b"secret" in data[start:end], **settings)


async def test_lines_are_screened_and_all_are_counted():
    """What no rule can match is received all the same."""
    gathered = gathering()
    lines = [Found(b"secret", 7.0), *[Found(b"pods")] * (2 * SLICE_LINES)]
    await gathered.add(Contents(lines=lines), origin="webhook 10.0.0.7", offset=3)
    (batch,) = gathered.batches()
    assert (batch.received, batch.cluster, batch.origin) == (1 + 2 * SLICE_LINES, "prod", "webhook 10.0.0.7")
    assert [(line.data, line.time_s, line.offset) for line in batch.lines] == [(b"secret", 7.0, 3)]
    assert gathered.batches() == []


async def test_what_could_not_be_read_is_a_dead_letter():
    """Its bytes only where the operator wants them."""
    bad = Bad("bad_gzip", b"\x1f\x8b token=abc")
    for keep in (False, True):
        gathered = gathering(keep_raw=keep)
        await gathered.add(Contents(bad=[bad]), origin="kafka audit/0", offset=9)
        (letter,) = gathered.batches()[0].rejected
        assert (letter.reason, letter.source, letter.offset, letter.size_bytes) == (
            "bad_gzip",
            "kafka audit/0",
            9,
            len(bad.data),
        )
        assert letter.sha256 == hashlib.sha256(bad.data).hexdigest()
        assert letter.payload == (bad.data if keep else None)
        assert "abc" not in letter.head


async def test_whose_cluster_it_is():
    """The authenticated sender's comes first, then, if wanted, the envelope's, then the source's."""
    contents = Contents(lines=[Found(b"a", 0.0, "shop-eks"), Found(b"b")])
    plain, named = gathering(), gathering(cluster_from_envelope=True)
    for gathered, cluster, clusters in (
        (plain, "", ["prod"]),
        (named, "", ["shop-eks", "prod"]),
        (named, "own", ["own"]),
    ):
        await gathered.add(contents, origin="o", cluster=cluster)
        batches = gathered.batches()
        assert [batch.cluster for batch in batches] == clusters
        assert sum(batch.received for batch in batches) == 2
